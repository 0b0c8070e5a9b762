"""AdaptCLIP against its released code (354d9e3): zero-shot, few-shot, losses, two steps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.parity import recipe
from tests.parity import recipe_adaptclip as own
from tests.parity.baselines import Case, close, scored
from zsad import maps as dense
from zsad.errors import RequestError
from zsad.methods.adaptclip.convert import our_name
from zsad.types import Tap

FEATURES = {"rtol": 1e-3, "atol": 1e-4}
TEXT = {"rtol": 1e-4, "atol": 5e-6}
MAP = {"rtol": 0.0, "atol": 1e-5}
LOSS = {"rtol": 1e-3, "atol": 1e-5}
PARTS = {"textual": "textual_learner", "visual": "visual_learner", "pq": "pq_learner"}


class AdaptCase(Case):
    """A case with its released file and its references."""

    def _learned(self, kind: str) -> Mapping[str, Tensor]:
        return {
            f"{i}.{k}": v
            for i, part in enumerate(self.parts())
            for k, v in part.items()
            if v.is_floating_point()
        }

    def parts(self, aliases: bool = False) -> tuple[Mapping[str, Tensor], ...]:
        spec, layers = self.spec, len(self.spec["layers"])
        sizes = {k: spec[k] for k in ("n_ctx", "reduction", "mid")}
        return own.recipe_adaptclip(self.dims, self.seed, **sizes, levels=layers, aliases=aliases)

    def file(self) -> Path:
        """The released layout: the heads repeated for every layer, token buffers beside them."""
        path = self.folder / f"{self.spec['kind']}.pth"
        textual, visual, pq = self.parts(aliases=True)
        textual = {**textual, "token_prefix_pos": torch.zeros(1, 1, 1, self.dims.text_width)}
        torch.save({"textual_learner": textual, "visual_learner": visual, "pq_learner": pq}, path)
        return path

    def near(self) -> dict[str, Tensor]:
        """Reference k of class c: image c * shots + k of a set of its own."""
        shots, names = self.spec["shots"], sorted(set(self.names))
        found = recipe.images(len(names) * shots, self.size, self.seed + 500)
        return dict(zip(names, found.split(shots)))


def load(case: AdaptCase, **keywords: Any) -> Any:
    return case.load("adaptclip", checkpoint=case.file(), **keywords)


@pytest.fixture(scope="module")
def infer(tmp_path_factory: pytest.TempPathFactory) -> AdaptCase:
    return AdaptCase("adaptclip_infer_a", tmp_path_factory.mktemp("adaptclip"))


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> AdaptCase:
    return AdaptCase("adaptclip_train_a", tmp_path_factory.mktemp("adaptclip_train"))


# ------------------------------------------------------------------------------ inference
@torch.no_grad()
def test_stages(infer: AdaptCase) -> None:
    z, loaded = infer.arrays, load(infer)
    features, context, scores = scored(loaded, infer, infer.names)
    method, pairs = loaded.method, context.text[infer.names[0]]
    close(features[Tap("cls_raw")], z["cls"], **FEATURES)
    close(features[method.taps[-1]][:2], z["patch_proj_last"], **FEATURES)
    close(features[method.taps[0]][:1], z["patch_proj_first"], **FEATURES)
    scale = np.abs(z["static_text"]).max()
    close(pairs.fixed / scale, z["static_text"] / scale, **TEXT)
    scale = np.abs(z["learned_text"]).max()
    close(pairs.learned / scale, z["learned_text"] / scale, **TEXT)
    tokens = context.text_encoder.tokenize([" ".join(["X"] * 12) + "."])
    assert tokens.ids[0].tolist() == z["tokens_learned"][0].tolist()
    for i, kind in enumerate(("visual", "textual")):
        close(scores.parts["images"][:, i], z[f"{kind}_score"], **MAP)
        enlarged = dense.upsample(scores.maps[i], infer.size, False)
        close(enlarged, z[f"{kind}_map"], **MAP)


def test_the_public_route_zero_shot(infer: AdaptCase) -> None:
    found = load(infer).predict_tensor(infer.images, infer.names)
    close([p.anomaly_map for p in found], infer.arrays["zero_map_final"], **MAP)
    close([p.image_score for p in found], infer.arrays["zero_image_score"], **MAP)


@torch.no_grad()
def test_stages_of_the_comparison(infer: AdaptCase) -> None:
    z = infer.arrays
    loaded = load(infer, overrides={"shots": infer.spec["shots"]})
    near = {
        name: loaded.backbone.encode_image(pictures, loaded.request)
        for name, pictures in infer.near().items()
    }
    _, _, scores = scored(loaded, infer, infer.names, references=near)
    size, layers = infer.size, len(loaded.method.taps)
    close(scores.parts["images"][:, 2], z["pq_score"], **MAP)
    close(dense.upsample(scores.maps[2], size, False), z["pq_map"], **MAP)
    align = [dense.upsample(stage, size, False) for stage in scores.maps[3:]]
    close(torch.stack(align, 1)[:1], z["align_layers"], **MAP)
    close(dense.joined(align, "harmonic"), z["align_map"], **MAP)
    assert len(align) == layers


def test_the_public_route_few_shot(infer: AdaptCase) -> None:
    loaded = load(infer, overrides={"shots": infer.spec["shots"]})
    found = loaded.predict_tensor(infer.images, infer.names, references=infer.near())
    close([p.anomaly_map for p in found], infer.arrays["few_map_final"], **MAP)
    close([p.image_score for p in found], infer.arrays["few_image_score"], **MAP)


@pytest.mark.parametrize(
    "slip",
    [
        {"encoder.pos_interp": "bicubic_aa"},
        {"encoder.activation": "gelu"},
        {"image_token": "cls"},
        {"fusion": "harm"},
        {"context": False},
        {"layers": [5, 11, 17, 23]},
        {"object": "thing"},
    ],
    ids=str,
)
def test_known_slips_miss(infer: AdaptCase, slip: dict[str, Any]) -> None:
    loaded = load(infer, overrides={"shots": infer.spec["shots"], **slip})
    found = loaded.predict_tensor(infer.images, infer.names, references=infer.near())
    z = infer.arrays
    maps = np.abs([p.anomaly_map for p in found] - z["few_map_final"]).max()
    scores = np.abs(np.array([p.image_score for p in found]) - z["few_image_score"]).max()
    assert max(maps, scores) > 20 * MAP["atol"]


# ------------------------------------------------------------------------------- training
def ours_of(method: Any, names: list[str]) -> list[Tensor]:
    """Our tensors of the golden's names."""
    held = method.state_dict(keep_vars=True)
    found = []
    for name in names:
        part, _, rest = name.partition(".")
        found.append(held[our_name(f"{PARTS[part]}.{rest}")])
    return found


def test_two_training_steps(train: AdaptCase) -> None:
    z, loaded = train.arrays, load(train)
    method = loaded.method
    references = recipe.images(len(train.images), train.size, train.seed + 500)
    names = z["param_names"].tolist()
    before = [p.detach().clone() for p in ours_of(method, names)]
    (phase,) = method.phases()
    optimizer = phase.optimizer(method.parameters_of_phase(phase))
    assert optimizer.defaults["lr"] == train.spec["lr"]
    is_pixel = np.array([n != "cross_entropy" for n in z["term_names"].tolist()])
    for step in range(train.spec["steps"]):
        losses = loaded.losses(
            train.images, train.masks, train.labels, train.names, references=references
        )
        for value, name in zip(z["losses"][step], z["loss_names"].tolist()):
            close(losses[name].item(), value, **LOSS)
        close(losses["focal"].item(), z["terms"][step][is_pixel][0::3].sum(), **LOSS)
        optimizer.zero_grad()
        losses["total"].backward()
        norms = [p.grad.norm().item() for p in ours_of(method, z["grad_names"].tolist())]
        close(norms, z["grad_norms"][step], 1e-2, 1e-5)
        optimizer.step()
    after = [p.detach() for p in ours_of(method, names)]
    close([p.norm().item() for p in after], z["param_norms_after"], 1e-3, 1e-5)
    changes = [(a - b).norm().item() for a, b in zip(after, before)]
    close(changes, z["param_change_norms"], 1e-2, 1e-6)
    buffers = ours_of(method, z["buffer_names"].tolist())
    close([b.norm().item() for b in buffers], z["buffer_norms_after"], 1e-3, 1e-5)
    counts = ours_of(method, z["count_names"].tolist())
    assert [int(c) for c in counts] == z["counts_after"].tolist()


def test_training_without_partners_is_refused(train: AdaptCase) -> None:
    with pytest.raises(RequestError, match="compares every training image with a normal one"):
        load(train).losses(train.images, train.masks, train.labels, train.names)

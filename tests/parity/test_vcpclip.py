"""VCP-CLIP against its released code (4dd96ec): inference, losses, gradients, two steps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import zsad
from tests.parity import recipe_vcpclip as own
from tests.parity.baselines import Case, close, scored
from zsad import maps as dense
from zsad.methods.vcpclip.convert import names as our_names
from zsad.types import Tap

FEATURES = {"rtol": 1e-3, "atol": 1e-4}
TEXT = {"rtol": 1e-4, "atol": 5e-6}
MAP = {"rtol": 0.0, "atol": 1e-5}
FINAL = {"rtol": 0.0, "atol": 5e-5}
# Their true gradient is zero, so what both sides have is rounding noise.
NOISE = ("New_Lan_Embed.prompt_linear1.fc.bias", "Zero_try.k_proj_pre_1.bias")


class VcpCase(Case):
    """A case with its released file."""

    def _learned(self, kind: str) -> Mapping[str, Tensor]:
        spec = self.spec
        self.parts = own.recipe_vcpclip(
            self.dims, self.seed, spec["prompt_len"], spec["deep_len"], len(spec["layers"])
        )
        return {f"{part}.{k}": v for part, s in self.parts.items() for k, v in s.items()}

    def file(self) -> Path:
        """The layout of the released file: three dictionaries, and bare parameters."""
        path = self.folder / f"{self.spec['kind']}.pth"
        bare = {k: nn.Parameter(v) for k, v in self.parts["prompt"].items()}
        torch.save({**{p: self.parts[p] for p in self.parts if p != "prompt"}, **bare}, path)
        return path


def load(case: VcpCase, **keywords: Any) -> Any:
    return case.load("vcpclip", checkpoint=case.file(), **keywords)


@pytest.fixture(scope="module")
def infer(tmp_path_factory: pytest.TempPathFactory) -> VcpCase:
    return VcpCase("vcpclip_infer_a", tmp_path_factory.mktemp("vcpclip"))


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> VcpCase:
    return VcpCase("vcpclip_train_a", tmp_path_factory.mktemp("vcpclip_train"))


# ------------------------------------------------------------------------------ inference
@torch.no_grad()
def test_stages(infer: VcpCase) -> None:
    z, loaded = infer.arrays, load(infer)
    features, context, scores = scored(loaded, infer, infer.names)
    method, encoder = loaded.method, context.text_encoder
    tokens = encoder.tokenize(["a photo of a good", "a photo of a damaged"]).ids
    for row, stored in zip(tokens, ("tokens_normal", "tokens_abnormal")):
        assert row[:6].tolist() == z[stored][0, :6].tolist()
    close(features[Tap("cls")], z["image_feature"], **FEATURES)
    close(method.pre(features[Tap("cls")]), z["class_vectors"], **FEATURES)
    pair = method.text_pair(features[Tap("cls")], encoder)
    close(pair, z["text"], **TEXT)
    count = len(method.taps)
    for k, tap in enumerate(method.taps):
        close(method.post(pair, features.patches(tap)), z["post_text"][k], **TEXT)
        close(scores.maps[k], z["logits_raw"][k], **FEATURES)
        close(scores.maps[count + k], z["logits_new"][k], **FEATURES)
    built = dense.build_maps(scores, method.map_spec(), infer.size)
    close(torch.stack(built.stages[:count]).mean(0), z["map_raw"], **MAP)
    close(torch.stack(built.stages[count:]).mean(0), z["map_new"], **MAP)


def test_the_public_route(infer: VcpCase) -> None:
    z = infer.arrays
    found = load(infer).predict_tensor(infer.images, infer.names)
    close([p.anomaly_map for p in found], z["map_final"], **FINAL)
    close([p.image_score for p in found], z["image_score"], **FINAL)
    close([p.info["raw_score"] for p in found], z["score_raw"], **FINAL)
    plain = load(infer, overrides={"stretch": False}).predict_tensor(infer.images, infer.names)
    close([p.anomaly_map for p in plain], z["map_smooth"], **MAP)


def test_metrics(infer: VcpCase) -> None:
    z = infer.arrays
    found = load(infer).predict_tensor(infer.images, infer.names)
    for column, name in enumerate(z["metric_objects"].tolist()):
        rows = [i for i, n in enumerate(infer.names) if n == name]
        got = zsad.evaluate(
            np.stack([found[i].anomaly_map for i in rows]),
            infer.masks[rows, 0].numpy(),
            np.array([found[i].image_score for i in rows]),
            infer.labels[rows].numpy(),
        )
        for row, metric in enumerate(z["metric_names"].tolist()):
            if metric in got and metric != "pixel_aupro":
                close(got[metric], z["metric_values"][row, column], 0, 2e-2)


@pytest.mark.parametrize(
    "slip",
    [
        {"encoder.activation": "weights"},
        {"encoder.pos_interp": "bicubic"},
        {"layers": [5, 11, 17, 23]},
        {"temper": 16**-0.5},
        {"alpha": 0.2},
        {"words.normal": "a photo of a perfect"},
        {"use_image": False},
    ],
    ids=str,
)
def test_known_slips_miss(infer: VcpCase, slip: dict[str, Any]) -> None:
    found = load(infer, overrides=slip).predict_tensor(infer.images, infer.names)
    difference = np.abs([p.anomaly_map for p in found] - infer.arrays["map_final"]).max()
    assert difference > 100 * FINAL["atol"]


@torch.no_grad()
def test_a_dropout_of_zero_is_the_pass_of_evaluation(infer: VcpCase) -> None:
    loaded = load(infer, overrides={"train.dropout": 0.0})
    features, context, _ = scored(loaded, infer, infer.names)
    image = features[Tap("cls")]
    found = [
        loaded.method.train(mode).text_pair(image, context.text_encoder) for mode in (True, False)
    ]
    close(found[0], found[1], 0, 1e-6)


# ------------------------------------------------------------------------------- training
def released_names(method: nn.Module, layers: int) -> dict[str, list[Tensor]]:
    """Our parameters (or their gradients' owners) by released name."""
    held = dict(method.named_parameters())
    return {theirs: held[ours] for theirs, ours in our_names(layers).items()}


def norms_of(method: Any, value: Any) -> dict[str, Tensor]:
    """``value`` of every parameter by released name; the deep tokens apart."""
    found = {k: value(p) for k, p in released_names(method, len(method.taps)).items()}
    tokens = value(method.deep.tokens)
    return {**found, "prompt_embeddings": tokens[:1], "deep_prompt_embeddings": tokens[1:]}


def compared(names: list[str]) -> list[int]:
    return [i for i, n in enumerate(names) if n not in (*NOISE, "prompt_text_projection")]


def check_gradients(
    method: Any, z: Any, key: str, step: int, tolerance: tuple[float, float]
) -> None:
    grads = norms_of(method, lambda p: p.grad)
    names = z["grad_names"].tolist()
    rows = compared(names)
    close([grads[names[i]].norm().item() for i in rows], z[key][step][rows], *tolerance)


def check_terms(losses: Mapping[str, Tensor], z: Any, key: str, step: int, rtol: float) -> None:
    values = z[f"{key}term_values"][step]
    close(losses["focal"].item(), values[0::2].sum(), rtol, 1e-5)
    close(losses["dice"].item(), values[1::2].sum(), rtol, 1e-5)
    total, plain, refined = z[f"{key}sum_values"][step]
    close(losses["total"].item(), total, rtol, 1e-5)
    close(losses["plain"].item(), plain, rtol, 1e-5)
    close(losses["refined"].item(), refined, rtol, 1e-5)


def test_two_training_steps(train: VcpCase) -> None:
    z = train.arrays
    loaded = load(train, overrides={"train.dropout": 0.0})
    method = loaded.method
    before = norms_of(method, lambda p: p.detach().clone())
    named = dict(method.named_parameters())
    optimizer = method.phases()[0].optimizer(named)
    rates = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    ours = released_names(method, len(method.taps))
    for name, rate in zip(z["lr_names"].tolist(), z["lr_values"].tolist()):
        assert name not in ours or rates[id(ours[name])] == rate
    for step, bound in enumerate(((1e-2, 1e-5), (2e-2, 1e-4))):
        losses = loaded.losses(train.images, train.masks, train.labels)
        check_terms(losses, z, "", step, 1e-3 if step == 0 else 2e-2)
        optimizer.zero_grad()
        losses["total"].backward()
        check_gradients(method, z, "grad_norms", step, bound)
        if step == 0:
            close(method.pre.query.grad, z["grad_prompt_query"][0], 1e-2, 1e-5)
            close(method.deep.tokens.grad[1:], z["grad_deep_prompt"], 1e-2, 1e-5)
        optimizer.step()
    names = z["param_names"].tolist()
    rows = compared(names)
    after = norms_of(method, lambda p: p.detach())
    changes = [(after[names[i]] - before[names[i]]).norm().item() for i in rows]
    close([after[names[i]].norm().item() for i in rows], z["param_norm_after"][rows], 2e-2, 1e-4)
    close([after[names[i]].sum().item() for i in rows], z["param_sum_after"][rows], 2e-2, 1e-3)
    close(changes, z["param_change_norms"][rows], 2e-2, 1e-4)
    close(method.pre.query, z["after_prompt_query"][0], 0, 1e-4)


class Given(nn.Module):
    """The recipe's factors in place of a draw, for deep tokens [depth, B, 2, n, W]."""

    def __init__(self, case: VcpCase) -> None:
        super().__init__()
        self.case = case

    def forward(self, tokens: Tensor) -> Tensor:
        depth, count, labels, words = tokens.shape[:4]
        factors = [
            own.vcpclip_dropout(self.case.dims, self.case.seed, label, image, layer, words)
            for layer in range(depth)
            for image in range(count)
            for label in range(labels)
        ]
        return tokens * torch.stack(factors).view_as(tokens)


def test_a_step_with_dropout(train: VcpCase) -> None:
    z, loaded = train.arrays, load(train)
    method = loaded.method
    method.dropout = Given(train)
    losses = loaded.losses(train.images, train.masks, train.labels)
    check_terms(losses, z, "drop_", 0, 1e-3)
    losses["total"].backward()
    check_gradients(method, z, "drop_grad_norms", 0, (1e-2, 1e-5))
    features = loaded.backbone.encode_image(train.images, loaded.request)
    with torch.no_grad():
        encoder = loaded.backbone.text_encoder(loaded.request.variant)
        close(method.text_pair(features[Tap("cls")], encoder), z["drop_text"], **TEXT)


def test_the_released_file_of_the_papers_backbone_has_the_names_that_are_read() -> None:
    keys = json.loads((Path(__file__).parent / "keys_vcpclip.json").read_text())
    found = {k.replace("/", ".").removeprefix("prompt.") for k in keys}
    known = {*our_names(4), "prompt_embeddings", "deep_prompt_embeddings"}
    assert found - known == {"prompt_text_projection"}
    assert known <= found

"""Bayes-PFL against its released code (8f155a0): inference with given noise, losses, five steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.parity import recipe_bayespfl as own
from tests.parity.baselines import Case, close, scored
from zsad import maps as dense
from zsad.methods.bayespfl.convert import UNUSED
from zsad.methods.bayespfl.convert import names as our_names
from zsad.methods.bayespfl.draws import TrainingDraws
from zsad.types import Scores, Tap

TEXT = {"rtol": 1e-4, "atol": 5e-6}
LATENT = {"rtol": 1e-4, "atol": 1e-4}
LOGIT = {"rtol": 0.0, "atol": 1e-4}
MAP = {"rtol": 0.0, "atol": 1e-5}
SCORE = {"rtol": 0.0, "atol": 1e-4}
LOSS = {"rtol": 1e-3, "atol": 0.0}
NOISE = ("fuse.compress.bias",)  # shifts a softmax: its gradient is rounding noise
LABELS = ("normal", "abnormal")
TERMS = {
    "focal": "loss_foc",
    "dice": "loss_dic",
    "divergence": "loss_dist_reg",
    "orthogonality": "loss_text",
}
OF_GROUP = (  # one parameter of each of the optimiser's groups, in the order of the golden
    "prompt_context",
    "temperature_pixel",
    "PFL_normal.state",
    "class_mapping.weight",
)


class BayesCase(Case):
    """A case with its released file and its noise."""

    def _learned(self, kind: str) -> Mapping[str, Tensor]:
        return self.state(aliases=False)

    def state(self, aliases: bool) -> Mapping[str, Tensor]:
        spec = self.spec
        sizes = {k: spec[k] for k in ("prompt_num", "context_len", "state_len", "flows")}
        layers = len(spec["layers"])
        return own.recipe_bayespfl(self.dims, self.seed, **sizes, levels=layers, aliases=aliases)

    def file(self) -> Path:
        """The released layout, repeated names included."""
        path = self.folder / f"{self.spec['kind']}.pth"
        torch.save({"MyModel": self.state(aliases=True)}, path)
        return path

    def noise(self, tag: str, count: int, rows: int = 1) -> Tensor:
        return own.recipe_bayespfl_noise(self.dims, self.seed, tag, count, rows)


class Given:
    """The recipe's noise in place of draws."""

    def __init__(self, case: BayesCase, shared: bool = False) -> None:
        self.case, self.shared, self.step = case, shared, 0

    def states(self) -> Tensor:
        count = self.case.spec["samples"]
        return torch.stack([self.case.noise(f"test.{label}", count)[:, 0] for label in LABELS])

    def contexts(self, names: Sequence[str], places: Sequence[int]) -> Tensor:
        """``names`` are those of predict_tensor: the numbers of the images in the call."""
        tags = ["shared" if self.shared else name for name in names]
        count = self.case.spec["samples"]
        return torch.stack([self.case.noise(f"test.context.{t}", count)[:, 0] for t in tags])

    def in_training(self, batch: int, bank: int) -> TrainingDraws:
        tag = f"train.{self.step}"
        context = self.case.noise(f"{tag}.context", 1, batch)[0]
        states = torch.stack([self.case.noise(f"{tag}.{label}", 1)[0, 0] for label in LABELS])
        entry = self.case.spec["index_prompt"][self.step]
        self.step += 1
        return TrainingDraws(context, states, entry)


def load(case: BayesCase, shared: bool = False, **keywords: Any) -> Any:
    loaded = case.load("bayespfl", checkpoint=case.file(), **keywords)
    loaded.method.draws = Given(case, shared)
    return loaded


@pytest.fixture(scope="module")
def infer(tmp_path_factory: pytest.TempPathFactory) -> BayesCase:
    return BayesCase("bayespfl_infer_a", tmp_path_factory.mktemp("bayespfl"))


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> BayesCase:
    return BayesCase("bayespfl_train_a", tmp_path_factory.mktemp("bayespfl_train"))


# ------------------------------------------------------------------------------ inference
@torch.no_grad()
def test_stages(infer: BayesCase) -> None:
    z = infer.arrays
    loaded = load(infer, overrides={"stretch": False, "sampling.noise": "per_image"})
    names = [str(i) for i in range(len(infer.images))]
    features, context, scores = scored(loaded, infer, infer.names, uids=names)
    method, g = loaded.method, features[Tap("cls")]
    close(g, z["image_feature"], 1e-3, 1e-4)
    draws = method.draws
    latents = method.latents(g, draws.contexts(names, []), draws.states())
    close(latents.context, z["zk_context"], **LATENT)
    close(latents.states[0], z["zk_normal"], **LATENT)
    close(latents.states[1], z["zk_abnormal"], **LATENT)
    pairs = method.text_pairs(latents, context, context.text_encoder)
    close(pairs[:2].flatten(1, 2), z["text_embeddings"], **TEXT)
    for layer, stored in ((0, "rca_text_first"), (len(method.taps) - 1, "rca_text_last")):
        patches = features.patches(method.taps[layer])[:1]
        seen, rows = method.rca(layer, pairs[:1].flatten(1, 2), patches)
        close(rows[0], z[stored], **TEXT)
        if not layer:
            close(seen[0], z["rca_patch_first"], **TEXT)
    built = dense.build_maps(scores, method.map_spec(), infer.size)
    close(built.fused[:4], z["map_raw"], **MAP)
    close(built.final, z["map_smooth"], **MAP)
    close(method.largest(scores, built), z["top_mean"], **MAP)
    for head in ("stage1", "stage2"):
        logits = method.image_logits(features, pairs, head)
        close(logits.flatten(1), z[f"image_logits_{head}"], **LOGIT)
        close(logits.softmax(1)[:, 1].mean(-1), z[f"image_prob_{head}"], **MAP)
    each = len(scores.maps) // len(method.taps)
    for k in range(len(method.taps)):
        group = Scores(scores.maps[k * each : (k + 1) * each], scores.image)
        layer_map = dense.build_maps(group, method.map_spec(), infer.size).fused
        close(layer_map[:2], z["layer_maps"][:, k], **MAP)


def test_the_public_route(infer: BayesCase) -> None:
    found = load(infer).predict_tensor(infer.images, infer.names)
    close([p.anomaly_map for p in found], infer.arrays["map_smooth"], **MAP)
    close([p.image_score for p in found], infer.arrays["image_score"], **SCORE)


@pytest.mark.parametrize(("kind", "shared"), [("fixed", True), ("mean", False)])
def test_other_noise(infer: BayesCase, kind: str, shared: bool) -> None:
    z = infer.arrays
    overrides = {"sampling.noise": kind, "stretch": False, "post.sigma": 0.0}
    loaded = load(infer, shared, overrides=overrides)
    if kind == "mean":
        loaded = infer.load("bayespfl", checkpoint=infer.file(), overrides=overrides)
    found = loaded.predict_tensor(infer.images, infer.names)
    close([p.anomaly_map for p in found[:2]], z[f"{kind}_map_raw"][:2], **MAP)
    close([p.info["probability"] for p in found], z[f"{kind}_image_prob"], **MAP)


@pytest.mark.parametrize(
    "slip",
    [
        {"encoder.activation": "weights"},
        {"encoder.pos_interp": "bicubic"},
        {"layers": [5, 11, 17, 23]},
        {"heads": 1},
    ],
    ids=str,
)
def test_known_slips_miss(infer: BayesCase, slip: dict[str, Any]) -> None:
    found = load(infer, overrides=slip).predict_tensor(infer.images, infer.names)
    difference = np.abs([p.anomaly_map for p in found] - infer.arrays["map_smooth"]).max()
    assert difference > 20 * MAP["atol"]


# ------------------------------------------------------------------------------- training
def by_released_name(method: Any) -> dict[str, Any]:
    held = dict(method.named_parameters())
    return {theirs: held[ours] for theirs, ours in our_names(len(method.taps)).items()}


def compared(names: list[str], stage: str = "prompts") -> list[str]:
    """What has a gradient of its own: in phase ``image`` the released one clears no other."""
    head = ("class_mapping", "image_mapping", "fuse")
    return [
        n
        for n in names
        if n not in NOISE and not UNUSED.fullmatch(n) and (stage == "prompts" or n.startswith(head))
    ]


def check_rates(optimizer: Any, phase: Any, number: int, expected: Any, ours: Any) -> None:
    if phase.step_rate is not None:
        for group in optimizer.param_groups:
            group["lr"] = phase.step_rate(number, 3) * group.setdefault("initial_lr", group["lr"])
    rates = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    if phase.name == "prompts":
        close([rates[id(ours[n])] for n in OF_GROUP], expected, 1e-5, 1e-12)
    else:
        close(sorted(set(rates.values())), expected[:1], 1e-5, 0)


def check_step(losses: Any, z: Any, step: int, stage: str, ours: Any) -> None:
    values = dict(zip(z["step_names"].tolist(), z["step_values"][step]))
    close(losses["total"].item(), values["loss"], **LOSS)
    close(losses["class"].item(), values["loss_class"], **LOSS)
    for own_name, theirs in TERMS.items() if stage == "prompts" else ():
        close(losses[own_name].item(), values[theirs], **LOSS)
    norms = dict(zip(z["grad_names"].tolist(), z["grad_norms"][step]))
    for name in compared(list(norms), stage):
        gradient = ours[name].grad
        if np.isnan(norms[name]):
            assert gradient is None or not gradient.any(), name
        else:
            close(gradient.norm().item(), norms[name], 1e-2, 1e-6)


def test_three_steps_of_the_prompts_and_two_of_the_image_head(train: BayesCase) -> None:
    z, spec = train.arrays, train.spec
    loaded = load(train, overrides={"train.epochs": spec["epochs"]})
    method = loaded.method
    ours = by_released_name(method)
    begin = {n: p.detach().clone() for n, p in ours.items()}
    step = 0
    for phase, count, key in zip(method.phases(), (spec["steps1"], spec["steps2"]), (1, 2)):
        optimizer = phase.optimizer(method.parameters_of_phase(phase))
        for number in range(count):
            check_rates(optimizer, phase, number, z["learning_rates"][step], ours)
            losses = loaded.losses(
                train.images, train.masks, train.labels, train.names, phase=phase.name
            )
            optimizer.zero_grad()
            losses["total"].backward()
            check_step(losses, z, step, phase.name, ours)
            optimizer.step()
            step += 1
        names = z[f"stage{key}_param_names"].tolist()
        rows = [names.index(n) for n in compared(names)]
        after = {n: ours[n].detach() for n in compared(names)}
        norms = z[f"stage{key}_param_norms_after"][rows]
        close([v.norm().item() for v in after.values()], norms, 1e-3, 1e-5)
        sums = z[f"stage{key}_param_sums_after"][rows]
        close([v.sum().item() for v in after.values()], sums, 1e-3, 1e-2)
        if key == 1:
            changes = [(v - begin[n]).norm().item() for n, v in after.items()]
            close(changes, z["stage1_param_change_norms"][rows], 2e-2, 1e-5)

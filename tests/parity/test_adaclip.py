"""AdaCLIP against its released code (e27ee32): scores, variants, slips, training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.parity.baselines import Case, close, scored
from tests.parity.recipe_adaclip import recipe_adaclip
from zsad import maps as dense
from zsad.components.prompt_ensemble import fill, in_templates
from zsad.errors import RequestError
from zsad.methods.adaclip import prompts
from zsad.methods.adaclip.fusion import semantics
from zsad.methods.adaclip.method import CLS, AdaCLIP
from zsad.types import Category

STATE = {"rtol": 1e-3, "atol": 1e-4}
TOKENS = {"rtol": 1e-3, "atol": 3e-4}
UNIT = {"rtol": 1e-4, "atol": 1.5e-5}
LOGITS = {"rtol": 1e-3, "atol": 1.5e-3}
MAP = {"rtol": 0.0, "atol": 4e-5}
LOSS = {"rtol": 1e-3, "atol": 1e-4}


def made(case: Case) -> Any:
    return recipe_adaclip(case.dims, case.seed, case.spec["length"], case.spec["depth"])


def load(case: Case, overrides: dict[str, Any] | None = None, preset: str = "released") -> Any:
    checkpoint = case.folder / "adaclip.pth"
    torch.save({f"clip_model.{k}": v for k, v in case.learned.items()}, checkpoint)
    given = {"hsf.clusters": case.spec["k_clusters"], **(overrides or {})}
    return case.load("adaclip", preset, checkpoint=checkpoint, overrides=given)


@pytest.fixture(scope="module")
def infer(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case("adaclip_infer_a", tmp_path_factory.mktemp("adaclip"), made)


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case("adaclip_train_a", tmp_path_factory.mktemp("adaclip_train"), made)


@pytest.fixture(scope="module")
def released(infer: Case) -> Any:
    return load(infer)


def flat(logits: torch.Tensor) -> torch.Tensor:
    """[B, K, 2, h, w] -> [B, K, L, 2], the arrays' form."""
    return logits.flatten(3).transpose(2, 3)


@torch.no_grad()
def test_stages(infer: Case, released: Any) -> None:
    z, method = infer.arrays, released.method
    features, context, scores = scored(released, infer, infer.names)
    encoder = released.backbone.image_encoder(released.request.variant)
    close(encoder.positions(features.grid), z["pos_embed_used"], 0, 1e-6)
    cls = features[CLS]
    close(cls, z["plain_cls"], **STATE)
    close(method.dynamic_visual_prompt_generator(cls), z["dynamic_visual"], **STATE)
    close(method.dynamic_text_prompt_generator(cls), z["dynamic_text"], **STATE)
    close(scores.parts["pair"], z["text"], **UNIT)
    seen = method.seen(features, context)
    close(seen.image, z["image_feature"], **UNIT)
    close(seen.patches[:2], z["patch_features"], **UNIT)
    logits = method.logits(seen, scores.parts["pair"], features.grid)
    close(flat(logits), z["layer_logits"], **LOGITS)
    probability = dense.pair_probability(logits.mean(1)).flatten(1)
    found = semantics(seen.patches, probability, infer.spec["k_clusters"], 111, "probability")
    assert np.array_equal(found.top, z["top_index"])
    assert np.array_equal(found.labels, z["cluster_labels"])
    close(found.feature, z["cluster_feature"], **UNIT)
    without = method.image_pair(seen.image, scores.parts["pair"])[:, 1]
    close(without, z["image_score_nohsf"], **MAP)
    bare = dense.build_maps(scores, load(infer, {"post.sigma": 0}).method.map_spec(), infer.size)
    close(bare.final, z["map_raw"], **MAP)


@torch.no_grad()
def test_both_towers_with_their_very_prompts(infer: Case, released: Any) -> None:
    """With the stored dynamic prompts no value lies on the other side of a half step."""
    z, method = infer.arrays, released.method
    features, context, _ = scored(released, infer, infer.names)
    for name in ("visual", "text"):
        stored = torch.from_numpy(z[f"dynamic_{name}"])
        generator = getattr(method, f"dynamic_{name}_prompt_generator")
        generator.forward = lambda cls, stored=stored: stored[: len(cls)]
    try:
        tokens = method.visual_contexts(features[CLS])
        last, _ = method.prompted(features[("tokens", 0, 0)], tokens, context)
        close(context.image_encoder.project(last[:, 0]), z["prompted_cls"], 0, 2e-5)
        close(last[:2], z["prompted_tokens_last"], 0, 5e-5)
        seen = method.seen(features, context)
        close(seen.image, z["image_feature"], 0, 1e-6)
        close(seen.patches[:2], z["patch_features"], 0, 1e-6)
        said = method.prepare_text(context.categories, context.text_encoder)
        for i, category in enumerate(context.categories):
            tokens = torch.from_numpy(z["dynamic_text"][i : i + 1])
            method.dynamic_text_prompt_generator.forward = lambda cls, tokens=tokens: tokens
            units = method.encoded(
                said[category.key], features[CLS][i : i + 1], context.text_encoder
            )
            assert units.shape[1] == 48
            means = torch.stack([units[0, :28].mean(0), units[0, 28:].mean(0)])
            close(torch.nn.functional.normalize(means, dim=-1), z["text"][i], 0, 1e-6)
    finally:
        for name in ("visual", "text"):
            del getattr(method, f"dynamic_{name}_prompt_generator").forward


def test_the_public_route(infer: Case, released: Any) -> None:
    found = released.predict_tensor(infer.images, infer.names)
    close([p.anomaly_map for p in found], infer.arrays["map_smooth"], **MAP)
    close([p.image_score for p in found], infer.arrays["image_score"], **MAP)


def test_the_encoder_is_shared(infer: Case, released: Any) -> None:
    """One ordinary pass and one prompted one; no second copy of the weights."""
    counters = released.backbone.counters
    before = (counters.images, counters.resumed)
    released.predict_tensor(infer.images[:2], infer.names[:2])
    assert (counters.images - before[0], counters.resumed - before[1]) == (2, 2)
    own = sum(p.numel() for p in released.method.parameters())
    assert own == sum(t.numel() for t in infer.learned.values())


@pytest.mark.parametrize(
    ("overrides", "suffix"),
    [({"prompts.half": False}, "_nohalf"), ({"hsf.kind": "none"}, "_nohsf")],
)
def test_switches(infer: Case, overrides: dict[str, Any], suffix: str) -> None:
    found = load(infer, overrides).predict_tensor(infer.images, infer.names)
    close([p.image_score for p in found], infer.arrays[f"image_score{suffix}"], **MAP)
    if suffix == "_nohalf":
        close([p.anomaly_map for p in found], infer.arrays["map_smooth_nohalf"], **MAP)


@torch.no_grad()
def test_ten_seeds(infer: Case, released: Any) -> None:
    method, pair = released.method, torch.from_numpy(infer.arrays["text"])
    features, context, _ = scored(released, infer, infer.names)
    seen = method.seen(features, context)
    logits, own = method.logits(seen, pair, features.grid), method.config
    for column, seed in enumerate(range(1000, 1010)):
        method.config = replace(own, hsf=replace(own.hsf, seed=seed))
        found = method.image_pair(method.fused(seen, logits), pair)[:, 1]
        close(found, infer.arrays["image_score_seeds"][:, column], 0, 1e-4)
    method.config = own


@pytest.mark.parametrize("row", range(8))
def test_variants(infer: Case, row: int) -> None:
    z = infer.arrays
    branch, kind = (part.split("=")[1] for part in str(z["variant_names"][row]).split())
    overrides = {"prompts.branch": branch or "none", "prompts.type": kind, "post.sigma": 0}
    wanted = z["variant_values"][row]
    if np.isnan(wanted).any():
        with pytest.raises(RequestError, match="the released code fails there"):
            load(infer, overrides)
        own = load(infer, {**overrides, "encoder.activation": "gelu"}, preset="default")
        assert len(own.predict_tensor(infer.images[:1], infer.names[:1])) == 1
        return
    found = load(infer, overrides).predict_tensor(infer.images, infer.names)
    maps = np.stack([p.anomaly_map for p in found])
    scores = [p.image_score for p in found]
    ours = np.stack([scores, maps.mean((1, 2)), maps.max((1, 2)), maps[:, 0, 0]], 1)
    close(ours, wanted, 0, 5e-5)


@pytest.mark.parametrize(
    "slip",
    [
        {"encoder.activation": "weights"},
        {"encoder.pos_interp": "bicubic_aa"},
        {"names": "spoken"},
        {"prompts.type": "S"},
        {"prompts.half": False},
    ],
)
def test_slips_miss(infer: Case, slip: dict[str, Any]) -> None:
    found = load(infer, slip).predict_tensor(infer.images, infer.names)
    ours = np.stack([p.anomaly_map for p in found])
    assert np.abs(ours - infer.arrays["map_smooth"]).max() > 2 * MAP["atol"]


def test_the_sentences_are_the_released_ones(infer: Case, released: Any) -> None:
    text = released.backbone.text_encoder(released.request.variant)
    for key in ("bottle", "metal_nut"):
        said = prompts.word(Category("", key, key.replace("_", " "), released_name=key), "released")
        normal, anomalous = fill(prompts.STATES, said)
        for side, phrases in (("normal", normal), ("abnormal", anomalous)):
            ids = text.tokenize(in_templates(phrases, prompts.TEMPLATES)).ids
            assert np.array_equal(ids, infer.arrays[f"tokens_{side}_{key}"])
    assert prompts.word(Category("", "a-b_c", "x"), "released") == "a b_c"


def test_two_training_steps(train: Case) -> None:
    z, spec = train.arrays, train.spec
    loaded = load(train, {"train.lr": spec["lr"]})
    method: AdaCLIP = loaded.method
    named = dict(method.named_parameters())
    before = {k: v.detach().clone() for k, v in named.items()}
    optimizer = method.phases()[0].optimizer(named)
    for step, (name, label) in enumerate(zip(spec["names"], spec["labels"])):
        terms = loaded.losses(
            train.images[[step]], train.masks[[step]], torch.tensor([label]), name
        )
        values = z["term_values"][step]
        close(terms["image"].item(), values[0], **LOSS)
        for offset, part in enumerate(("focal", "dice_abnormal", "dice_normal")):
            close(terms[part].item(), values[1 + offset :: 3].sum(), **LOSS)
        close(terms["total"].item(), z["sum_values"][step, 0], **LOSS)
        optimizer.zero_grad()
        terms["total"].backward()
        rtol, atol = ((1e-2, 1e-4), (2e-2, 1e-3))[step]
        for i, parameter in enumerate(z["grad_names"].tolist()):
            gradient = named[parameter].grad
            assert gradient is not None
            close(gradient.norm().item(), z["grad_norms"][step, i], rtol, atol)
        for parameter in z["no_grad_names"].tolist():
            assert named[parameter].grad is None
        if step == 0:
            for stored, parameter in (
                ("grad_text_prompt_1", "text_prompter.static_prompts.1"),
                ("grad_visual_prompt_0", "visual_prompter.static_prompts.0"),
            ):
                close(named[parameter].grad, z[stored], 1e-2, 1e-4)
        optimizer.step()
    order = z["param_names"].tolist()
    sums = [named[n].detach().double().sum().item() for n in order]
    close(sums, z["param_sum_after"], 1e-3, 2e-3)
    close([named[n].norm().item() for n in order], z["param_norm_after"], 1e-3, 1e-4)
    changes = [(named[n] - before[n]).norm().item() for n in order]
    close(changes, z["param_change_norms"], 1e-2, 1e-4)

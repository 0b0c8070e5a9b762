"""AA-CLIP against its released code (53db195): scores, slips, both stages of training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.parity.baselines import Case, close, scored
from tests.parity.recipe_aaclip import recipe_aaclip
from zsad import maps as dense
from zsad.methods.aaclip import prompts
from zsad.types import Category, ImageFeatures, Tap

UNIT = {"rtol": 1e-4, "atol": 5e-6}
LOGITS = {"rtol": 1e-4, "atol": 2e-4}
MAP = {"rtol": 1e-4, "atol": 5e-5}
SCORE = {"rtol": 0.0, "atol": 5e-5}
LOSS = {"rtol": 1e-3, "atol": 0.0}
GRADIENT = {"rtol": 1e-2, "atol": 0.0}
OTHER = {"text": ("orthogonal", "text_orthogonal"), "image": ("image", "image_cross_entropy")}


def made(case: Case) -> dict[str, torch.Tensor]:
    spec = case.spec
    parts = recipe_aaclip(
        case.dims, case.seed, spec["text_until"], spec["image_until"], relu=spec["relu"]
    )
    names = ("text_adapter", "image_adapter")
    return {f"{n}.{k}": v for n, part in zip(names, parts) for k, v in part.items()}


def load(case: Case, preset: str = "released", **overrides: Any) -> Any:
    """By way of a folder as the training writes it."""
    folder = case.folder / "trained"
    folder.mkdir(exist_ok=True)
    for name in ("text_adapter", "image_adapter"):
        own = {k.removeprefix(f"{name}."): v for k, v in case.learned.items() if k.startswith(name)}
        kind = name.split("_")[0]
        whole = {"epoch": 1, name: own, f"{kind}_optimizer": {"state": {}}}
        torch.save(whole, folder / f"{name}.pth")
    return case.load("aaclip", preset, checkpoint=folder, overrides=overrides)


@pytest.fixture(scope="module")
def infer(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case("aaclip_infer_a", tmp_path_factory.mktemp("aaclip"), made)


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case("aaclip_train_a", tmp_path_factory.mktemp("aaclip_train"), made)


@pytest.fixture(scope="module")
def released(infer: Case) -> Any:
    return load(infer)


def test_depths_are_those_of_the_folder(infer: Case, released: Any) -> None:
    method = released.method
    assert len(method.text_adapter) == infer.spec["text_until"] + 1
    assert len(method.image_adapter.layer_adapters) == infer.spec["image_until"]
    assert method.config.relu is infer.spec["relu"]
    own = sum(p.numel() for p in released.method.parameters())
    assert own == sum(t.numel() for t in infer.learned.values())


@torch.no_grad()
def test_the_text(infer: Case, released: Any) -> None:
    z, method = infer.arrays, released.method
    text = released.backbone.text_encoder(released.request.variant)
    sentences = method.sentences(Category("", infer.spec["name"], ""), text)
    close(sentences, z["sentences"], **UNIT)
    for dataset, key in [("mvtec", infer.spec["name"]), *infer.spec["extra_text"]]:
        category = Category(dataset.lower(), key, key)
        pair = method.prepare_text([category], text)[key].pair
        stored = "text" if key == infer.spec["name"] else f"text_{dataset}_{key}"
        close(pair, z[stored], **UNIT)


@torch.no_grad()
def test_the_stages(infer: Case, released: Any) -> None:
    z, method = infer.arrays, released.method
    features, context, scores = scored(released, infer, infer.spec["name"])
    assert set(features.data) == {Tap("tokens", 0)}
    stream = method.adapted(features, context)
    close(torch.stack(stream.patches)[:, :2], z["patch_features"], **UNIT)
    close(stream.image, z["det_feature"], **UNIT)
    pair = context.text[infer.spec["name"]].pair
    logits = method.stage_logits(stream.patches, pair, features.grid)
    close(torch.stack(logits), z["layer_logits"], **LOGITS)
    for stage, stored in zip(logits, z["layer_maps"]):
        plane = dense.grid_blur((1 + dense.pair_difference(stage)) / 2, 7, 1.0)
        close(dense.upsample(plane, infer.size, True)[:2], stored, **MAP)
    close(scores.image, z["image_pred"], **SCORE)
    ends = [scores.info["map_smallest"].min(), scores.info["map_largest"].max()]
    close(torch.stack(ends), z["pixel_scores_minmax"], **MAP)


def test_the_public_route(infer: Case, released: Any) -> None:
    found = released.predict_tensor(infer.images, infer.spec["name"])
    close([p.anomaly_map for p in found], infer.arrays["map_final"], **MAP)
    close([p.image_score for p in found], infer.arrays["image_score"], **SCORE)
    counters = released.backbone.counters
    before = (counters.images, counters.resumed)
    released.predict_tensor(infer.images, infer.spec["name"])
    assert (counters.images - before[0], counters.resumed - before[1]) == (4, 4)


def test_medical_categories_have_a_rule_of_their_own(infer: Case, released: Any) -> None:
    """A wider blur, and the map's maximum alone."""
    name = infer.spec["name"]
    found = released.predict_tensor(infer.images, name, domains=["medical"] * 4)
    assert np.abs(found[0].anomaly_map - infer.arrays["map_final"][0]).max() > 0.01
    maps = np.stack([p.anomaly_map for p in found])
    wanted = (maps.max((1, 2)) - maps.min()) / (maps.max() - maps.min())
    close([p.image_score for p in found], wanted, **SCORE)


@pytest.mark.parametrize(
    "slip",
    [
        {"encoder.activation": "weights"},
        {"encoder.pos_interp": "bicubic"},
        {"text_weight": 0.0},
        {"image_weight": 0.0},
        {"names": "spoken"},
        {"post.sigma": 0},
    ],
)
def test_slips_miss(infer: Case, slip: dict[str, Any]) -> None:
    found = load(infer, **slip).predict_tensor(infer.images, infer.spec["name"])
    ours = np.stack([p.anomaly_map for p in found])
    assert np.abs(ours - infer.arrays["map_final"]).max() > 20 * MAP["atol"]


@torch.no_grad()
def test_the_tower_of_stage_one(train: Case) -> None:
    """Values attend along the batch: alone, an image has other features."""
    z, loaded = train.arrays, load(train, **{"stage1.layers": "all"})
    method = loaded.method
    request = method.training_request()
    features = loaded.backbone.encode_image(train.images, request)
    _, context, _ = scored(loaded, train, train.spec["names"])
    states = method.surgery(features, context)
    close(states[0], z["surgery_tokens_first_layer"], 1e-4, 2e-5)
    close(states[-1], z["surgery_tokens_last"], 1e-4, 5e-5)
    alone: ImageFeatures = features.select([0])
    close(method.surgery(alone, context)[-1], z["surgery_tokens_last_alone"], 1e-4, 5e-5)
    assert np.abs(z["surgery_tokens_last"][0] - z["surgery_tokens_last_alone"][0]).max() > 1


@pytest.mark.parametrize("phase", ["text", "image"])
def test_two_training_steps(train: Case, phase: str) -> None:
    z, spec = train.arrays, train.spec
    loaded = load(train, **{"stage1.lr": spec["text_lr"], "stage2.lr": spec["image_lr"]})
    method = loaded.method
    prefix = f"{phase}_adapter."
    named = {n: p for n, p in method.named_parameters() if n.startswith(prefix)}
    order = [prefix + n for n in z[f"{phase}_param_names"].tolist()]
    assert set(order) == set(named)
    before = {n: p.detach().clone() for n, p in named.items()}
    optimizer = next(p for p in method.phases() if p.name == phase).optimizer(named)
    for step in range(spec["steps"]):
        found = loaded.losses(train.images, train.masks, train.labels, spec["names"], phase=phase)
        terms = z[f"{phase}_terms"][step]
        used = terms[-3:] if phase == "text" else terms  # the loop keeps the last layer's loss
        for i, name in enumerate(("focal", "dice_normal", "dice_abnormal")):
            close(found[name].item(), used[i::3].sum(), **LOSS)
        own, stored = OTHER[phase]
        close(found[own].item(), z[stored][step], **LOSS)
        close(found["total"].item(), z[f"{phase}_loss"][step], **LOSS)
        optimizer.zero_grad()
        found["total"].backward()
        norms = [named[n].grad.norm().item() for n in order]
        close(norms, z[f"{phase}_grad_norms"][step], **GRADIENT)
        optimizer.step()
    close([named[n].norm().item() for n in order], z[f"{phase}_param_norms_after"], 1e-4, 0)
    sums = [named[n].detach().double().sum().item() for n in order]
    close(sums, z[f"{phase}_param_sums_after"], 1e-3, 2e-2)
    changes = [(named[n] - before[n]).norm().item() for n in order]
    close(changes, z[f"{phase}_param_change_norms"], 1e-2, 0)


def test_summed_layers_are_another_loss(train: Case) -> None:
    """What the loop overwrites, as it was meant: all four layers."""
    loaded = load(train, **{"stage1.layers": "all"})
    found = loaded.losses(
        train.images, train.masks, train.labels, train.spec["names"], phase="text"
    )
    terms = train.arrays["text_terms"][0]
    close(found["focal"].item(), terms[0::3].sum(), **LOSS)
    close(found["dice_normal"].item(), terms[1::3].sum(), **LOSS)


def test_phrases_of_known_classes() -> None:
    def said(dataset: str, key: str) -> str:
        return prompts.word(Category(dataset, key, key.replace("_", " ")), "released")

    assert said("mvtec", "metal_nut") == "metal nut which has four notched edges"
    assert said("", "metal nut") == said("mvtec", "metal_nut")
    assert said("btad", "01").endswith("radiating outward.")
    assert said("cvc_clinicdb", "colon") == "colon endoscopy image"
    assert said("dagm", "01") == "01"
    assert prompts.word(Category("mvtec", "metal_nut", "metal nut"), "spoken") == "metal nut"

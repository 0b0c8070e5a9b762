"""APRIL-GAN against its released code (VAND-APRIL-GAN, f13b8a6): zero-shot, few-shot, training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.parity.baselines import UNIT, Case, close, scored
from zsad import maps as dense
from zsad.errors import RequestError
from zsad.types import Tap

PATCHES = {"rtol": 0.0, "atol": 1e-5}
MAP = {"rtol": 0.0, "atol": 5e-5}
LOSS = {"rtol": 1e-5, "atol": 1e-6}
GRADIENT = {"rtol": 1e-4, "atol": 1e-7}


def load(case: Case, **keywords: Any) -> Any:
    checkpoint = case.folder / "aprilgan.pth"
    torch.save({"trainable_linearlayer": dict(case.learned)}, checkpoint)
    return case.load("aprilgan", checkpoint=checkpoint, **keywords)


@pytest.fixture(scope="module")
def infer(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case("aprilgan_infer_a", tmp_path_factory.mktemp("aprilgan"), "aprilgan")


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case("aprilgan_train_a", tmp_path_factory.mktemp("aprilgan_train"), "aprilgan")


@torch.no_grad()
def test_stages(infer: Case) -> None:
    z, loaded = infer.arrays, load(infer)
    features, context, scores = scored(loaded, infer, infer.names)
    pairs = torch.stack([context.text[name].pair for name in infer.names])
    close(pairs, z["text"], **UNIT)
    close(F.normalize(features[Tap("cls")], dim=-1), z["image_feature"], **UNIT)
    encoder = loaded.backbone.image_encoder(loaded.request.variant)
    close(encoder.positions(features.grid), z["pos_embed_used"], 0, 1e-6)
    close(scores.image, z["text_probs"][:, 1], **MAP)
    for k, (tap, fc) in enumerate(zip(loaded.method.taps, loaded.method.fc)):
        unit = F.normalize(fc(features.patches(tap)[:2]), dim=-1)
        close(unit, z["patch_features"][:, k], **PATCHES)
        enlarged = dense.upsample(dense.pair_difference(scores.maps[k]), infer.size, True)
        close(enlarged.sigmoid(), z["layer_maps"][:, k], **MAP)


@pytest.mark.parametrize(("activation", "suffix"), [("gelu", ""), ("weights", "_quickgelu")])
def test_the_public_route_zero_shot(infer: Case, activation: str, suffix: str) -> None:
    loaded = load(infer, overrides={"encoder.activation": activation})
    found = loaded.predict_tensor(infer.images, infer.names)
    close([p.anomaly_map for p in found], infer.arrays[f"map_final{suffix}"], **MAP)
    close([p.image_score for p in found], infer.arrays[f"image_score{suffix}"], **MAP)


@torch.no_grad()
def test_distances_to_the_references(infer: Case) -> None:
    loaded = load(infer, overrides={"shots": infer.spec["k_shot"]})
    near = {
        name: loaded.backbone.encode_image(pictures, loaded.request)
        for name, pictures in infer.references().items()
    }
    _, _, scores = scored(loaded, infer, infer.names, references=near)
    enlarged = torch.stack([dense.upsample(d, infer.size, True) for d in scores.added], 1)
    close(enlarged[:2], infer.arrays["fewshot_layer_maps"], **MAP)


def test_the_public_route_few_shot(infer: Case) -> None:
    assert load(infer, preset="released-few-shot").method.shots == 4
    loaded = load(infer, overrides={"shots": infer.spec["k_shot"]})
    found = loaded.predict_tensor(infer.images, infer.names, references=infer.references())
    close([p.anomaly_map for p in found], infer.arrays["fewshot_map_final"], **MAP)
    close([p.image_score for p in found], infer.arrays["fewshot_image_score"], **MAP)
    raw = [
        (z + m.max()) / 2
        for z, m in zip(infer.arrays["image_score"], infer.arrays["fewshot_map_final"])
    ]
    close([p.info["raw_score"] for p in found], raw, **MAP)


def test_spoken_names_are_other_prompts(infer: Case) -> None:
    found = load(infer, overrides={"names": "spoken"}).predict_tensor(infer.images, infer.names)
    difference = np.abs([p.anomaly_map for p in found] - infer.arrays["map_final"])
    assert difference[:2].max() < 1e-4  # bottle
    assert difference[2:].max() > 0.1  # metal_nut


def test_two_training_steps(train: Case) -> None:
    z, loaded = train.arrays, load(train)
    method = loaded.method
    named = dict(method.named_parameters())
    before = {k: v.detach().clone() for k, v in named.items()}
    optimizer = method.phases()[0].optimizer(named)
    assert optimizer.defaults["lr"] == train.spec["lr"]
    for step in range(train.spec["steps"]):
        losses = loaded.losses(train.images, train.masks, train.labels, train.names)
        values = z["term_values"][step]
        close(losses["focal"].item(), values[0::2].sum(), **LOSS)
        close(losses["dice"].item(), values[1::2].sum(), **LOSS)
        close(losses["total"].item(), z["total"][step], **LOSS)
        optimizer.zero_grad()
        losses["total"].backward()
        norms = [named[n].grad.norm().item() for n in z["param_names"].tolist()]
        close(norms, z["grad_norms"][step], **GRADIENT)
        if step == 0:
            close(named["fc.0.weight"].grad, z["grad_fc.0.weight"], 1e-3, 1e-7)
            _, _, scores = scored(loaded, train, train.names)
            for k, stage in enumerate(scores.maps):
                enlarged = dense.upsample(dense.pair_difference(stage), train.size, True).sigmoid()
                close(enlarged, z["layer_maps"][:, k], **MAP)
        optimizer.step()
    order = z["param_names"].tolist()
    close([named[n].norm().item() for n in order], z["param_norms_after"], 1e-5, 0)
    changes = [(named[n] - before[n]).norm().item() for n in order]
    close(changes, z["param_change_norms"], 1e-4, 0)
    for name in ("fc.0.weight", "fc.3.bias"):
        close(named[name], z[f"after_{name}"], 0, 1e-5)


def test_training_without_masks_is_refused(train: Case) -> None:
    """Its loss has no image term."""
    with pytest.raises(RequestError, match="'aprilgan' is trained on masks; give masks"):
        load(train).losses(train.images, None, train.labels, train.names)

"""MVFA-AD, zero-shot, against its released code (a30bf7b): scores and training."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image

from tests.parity import recipe_baselines
from tests.parity.baselines import UNIT, Case, close, scored
from zsad import maps as dense

TOKENS = {"rtol": 1e-3, "atol": 1e-4}
MAP = {"rtol": 0.0, "atol": 5e-5}
LOSS = {"rtol": 1e-5, "atol": 5e-6}
GRADIENT = {"rtol": 1e-3, "atol": 1e-6}
SETS = {"Retina_RESC": "retinal OCT", "Retina_OCT2017": "retinal OCT", "Liver": "Liver"}
WITHOUT_MASKS = ("Retina_OCT2017", "Chest", "Histopathology")


def load(case: Case, **keywords: Any) -> Any:
    checkpoint = case.folder / "mvfa.pth"
    torch.save(recipe_baselines.mvfa_checkpoint(case.learned), checkpoint)
    return case.load("mvfa", checkpoint=checkpoint, **keywords)


@pytest.fixture(scope="module")
def infer(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case("mvfa_infer_a", tmp_path_factory.mktemp("mvfa"), "mvfa")


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case("mvfa_train_a", tmp_path_factory.mktemp("mvfa_train"), "mvfa")


@torch.no_grad()
def test_stages(infer: Case) -> None:
    z, loaded, name = infer.arrays, load(infer), infer.spec["class_name"]
    features, context, scores = scored(loaded, infer, name)
    pair = context.text[name].pair
    close(pair, z["text"], **UNIT)
    encoder = loaded.backbone.image_encoder(loaded.request.variant)
    close(encoder.positions(features.grid), z["pos_embed_used"], 0, 1e-6)
    stream = loaded.method.adapted(features, context)
    for part in ("seg", "det"):
        found = torch.stack(getattr(stream, part), 1)[:2]
        close(found, z[f"{part}_tokens"][:, :, 1:], **TOKENS)  # without the class row
    logits = loaded.method.stage_logits(stream.det, pair[None], features.grid)
    det = torch.stack([dense.pair_probability(stage).flatten(1) for stage in logits], 1)
    close(det, z["det_probability"], **MAP)
    for k, stage in enumerate(scores.maps):
        enlarged = dense.upsample(dense.pair_difference(stage), infer.size, True).sigmoid()
        close(enlarged, z["layer_maps"][:, k], **MAP)


@pytest.mark.parametrize(("activation", "suffix"), [("gelu", ""), ("weights", "_quickgelu")])
@pytest.mark.parametrize("name", ["retinal OCT", "Retina_RESC", "retina"])
def test_the_public_route(infer: Case, activation: str, suffix: str, name: str) -> None:
    loaded = load(infer, overrides={"encoder.activation": activation})
    found = loaded.predict_tensor(infer.images, name)
    close([p.anomaly_map for p in found], infer.arrays[f"map_final{suffix}"], **MAP)
    close([p.image_score for p in found], infer.arrays[f"image_score{suffix}"], **MAP)


def test_its_own_size_is_240_pixels(infer: Case) -> None:
    """Pictures are not normalised, and 240 pixels are 17 patches of 14 and two over."""
    infer.size, size = 0, infer.size
    try:
        loaded = load(infer)
    finally:
        infer.size = size
    assert loaded.image_size == 240
    assert loaded.request.variant.input == "unit"
    white = loaded.pictures.preprocess(Image.new("RGB", (300, 200), "white"))
    assert white.shape == (3, 240, 240)
    assert white.min() == white.max() == 1
    found = loaded.predict_tensor(white[None], "liver")
    assert found[0].anomaly_map.shape == (240, 240)


def test_three_training_steps(train: Case) -> None:
    """One image a step; the third is of a set without masks, so that only the detection adapters
    learn from it."""
    z, loaded = train.arrays, load(train, overrides={"train.lr": train.spec["lr"]})
    method = loaded.method
    named = dict(method.named_parameters())
    order = z["param_names"].tolist()
    before = {k: v.detach().clone() for k, v in named.items()}
    optimizer = method.phases()[0].optimizer(named)
    values = iter(z["term_values"].tolist())
    for step, (name, label) in enumerate(train.spec["steps"]):
        bare = name in WITHOUT_MASKS
        masks = None if bare else train.masks[[step]]
        losses = loaded.losses(train.images[[step]], masks, torch.tensor([label]), SETS[name])
        close(losses["image"].item(), sum(next(values) for _ in range(4)), **LOSS)
        if bare:
            assert set(losses) == {"total", "image"}
        else:
            pixel = [next(values) for _ in range(8)]
            close(losses["focal"].item(), sum(pixel[0::2]), **LOSS)
            close(losses["dice"].item(), sum(pixel[1::2]), **LOSS)
        close(losses["total"].item(), z["total"][step], **LOSS)
        optimizer.zero_grad()
        losses["total"].backward()
        for i, parameter in enumerate(order):
            gradient = named[parameter].grad
            if bare and parameter.startswith("seg"):
                assert gradient is None  # the released step leaves them alone, too
            else:
                norm = 0.0 if gradient is None else gradient.norm().item()
                close(norm, z["grad_norms"][step, i], **GRADIENT)
        if step == 0:
            for parameter in ("seg_adapters.0.fc1.0.weight", "det_adapters.3.fc1.0.weight"):
                close(named[parameter].grad, z[f"grad_{parameter}"], 1e-3, 1e-6)
        optimizer.step()
        close([named[n].norm().item() for n in order], z["param_norms_after"][step], 1e-5, 0)
        changes = [(named[n] - before[n]).norm().item() for n in order]
        close(changes, z["param_change_norms"][step], 1e-3, 1e-6)
        parameter = "seg_adapters.1.fc1.0.weight"
        close(named[parameter], z[f"after_{parameter}"][step], 0, 1e-4)
    assert next(values, None) is None

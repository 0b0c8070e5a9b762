"""APRIL-GAN on a small backbone with deterministic weights, and by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import zsad
from tests.methods.small import BOTTLE, NUT, context, encode
from zsad import backbones, maps, registry
from zsad.backbones import Backbone
from zsad.components import losses
from zsad.components.templates import BROKEN_STATES, NORMAL_STATES
from zsad.components.templates import SCENE_TEMPLATES as TEMPLATES
from zsad.errors import RequestError, WeightsError
from zsad.methods.aprilgan.method import CLS, AprilGAN
from zsad.types import ImageFeatures, Sample, ScoreContext, TrainBatch

SIZE = 84


@pytest.fixture(scope="module")
def weights(small_weights: Callable[..., Path]) -> Path:
    return small_weights(31, embed=64)


@pytest.fixture(scope="module")
def backbone(weights: Path) -> Backbone:
    return backbones.load("file", weights=weights, image_size=SIZE)


def make(backbone: Backbone, **overrides: Any) -> AprilGAN:
    config = registry.method("aprilgan").resolve(("test", overrides))
    torch.manual_seed(0)
    return AprilGAN(config, backbone.info)


def test_prompts_are_those_of_the_released_code(backbone: Backbone) -> None:
    assert len(set(TEMPLATES)) == 35
    assert (len(NORMAL_STATES), len(BROKEN_STATES)) == (7, 5)
    assert "a photo of the cool {}." in TEMPLATES
    encoder = backbone.text_encoder()
    found = make(backbone).prepare_text([NUT], encoder)["metal_nut"]
    sentences = [t.format(s.format("metal nut")) for s in BROKEN_STATES for t in TEMPLATES]
    units = F.normalize(encoder.encode_texts(sentences), dim=-1)
    torch.testing.assert_close(found.pair[1], F.normalize(units.mean(0), dim=-1))


def test_the_image_score_is_the_class_token_alone(backbone: Backbone, recipe: ModuleType) -> None:
    method = make(backbone)
    ctx = context(method, backbone, BOTTLE)
    found = encode(method, backbone, recipe.images(1, SIZE, 5))
    pair = ctx.text["bottle"].pair
    with torch.no_grad():
        before = method.score(found, ctx).image
        cosine = pair @ F.normalize(found[CLS][0], dim=-1)
        expected = 1 / (1 + math.exp(-100 * float(cosine[1] - cosine[0])))
        assert before.item() == pytest.approx(expected, abs=1e-4)
        for parameter in method.parameters():
            parameter.normal_()
        assert torch.equal(method.score(found, ctx).image, before)


def test_a_planted_patch_lights_up_where_it_is(backbone: Backbone) -> None:
    """With identity layers, a patch that is the anomalous text must carry the maximum."""
    method = make(backbone)
    with torch.no_grad():
        for layer in method.fc:
            layer.weight.copy_(torch.eye(backbone.info.embed, backbone.info.width))
            layer.bias.zero_()
    ctx = context(method, backbone, BOTTLE)
    pair = ctx.text["bottle"].pair
    height, width = backbone.info.grid(SIZE)
    tokens = pair[0].expand(1, 1 + height * width, -1).clone()
    tokens[0, 0] = pair[1]  # the class token must not leak into the map
    row, column = 2, 4
    tokens[0, 1 + row * width + column] = pair[1]
    data = dict.fromkeys(method.taps, tokens) | {CLS: pair[:1]}
    with torch.no_grad():
        scores = method.score(ImageFeatures((height, width), data), ctx)
        final = maps.build_maps(scores, method.map_spec(), SIZE).final[0]
    y, x = divmod(int(final.argmax()), SIZE)
    step = (SIZE - 1) / (height - 1)  # aligned corners
    assert abs(y - row * step) <= 1
    assert abs(x - column * step) <= 1
    assert final.max() <= 1


def test_fused_map_by_hand(backbone: Backbone, recipe: ModuleType) -> None:
    """Sum over the layers of softmaxes of enlarged logits, as in the released evaluation."""
    method = make(backbone, fuse="sum")
    ctx = context(method, backbone, BOTTLE, NUT)
    found = encode(method, backbone, recipe.images(2, SIZE, 5))
    with torch.no_grad():
        built = maps.build_maps(method.score(found, ctx), method.map_spec(), SIZE).final
        expected = torch.zeros_like(built)
        for i, category in enumerate((BOTTLE, NUT)):
            for tap, layer in zip(method.taps, method.fc):
                token = F.normalize(layer(found[tap][i, 1:]), dim=-1)
                logits = 100 * token @ ctx.text[category.key].pair.T  # [L, 2]
                plane = logits.T.reshape(1, 2, *found.grid)
                plane = F.interpolate(plane, SIZE, mode="bilinear", align_corners=True)
                expected[i] += plane.softmax(1)[0, 1]
    torch.testing.assert_close(built, expected, atol=1e-4, rtol=1e-4)
    mean = make(backbone)
    mean.load_state_dict(method.state_dict())
    with torch.no_grad():
        half = maps.build_maps(mean.score(found, ctx), mean.map_spec(), SIZE).final
    torch.testing.assert_close(half, built / len(method.taps), atol=1e-5, rtol=1e-4)


def test_permuting_and_cutting_a_batch(backbone: Backbone, recipe: ModuleType) -> None:
    method = make(backbone)
    found = encode(method, backbone, recipe.images(3, SIZE, 5))
    order = [2, 0, 1]
    categories = [BOTTLE, NUT, BOTTLE]
    with torch.no_grad():
        whole = method.score(found, context(method, backbone, *categories))
        mixed = method.score(
            found.select(order), context(method, backbone, *(categories[i] for i in order))
        )
        torch.testing.assert_close(mixed.image, whole.image[order])
        for a, b in zip(mixed.maps, whole.maps):
            torch.testing.assert_close(a, b[order], atol=1e-3, rtol=1e-4)
        for i, category in enumerate(categories):
            one = method.score(found.select([i]), context(method, backbone, category))
            torch.testing.assert_close(one.maps[0][0], whole.maps[0][i], atol=1e-3, rtol=1e-4)


def test_training_lowers_the_loss(backbone: Backbone, recipe: ModuleType) -> None:
    method = make(backbone)
    method.begin_training([BOTTLE], {}, backbone.text_encoder())
    found = encode(method, backbone, recipe.images(4, SIZE, 5))
    batch = TrainBatch(recipe.masks([1, 0, 1, 1], SIZE, 5), torch.tensor([1, 0, 1, 1]))
    ctx = ScoreContext([BOTTLE, NUT, BOTTLE, NUT], {}, text_encoder=backbone.text_encoder())
    (phase,) = method.phases()
    optimizer = phase.optimizer(method.parameters_of_phase(phase))
    values = []
    for _ in range(12):
        terms = method.losses(found, batch, ctx)
        torch.testing.assert_close(terms["total"], terms["focal"] + terms["dice"])
        optimizer.zero_grad()
        terms["total"].backward()
        optimizer.step()
        values.append(terms["total"].item())
    assert values[-1] < 0.8 * values[0]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.parameters())


def test_the_losses_of_one_channel_are_those_of_two(backbone: Backbone, recipe: ModuleType) -> None:
    """As released: both channels enlarged, softmax, focal on both, Dice on the anomalous one."""
    method = make(backbone)
    found = encode(method, backbone, recipe.images(2, SIZE, 5))
    ctx = context(method, backbone, BOTTLE, NUT)
    batch = TrainBatch(recipe.masks([1, 0], SIZE, 5), torch.tensor([1, 0]))
    pair = torch.stack([ctx.text[c.key].pair for c in ctx.categories])
    expected = {"focal": torch.zeros(()), "dice": torch.zeros(())}
    for logits in method.logits(found, pair):
        both = F.interpolate(logits, SIZE, mode="bilinear", align_corners=True).softmax(1)
        expected["focal"] = expected["focal"] + losses.focal(both, batch.masks)
        expected["dice"] = expected["dice"] + losses.dice(both[:, 1], batch.masks)
    terms = method.losses(found, batch, replace(ctx, text={}))
    weights = [layer.weight for layer in method.fc]
    gradients = torch.autograd.grad(terms["total"], weights)
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, atol=1e-5, rtol=1e-5)
    released = torch.autograd.grad(expected["focal"] + expected["dice"], weights)
    torch.testing.assert_close(gradients, released, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize(
    ("dataset", "epochs", "mosaics"), [("mvtec", 3, True), ("visa", 15, False), ("mpdd", 3, False)]
)
def test_the_auxiliary_dataset_decides_epochs_and_mosaics(
    backbone: Backbone, dataset: str, epochs: int, mosaics: bool
) -> None:
    method = make(backbone)
    method.auxiliary = (dataset,)
    (phase,) = method.phases()
    assert phase.epochs == epochs
    images = [Sample(f"{i}.png", 0, "bottle", uid=f"{i:02}") for i in range(50)]
    visited = method.epoch_samples(images, phase, 0, 0)
    assert (visited is not None) == mosaics
    if visited is not None:
        share = sum(s.uid.startswith("mosaic/") for s in visited) / len(visited)
        assert share == pytest.approx(0.2, abs=0.15)
        assert visited == method.epoch_samples(images[::-1], phase, 0, 0)
        assert visited != method.epoch_samples(images, phase, 1, 0)


def test_longest_training_wins_and_other_datasets_may_be_named(backbone: Backbone) -> None:
    train = {"epochs": 2, "epochs_on": {"visa": 7, "mpdd": 4}, "mosaic": {"datasets": ["visa"]}}
    config = make(backbone, train=train).config.train
    assert config.epochs_for(["mvtec"]) == 2
    assert config.epochs_for(["mpdd", "visa"]) == 7
    assert config.mosaic.applies(["visa"])
    assert not config.mosaic.applies(["mvtec"])


def official(backbone: Backbone) -> dict[str, dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(4)
    state = {}
    for i in range(4):
        shape = (backbone.info.embed, backbone.info.width)
        state[f"fc.{i}.weight"] = torch.randn(*shape, generator=generator)
        state[f"fc.{i}.bias"] = torch.randn(shape[0], generator=generator)
    return {"trainable_linearlayer": state}


def test_an_official_file_is_taken_whole(
    backbone: Backbone, weights: Path, recipe: ModuleType, tmp_path: Path
) -> None:
    state = official(backbone)
    torch.save(state, tmp_path / "epoch_3.pth")
    loaded = zsad.load_method(
        "aprilgan",
        backbone="file",
        weights=weights,
        image_size=SIZE,
        checkpoint=tmp_path / "epoch_3.pth",
        device="cpu",
    )
    assert loaded.method.config.fuse == "sum"
    for key, value in state["trainable_linearlayer"].items():
        assert torch.equal(loaded.method.state_dict()[key], value)
    (found,) = loaded.predict_tensor(recipe.images(1, SIZE, 5), "bottle")
    assert 0 <= found.anomaly_map.min() <= found.anomaly_map.max() <= 4
    assert 1 <= len(found.explanations) <= 5  # phrases that say the same are one reason
    assert {e.source for e in found.explanations} == {"template"}


def test_vit_l_has_the_published_number_of_parameters(backbone: Backbone) -> None:
    info = replace(backbone.info, width=1024, embed=768)
    config = registry.method("aprilgan").resolve()
    assert sum(p.numel() for p in AprilGAN(config, info).parameters()) == 3_148_800


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda s: s.pop("fc.2.bias"), r"missing: fc\.2\.bias"),
        (
            lambda s: s.update({"fc.4.weight": s["fc.0.weight"]}),
            r"further entries: fc\.4\.weight; the file has 5 layers",
        ),
        (lambda s: s.update({"fc.1.weight": torch.zeros(3, 5)}), r"'fc\.1\.weight' is \(3, 5\)"),
    ],
)
def test_a_wrong_file_names_the_key(backbone: Backbone, spoil: Any, words: str) -> None:
    state = official(backbone)
    spoil(state["trainable_linearlayer"])
    with pytest.raises(WeightsError, match=words) as caught:
        AprilGAN.import_official(state, make(backbone).config, backbone.info)
    assert "\n" not in str(caught.value)
    with pytest.raises(WeightsError, match="trainable_linearlayer"):
        AprilGAN.import_official({}, make(backbone).config, backbone.info)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"scale": 0}, "scale"),
        ({"train": {"mosaic": {"p": 2.0}}}, "mosaic"),
        ({"train": {"epochs_on": {"visa": 0}}}, "epochs_on"),
        ({"train": {"epochs": 0}}, "epochs"),
        ({"layers": "all"}, "layers"),
    ],
)
def test_bad_config_names_the_key(overrides: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        registry.method("aprilgan").resolve(("test", overrides))


def test_a_block_that_does_not_exist_is_refused(backbone: Backbone) -> None:
    with pytest.raises(RequestError, match=r"blocks 1\.\.8"):
        make(backbone, layers=[1, 9])

"""CoOp and, where both must agree, CoCoOp."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.methods.small import BOTTLE, NUT, context, encode
from zsad import maps, registry
from zsad.backbones import Backbone
from zsad.errors import RequestError
from zsad.methods.coop.method import CLS, CoOp
from zsad.types import (
    ImageFeatures,
    ScoreContext,
    Scored,
    TrainBatch,
)

SIZE = 84


@pytest.fixture(scope="module")
def backbone(small_backbone: Callable[..., Backbone]) -> Backbone:
    return small_backbone(33, vision_layers=4, text_layers=3)


def make(backbone: Backbone, **overrides: Any) -> CoOp:
    config = registry.method("coop").resolve(("test", overrides))
    torch.manual_seed(0)
    return CoOp(config, backbone.info)


def test_a_context_of_real_words_is_the_plain_sentence(backbone: Backbone) -> None:
    """With the embeddings of "a photo of a" as context, the prompt is that sentence."""
    method = make(backbone, n_ctx=4, anomalous_word="damaged")
    encoder = backbone.text_encoder()
    words = encoder.embed_tokens(encoder.tokenize(["a photo of a"]))[0, 1:5]
    with torch.no_grad():
        method.prompts.ctx.copy_(words)
    sentences = ["a photo of a normal metal nut.", "a photo of a damaged metal nut."]
    expected = F.normalize(encoder.encode_texts(sentences), dim=-1)
    pair = context(method, backbone, NUT).text["metal_nut"].pair
    torch.testing.assert_close(pair, expected, atol=1e-5, rtol=1e-5)


def test_the_explanation_shows_both_sentences_and_the_nearest_words(backbone: Backbone) -> None:
    method = make(backbone, n_ctx=4, sigma=0.0)
    encoder = backbone.text_encoder()
    with torch.no_grad():
        words = encoder.embed_tokens(encoder.tokenize(["a photo of a"]))[0, 1:5]
        method.prompts.ctx.copy_(words + 1e-4)
        ctx = context(method, backbone, NUT)
        normal, anomalous = ctx.text["metal_nut"].pair
        height, width = backbone.info.grid(SIZE)
        tokens = normal.expand(1, 1 + height * width, -1).clone()
        tokens[0, 1 + 3 * width + 1] = anomalous
        found = ImageFeatures((height, width), {method.dense: tokens, CLS: anomalous[None]})
        scores = method.score(found, ctx)
        built = maps.build_maps(scores, method.map_spec(), SIZE)
        (reasons,) = method.explain(Scored(found, ctx, scores, built, scores.image))
    assert [r.text for r in reasons] == [
        "anomalous metal nut",
        "normal metal nut",
    ]
    assert [(r.label, r.rank) for r in reasons] == [("anomalous", 1), ("normal", 2)]
    assert reasons[0].similarity == pytest.approx(1.0, abs=1e-5)
    assert reasons[1].similarity == pytest.approx(float(normal @ anomalous), abs=1e-5)
    assert reasons[0].region == pytest.approx((1 / width, 3 / height, 2 / width, 4 / height))
    (note,) = {r.note for r in reasons}
    assert "4 learned vectors" in note
    assert note.endswith("are nearest: a, photo, of, a")


def test_parameter_count_is_the_published_one(backbone: Backbone) -> None:
    info = replace(backbone.info, text_width=768, embed=768)
    method = CoOp(registry.method("coop").resolve(), info)
    assert sum(p.numel() for p in method.parameters()) == 9_216


def test_a_planted_patch_lights_up_where_it_is(backbone: Backbone) -> None:
    method = make(backbone, sigma=0.0)
    ctx = context(method, backbone, BOTTLE)
    normal, anomalous = ctx.text["bottle"].pair
    height, width = backbone.info.grid(SIZE)
    tokens = normal.expand(1, 1 + height * width, -1).clone()
    tokens[0, 1 + 3 * width + 1] = anomalous
    features = ImageFeatures((height, width), {method.dense: tokens, CLS: anomalous[None]})
    with torch.no_grad():
        scores = method.score(features, ctx)
    final = maps.build_maps(scores, method.map_spec(), SIZE).final[0]
    y, x = divmod(int(final.argmax()), SIZE)
    assert (y * height // SIZE, x * width // SIZE) == (3, 1)
    assert scores.image.item() > 0.5


def test_permuting_and_cutting_a_batch(backbone: Backbone, recipe: ModuleType) -> None:
    method = make(backbone)
    found = encode(method, backbone, recipe.images(3, SIZE, 5))
    categories = [BOTTLE, NUT, BOTTLE]
    order = [2, 0, 1]
    with torch.no_grad():
        whole = method.score(found, context(method, backbone, *categories))
        mixed = method.score(
            found.select(order), context(method, backbone, *(categories[i] for i in order))
        )
        one = method.score(found.select([1]), context(method, backbone, NUT))
    torch.testing.assert_close(mixed.image, whole.image[order])
    torch.testing.assert_close(mixed.maps[0], whole.maps[0][order], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(one.maps[0][0], whole.maps[0][1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(one.image[0], whole.image[1])


def test_training_and_inference_encode_the_same(backbone: Backbone, recipe: ModuleType) -> None:
    method = make(backbone)
    found = encode(method, backbone, recipe.images(2, SIZE, 5))
    prepared = context(method, backbone, BOTTLE, NUT)
    with torch.no_grad():
        score = method.logits(found, *method.embeddings(found, prepared))[0]
        train = method.logits(found, *method.embeddings(found, replace(prepared, text={})))[0]
    torch.testing.assert_close(score, train)


@pytest.mark.parametrize("pixel_weight", [0.0, 1.0])
def test_training_lowers_the_loss(
    backbone: Backbone, recipe: ModuleType, pixel_weight: float
) -> None:
    method = make(backbone, loss={"pixel_weight": pixel_weight})
    found = encode(method, backbone, recipe.images(4, SIZE, 5))
    batch = TrainBatch(recipe.masks([1, 0, 1, 0], SIZE, 5), torch.tensor([1, 0, 1, 0]))
    ctx = ScoreContext([BOTTLE, NUT, NUT, BOTTLE], {}, text_encoder=backbone.text_encoder())
    (phase,) = method.phases()
    optimizer = phase.optimizer(method.parameters_of_phase(phase))
    values = []
    for _ in range(12):
        losses = method.losses(found, batch, ctx)
        assert ("pixel" in losses) == (pixel_weight > 0)
        optimizer.zero_grad()
        losses["total"].backward()
        optimizer.step()
        values.append(losses["total"].item())
    assert values[-1] < 0.95 * values[0]


def test_the_image_loss_by_hand(backbone: Backbone, recipe: ModuleType) -> None:
    method = make(backbone)
    found = encode(method, backbone, recipe.images(2, SIZE, 5))
    ctx = context(method, backbone, BOTTLE, BOTTLE)
    batch = TrainBatch(recipe.masks([1, 0], SIZE, 5), torch.tensor([1, 0]))
    with torch.no_grad():
        p = method.score(found, ctx).image
        loss = method.losses(found, batch, ctx)["total"]
    expected = -(p[0].log() + (1 - p[1]).log()) / 2
    torch.testing.assert_close(loss, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"n_ctx": 0}, "n_ctx"),
        ({"temperature": 0}, "temperature"),
        ({"loss": {"pixel_weight": -1}}, "pixel_weight"),
        ({"train": {"epochs": 0}}, "epochs"),
    ],
)
def test_bad_config_names_the_key(overrides: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        registry.method("coop").resolve(("test", overrides))

"""CoCoOp: what the meta-net adds to CoOp."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch

from tests.methods.small import BOTTLE, NUT, context, encode
from zsad import maps, registry
from zsad.backbones import Backbone
from zsad.methods.cocoop.method import CoCoOp
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
    return small_backbone(34, vision_layers=4, text_layers=3)


def make(backbone: Backbone, kind: type[CoOp] = CoCoOp, **overrides: Any) -> CoOp:
    config = registry.method(kind.name).resolve(("test", overrides))
    torch.manual_seed(0)
    return kind(config, backbone.info)


@pytest.fixture(scope="module")
def features(backbone: Backbone, recipe: ModuleType) -> ImageFeatures:
    return encode(make(backbone), backbone, recipe.images(3, SIZE, 5))


def test_with_a_zero_meta_net_it_is_coop(backbone: Backbone, features: ImageFeatures) -> None:
    conditional, plain = make(backbone), make(backbone, CoOp)
    with torch.no_grad():
        plain.prompts.ctx.copy_(conditional.prompts.ctx)
        before = conditional.score(features, context(conditional, backbone, *[BOTTLE] * 3))
        for parameter in conditional.prompts.meta_net.parameters():
            parameter.zero_()
        after = conditional.score(features, context(conditional, backbone, *[BOTTLE] * 3))
        expected = plain.score(features, context(plain, backbone, *[BOTTLE] * 3))
    torch.testing.assert_close(after.image, expected.image, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(after.maps[0], expected.maps[0], atol=1e-3, rtol=1e-4)
    assert (before.image - expected.image).abs().max() > 1e-4


def test_the_shift_is_the_meta_nets_answer_to_the_image(
    backbone: Backbone, features: ImageFeatures
) -> None:
    """Encoding by hand with the shifted context gives the same two embeddings."""
    method = make(backbone)
    encoder = backbone.text_encoder()
    ctx = context(method, backbone, BOTTLE, NUT, BOTTLE)
    with torch.no_grad():
        unit = torch.nn.functional.normalize(features[CLS], dim=-1)
        found = method.pairs(unit, ctx)
        for i, category in enumerate(ctx.categories):
            tokens = method.tokens(category.class_name, encoder)
            embedded = encoder.embed_tokens(tokens).clone()
            shifted = method.prompts.ctx + method.prompts.meta_net(unit[i])
            embedded[:, 1 : 1 + method.config.n_ctx] = shifted
            expected = encoder.encode_embeddings(embedded, tokens.eot)
            expected = torch.nn.functional.normalize(expected, dim=-1)
            torch.testing.assert_close(found[i], expected, atol=1e-5, rtol=1e-4)


def test_permuting_and_cutting_a_batch(backbone: Backbone, features: ImageFeatures) -> None:
    method = make(backbone)
    categories, order = [BOTTLE, NUT, BOTTLE], [2, 0, 1]
    with torch.no_grad():
        whole = method.score(features, context(method, backbone, *categories))
        mixed = method.score(
            features.select(order), context(method, backbone, *(categories[i] for i in order))
        )
        one = method.score(features.select([1]), context(method, backbone, NUT))
    torch.testing.assert_close(mixed.image, whole.image[order], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(mixed.maps[0], whole.maps[0][order], atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(one.image[0], whole.image[1], atol=1e-5, rtol=1e-4)


def test_every_image_has_learned_words_of_its_own(
    backbone: Backbone, features: ImageFeatures
) -> None:
    method = make(backbone, n_ctx=2)
    ctx = context(method, backbone, BOTTLE, NUT, BOTTLE)
    with torch.no_grad():
        method.prompts.meta_net.linear2.weight.mul_(50)
        scores = method.score(features, ctx)
        built = maps.build_maps(scores, method.map_spec(), 84)
        reasons = method.explain(Scored(features, ctx, scores, built, scores.image), k=1)
    assert [{e.label for e in r} for r in reasons] == [{"normal", "anomalous"}] * 3
    notes = [r[0].note for r in reasons]
    assert len(set(notes)) > 1
    assert all(n.split("nearest: ")[1].count(",") == 1 for n in notes)  # two learned vectors


def test_parameter_count_is_the_published_one(backbone: Backbone) -> None:
    info = replace(backbone.info, text_width=768, embed=768)
    method = CoCoOp(registry.method("cocoop").resolve(), info)
    assert sum(p.numel() for p in method.parameters()) == 83_760


def test_training_lowers_the_loss_and_reaches_the_meta_net(
    backbone: Backbone, features: ImageFeatures, recipe: ModuleType
) -> None:
    method = make(backbone)
    batch = TrainBatch(recipe.masks([1, 0, 1], SIZE, 5), torch.tensor([1, 0, 1]))
    ctx = ScoreContext([BOTTLE, NUT, BOTTLE], {}, text_encoder=backbone.text_encoder())
    (phase,) = method.phases()
    optimizer = phase.optimizer(method.parameters_of_phase(phase))
    values = []
    for _ in range(12):
        losses = method.losses(features, batch, ctx)
        optimizer.zero_grad()
        losses["total"].backward()
        optimizer.step()
        values.append(losses["total"].item())
    assert values[-1] < 0.95 * values[0]
    for name, parameter in method.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name

"""MaskCLIP: the last block's values as patches, everything else as CLIP."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.methods.small import BOTTLE, context, encode
from zsad import maps, registry
from zsad.backbones import Backbone
from zsad.errors import RequestError
from zsad.methods.clip.method import CLS, Clip
from zsad.methods.maskclip.method import MaskClip
from zsad.types import ImageFeatures, Tap

SIZE = 84


@pytest.fixture(scope="module")
def backbone(small_backbone: Callable[..., Backbone]) -> Backbone:
    return small_backbone(32, vision_layers=4)


def make(backbone: Backbone, kind: type[Clip] = MaskClip, **overrides: Any) -> Clip:
    return kind(registry.method(kind.name).resolve(("test", overrides)), backbone.info)


def test_map_by_hand_from_the_blocks_own_parameters(backbone: Backbone, recipe: ModuleType) -> None:
    """Values by the in-projection's third part, then out-projection, norm and projection."""
    method = make(backbone, sigma=0.0)
    depth = backbone.info.depth
    found = encode(method, backbone, recipe.images(1, SIZE, 3), Tap("tokens", depth - 1))
    visual = backbone.model.visual
    block = visual.transformer.resblocks[depth - 1]
    width = backbone.info.width
    with torch.no_grad():
        y = block.ln_1(found[Tap("tokens", depth - 1)][0, 1:])
        weight, bias = block.attn.in_proj_weight[2 * width :], block.attn.in_proj_bias[2 * width :]
        token = visual.ln_post(block.attn.out_proj(F.linear(y, weight, bias))) @ visual.proj
    ctx = context(method, backbone, BOTTLE)
    expected = F.normalize(token, dim=-1) @ ctx.text["bottle"].pair.T / method.config.temperature
    (logits,) = method.score(found, ctx).maps
    torch.testing.assert_close(logits[0].flatten(1).T, expected, atol=1e-4, rtol=1e-4)


def test_the_image_score_is_that_of_clip_and_the_map_is_not(
    backbone: Backbone, recipe: ModuleType
) -> None:
    images = recipe.images(2, SIZE, 4)
    found = {}
    for kind in (MaskClip, Clip):
        method = make(backbone, kind)
        scores = method.score(
            encode(method, backbone, images), context(method, backbone, *[BOTTLE] * 2)
        )
        found[kind] = scores
    torch.testing.assert_close(found[MaskClip].image, found[Clip].image)
    assert (found[MaskClip].maps[0] - found[Clip].maps[0]).abs().max() > 0.01


def test_a_planted_value_lights_up_where_it_is(backbone: Backbone) -> None:
    method = make(backbone, sigma=0.0)
    ctx = context(method, backbone, BOTTLE)
    normal, anomalous = ctx.text["bottle"].pair
    height, width = backbone.info.grid(SIZE)
    tokens = normal.expand(1, 1 + height * width, -1).clone()
    tokens[0, 1 + 2 * width + 3] = anomalous
    features = ImageFeatures((height, width), {method.dense: tokens, CLS: normal[None]})
    final = maps.build_maps(method.score(features, ctx), method.map_spec(), SIZE).final[0]
    y, x = divmod(int(final.argmax()), SIZE)
    assert (y * height // SIZE, x * width // SIZE) == (2, 3)


def test_permuting_and_cutting_a_batch(backbone: Backbone, recipe: ModuleType) -> None:
    method = make(backbone)
    found = encode(method, backbone, recipe.images(3, SIZE, 5))
    whole = method.score(found, context(method, backbone, *[BOTTLE] * 3))
    mixed = method.score(found.select([2, 0, 1]), context(method, backbone, *[BOTTLE] * 3))
    torch.testing.assert_close(mixed.image, whole.image[[2, 0, 1]])
    torch.testing.assert_close(mixed.maps[0], whole.maps[0][[2, 0, 1]], atol=1e-5, rtol=1e-5)
    one = method.score(found.select([1]), context(method, backbone, BOTTLE))
    torch.testing.assert_close(one.maps[0][0], whole.maps[0][1], atol=1e-5, rtol=1e-5)


def test_only_the_values_of_the_last_block_are_asked_for(backbone: Backbone) -> None:
    taps = make(backbone).feature_request().taps
    assert taps == {CLS, Tap("values_proj", backbone.info.depth)}


def test_bad_config_names_the_method() -> None:
    with pytest.raises(RequestError, match=r"maskclip: temperature"):
        registry.method("maskclip").resolve(("test", {"temperature": 0}))

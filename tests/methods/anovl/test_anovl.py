"""AnoVL: prompts, v-v map, and the test-time adapter."""

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
from zsad.methods.anovl.adapter import adapt
from zsad.methods.anovl.config import Adapter
from zsad.methods.anovl.method import CLS, AnoVL, pooled
from zsad.methods.anovl.prompts import STATES, templates
from zsad.types import Category, ImageFeatures, ScoreContext, Tap

SIZE = 84
WOOD = Category("mvtec", "wood", "wood", kind="texture")
LIVER = Category("liver", "liver", "liver", domain="medical")


@pytest.fixture(scope="module")
def backbone(small_backbone: Callable[..., Backbone]) -> Backbone:
    return small_backbone(35, embed=32)


def make(backbone: Backbone, **overrides: Any) -> AnoVL:
    return AnoVL(registry.method("anovl").resolve(("test", overrides)), backbone.info)


@pytest.fixture(scope="module")
def features(backbone: Backbone, recipe: ModuleType) -> ImageFeatures:
    return encode(make(backbone), backbone, recipe.images(3, SIZE, 5))


# ------------------------------------------------------------------------------- prompts
def test_templates_follow_kind_and_domain() -> None:
    for category, word in ((BOTTLE, "manufacturing"), (WOOD, "textural"), (LIVER, "clinical")):
        found = templates(category, "auto")
        assert len(set(found)) == 66
        assert sum(word in t for t in found) == 22
    assert templates(LIVER, "industrial") == templates(BOTTLE, "auto")
    assert "an industrial image of a {} for anomaly detection" in templates(BOTTLE, "auto")
    assert "a jpeg corrupted surface picture of the {}" in templates(WOOD, "auto")
    assert not any("a industrial" in t for t in templates(BOTTLE, "auto"))


def test_label_embedding_is_the_unit_mean_of_raw_prompts(backbone: Backbone) -> None:
    found = context(make(backbone), backbone, WOOD).text["wood"].states.pair
    encoder = backbone.text_encoder()
    for side, states in enumerate(STATES):
        sentences = [t.format(s.format("wood")) for s in states for t in templates(WOOD, "auto")]
        mean = encoder.encode_texts(sentences).mean(0)
        torch.testing.assert_close(found[side], F.normalize(mean, dim=-1), atol=1e-5, rtol=1e-4)


# ------------------------------------------------------------------------------- the map
def test_pooling_by_hand() -> None:
    field = torch.zeros(1, 4, 4)
    field[0, 0, 0] = 9.0
    out = pooled(field, 3)
    # the corner patch is repeated beyond the border: it counts four times for itself
    assert out[0, 0, 0] == 4
    assert out[0, 0, 1] == 2
    assert out[0, 1, 1] == 1
    assert out[0, 2:].abs().max() == 0
    assert torch.equal(pooled(field, 1), field)
    torch.testing.assert_close(pooled(torch.full((2, 5, 5), 0.3), 5), torch.full((2, 5, 5), 0.3))


def test_map_by_hand(backbone: Backbone, features: ImageFeatures) -> None:
    method = make(backbone, pool=1, temperature=0.2)
    ctx = context(method, backbone, BOTTLE, WOOD, LIVER)
    scores = method.score(features, ctx)
    tap = Tap("vv_proj", 8, backbone.info.vv_start(19))
    for i, category in enumerate(ctx.categories):
        pair = ctx.text[category.key].states.pair
        cosine = F.normalize(features[tap][i, 1:], dim=-1) @ pair.T
        expected = (cosine / 0.2).softmax(-1)[:, 1].reshape(features.grid)
        torch.testing.assert_close(scores.maps[0][i], expected, atol=1e-5, rtol=1e-4)
        image = (F.normalize(features[CLS][i], dim=-1) @ pair.T / 0.2).softmax(-1)[1]
        torch.testing.assert_close(scores.image[i], image)


def planted(method: AnoVL, ctx: ScoreContext, grid: tuple[int, int], at: int) -> ImageFeatures:
    normal, anomalous = ctx.text["bottle"].states.pair
    tokens = normal.expand(1, 1 + grid[0] * grid[1], -1).clone()
    tokens[0, 1 + at] = anomalous
    return ImageFeatures(grid, {method.dense: tokens, CLS: normal[None]})


@pytest.mark.parametrize("enabled", [False, True])
def test_a_planted_patch_lights_up_where_it_is(backbone: Backbone, enabled: bool) -> None:
    method = make(backbone, adapter={"enabled": enabled})
    ctx = context(method, backbone, BOTTLE)
    height, width = backbone.info.grid(SIZE)
    scores = method.score(planted(method, ctx, (height, width), 2 * width + 3), ctx)
    final = maps.build_maps(scores, method.map_spec(), SIZE).final[0]
    step = (SIZE - 1) / (height - 1)
    centre = final[round(2 * step), round(3 * step)]
    assert centre >= final.max() - 1e-4
    assert final[-5:, -5:].max() < centre


@pytest.mark.parametrize("enabled", [False, True])
def test_permuting_and_cutting_a_batch(
    backbone: Backbone, features: ImageFeatures, enabled: bool
) -> None:
    method = make(backbone, adapter={"enabled": enabled})
    categories, order = [BOTTLE, WOOD, BOTTLE], [2, 0, 1]
    whole = method.score(features, context(method, backbone, *categories))
    mixed = method.score(
        features.select(order), context(method, backbone, *(categories[i] for i in order))
    )
    torch.testing.assert_close(mixed.image, whole.image[order])
    torch.testing.assert_close(mixed.maps[0], whole.maps[0][order], atol=1e-4, rtol=1e-4)
    one = method.score(features.select([1]), context(method, backbone, WOOD))
    torch.testing.assert_close(one.maps[0][0], whole.maps[0][1], atol=1e-4, rtol=1e-4)


# --------------------------------------------------------------------------- the adapter
def problem(n: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    patches = torch.randn(n, 9, 6, generator=generator)
    prompts = F.normalize(torch.randn(1, 8, 6, generator=generator), dim=-1).expand(n, -1, -1)
    pair = F.normalize(torch.stack([prompts[:, :4].mean(1), prompts[:, 4:].mean(1)], 1), dim=-1)
    return patches, prompts, pair


def test_an_adapter_that_mixes_nothing_in_changes_nothing() -> None:
    patches, prompts, pair = problem()
    assert torch.equal(adapt(patches, prompts, pair, Adapter(mix=0.0)).patches, patches)


def test_fitting_lowers_the_loss_of_the_clean_tokens() -> None:
    """Sure of a label, and of "normal" where the noisy twin is to be anomalous."""
    patches, prompts, pair = problem()

    def loss(steps: int) -> torch.Tensor:
        adapted = adapt(patches, prompts, pair, Adapter(steps=steps, lr=0.02)).patches
        p = (F.normalize(adapted, dim=-1) @ pair.mT).softmax(-1)
        return (-(p * p.log()).sum(-1) - 0.5 * p[..., 0].log()).mean()

    assert loss(20) < loss(0) - 1e-3


def test_the_adapter_leaves_no_gradient_behind_and_works_without_grad_mode() -> None:
    patches, prompts, pair = problem()
    with torch.no_grad():
        first = adapt(patches, prompts, pair, Adapter()).patches
        again = adapt(patches, prompts, pair, Adapter()).patches
    assert not first.requires_grad
    assert torch.equal(first, again)
    assert not torch.equal(first, adapt(patches, prompts, pair, Adapter(seed=1)).patches)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"pool": 2}, "pool"),
        ({"vv_blocks": 25}, "vv_blocks"),
        ({"adapter": {"mix": 2.0}}, "mix"),
        ({"domain": "medical"}, "domain"),
    ],
)
def test_bad_config_names_the_key(overrides: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        registry.method("anovl").resolve(("test", overrides))

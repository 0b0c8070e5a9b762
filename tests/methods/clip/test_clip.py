"""CLIP and CLIP-AC as anomaly detectors."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tests.methods.small import hand_info
from zsad import maps, registry
from zsad.components.prompt_ensemble import EnsembleFeatures
from zsad.errors import RequestError
from zsad.methods.clip.method import CLS, Clip
from zsad.methods.clip.prompts import TEMPLATES, build_prompts
from zsad.types import (
    Category,
    ImageFeatures,
    ScoreContext,
    Scored,
)

INFO = hand_info(image_size=32, depth=4, width=6, embed=4, patch=8)
NORMAL, ANOMALOUS = torch.eye(4)[0], torch.eye(4)[1]
BOTTLE = Category("toy", "bottle", "bottle")


def method(**overrides: Any) -> Clip:
    config = registry.method("clip").resolve(("test", overrides))
    return Clip(config, INFO)


def text_of(pair: torch.Tensor) -> EnsembleFeatures:
    return EnsembleFeatures(pair, ["a normal one", "an anomalous one"], pair, 1)


def features_of(clip: Clip, cls: torch.Tensor, patches: torch.Tensor) -> ImageFeatures:
    tokens = torch.cat([torch.full_like(patches[:, :1], 9.0), patches], dim=1)
    return ImageFeatures((4, 4), {CLS: cls, clip.dense: tokens})


def context(n: int = 1) -> ScoreContext:
    return ScoreContext([BOTTLE] * n, {"bottle": text_of(torch.stack([NORMAL, ANOMALOUS]))})


# ------------------------------------------------------------------------------- prompts
def test_the_two_prompts_are_those_of_the_papers() -> None:
    prompts = build_prompts(method().config, "metal nut")
    assert prompts.normal == ["a photo of a normal metal nut."]
    assert prompts.anomalous == ["a photo of an anomalous metal nut."]


def test_the_state_word_chooses_its_article() -> None:
    prompts = build_prompts(method(anomalous_word="damaged").config, "cable")
    assert prompts.anomalous == ["a photo of a damaged cable."]


def test_clip_ac_counts() -> None:
    assert len(TEMPLATES) == 80
    ac = build_prompts(method(preset="clip-ac").config, "cable")
    assert (len(ac.normal), len(ac.anomalous)) == (80, 80)
    assert "a sculpture of a normal cable." in ac.normal
    ensemble = build_prompts(method(preset="clip-ac-ensemble").config, "cable")
    assert (len(set(ensemble.normal)), len(set(ensemble.anomalous))) == (7 * 80, 4 * 80)


# ------------------------------------------------------------------------------- scoring
def test_image_score_by_hand() -> None:
    clip = method(temperature=0.5)
    cls = torch.tensor([[3.0, 4.0, 0.0, 0.0], [4.0, 3.0, 0.0, 0.0]])  # cosines 0.6/0.8, 0.8/0.6
    scores = clip.score(features_of(clip, cls, NORMAL.expand(2, 16, 4)), context(2))
    expected = 1 / (1 + math.exp(-0.4))
    torch.testing.assert_close(scores.image, torch.tensor([expected, 1 - expected]))


@pytest.mark.parametrize("planted", [0, 6, 15])
def test_a_planted_anomalous_patch_lights_up_where_it_is(planted: int) -> None:
    clip = method(sigma=0.0)
    patches = NORMAL.repeat(1, 16, 1)
    patches[0, planted] = ANOMALOUS
    scores = clip.score(features_of(clip, NORMAL[None], patches), context())
    built = maps.build_maps(scores, clip.map_spec(), 32).final[0]
    row, col = divmod(int(built.argmax()), 32)
    assert (row // 8, col // 8) == divmod(planted, 4)
    assert built.max() > 0.8
    assert (built > 0.5).float().mean() < 0.15


def test_swapping_the_labels_complements_map_and_score() -> None:
    clip = method()
    generator = torch.Generator().manual_seed(0)
    features = features_of(
        clip,
        torch.randn(2, 4, generator=generator),
        torch.randn(2, 16, 4, generator=generator),
    )
    pair = torch.randn(2, 4, generator=generator)
    pair = pair / pair.norm(dim=-1, keepdim=True)
    one = clip.score(features, ScoreContext([BOTTLE] * 2, {"bottle": text_of(pair)}))
    two = clip.score(features, ScoreContext([BOTTLE] * 2, {"bottle": text_of(pair.flip(0))}))
    torch.testing.assert_close(one.image, 1 - two.image)
    torch.testing.assert_close(
        maps.pair_probability(one.maps[0]), 1 - maps.pair_probability(two.maps[0])
    )


def test_each_image_of_a_batch_uses_its_own_category() -> None:
    clip = method()
    text = {
        "bottle": text_of(torch.stack([NORMAL, ANOMALOUS])),
        "cable": text_of(torch.stack([ANOMALOUS, NORMAL])),
    }
    cable = Category("toy", "cable", "cable")
    features = features_of(clip, NORMAL.expand(2, 4), NORMAL.expand(2, 16, 4))
    image = clip.score(features, ScoreContext([BOTTLE, cable], text)).image
    assert image[0] < 0.01
    assert image[1] > 0.99


def test_map_maximum_is_mixed_in_on_request_only() -> None:
    patches = NORMAL.repeat(1, 16, 1)
    patches[0, 5] = ANOMALOUS
    for weight in (0.0, 0.5):
        clip = method(map_max=weight, sigma=0.0)
        scores = clip.score(features_of(clip, NORMAL[None], patches), context())
        built = maps.build_maps(scores, clip.map_spec(), 32)
        mixed = clip.image_score(scores, built)
        torch.testing.assert_close(
            mixed, (1 - weight) * scores.image + weight * built.final.amax((1, 2))
        )
        assert (mixed > 0.4) == (weight > 0)


# ----------------------------------------------------------------------------- explaining
def test_a_prompts_own_embedding_as_image_ranks_that_prompt_first() -> None:
    clip = method()
    features = features_of(clip, ANOMALOUS[None] * 5, NORMAL.expand(1, 16, 4))
    scores = clip.score(features, context())
    built = maps.build_maps(scores, clip.map_spec(), 32)
    (reasons,) = clip.explain(Scored(features, context(), scores, built, scores.image))
    assert [r.text for r in reasons] == ["an anomalous one", "a normal one"]
    assert [r.label for r in reasons] == ["anomalous", "normal"]
    assert reasons[0].similarity == pytest.approx(1.0)


# --------------------------------------------------------------------------------- config
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"temperature": 0}, "temperature"),
        ({"map_max": 2.0}, "map_max"),
        ({"sigma": -1.0}, "sigma"),
        ({"prompts": "three"}, "clip.prompts='three'"),
        ({"temperture": 0.1}, "did you mean 'temperature'"),
    ],
)
def test_bad_config_is_one_line_that_names_the_key(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        registry.method("clip").resolve(("test", overrides))
    assert "\n" not in str(caught.value)

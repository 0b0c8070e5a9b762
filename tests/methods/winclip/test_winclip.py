"""WinCLIP and WinCLIP+."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.methods.small import hand_info
from zsad import maps, registry
from zsad.components.prompt_ensemble import EnsembleFeatures, fill
from zsad.components.templates import STATES, TEMPLATES
from zsad.components.windows import coverage, window_region
from zsad.errors import RequestError
from zsad.methods.winclip.method import CLS, WinClip
from zsad.types import Category, ImageFeatures, ScoreContext, Scored, Tap

INFO = hand_info(image_size=60, depth=4, width=5, embed=4)
GRID = (6, 6)
NORMAL, ANOMALOUS = torch.eye(4)[0], torch.eye(4)[1]
BOTTLE = Category("toy", "bottle", "bottle")
TEXT = EnsembleFeatures(
    torch.stack([NORMAL, ANOMALOUS]),
    ["flawless bottle", "damaged bottle"],
    torch.stack([NORMAL, ANOMALOUS]),
    1,
)


def method(**overrides: Any) -> WinClip:
    return WinClip(registry.method("winclip").resolve(("test", overrides)), INFO)


def normal_features(winclip: WinClip, n: int = 1, seed: int = 0) -> ImageFeatures:
    """Features of ``n`` images in which everything looks normal; patch tokens are random."""
    generator = torch.Generator().manual_seed(seed)
    data = {CLS: NORMAL.repeat(n, 1)}
    for k in winclip.config.scales:
        data[Tap("window", k)] = NORMAL.repeat(n, (7 - k) ** 2, 1)
    data[winclip.memory_tap] = torch.randn(n, 37, 5, generator=generator)
    return ImageFeatures(GRID, data)


def random_features(winclip: WinClip, n: int, seed: int) -> ImageFeatures:
    generator = torch.Generator().manual_seed(seed)
    shapes = {t: v.shape for t, v in normal_features(winclip, n).data.items()}
    return ImageFeatures(GRID, {t: torch.randn(s, generator=generator) for t, s in shapes.items()})


def context(n: int = 1, **references: ImageFeatures) -> ScoreContext:
    return ScoreContext([BOTTLE] * n, {"bottle": TEXT}, references=references)


# ------------------------------------------------------------------------------- prompts
def test_the_ensemble_has_154_normal_prompts() -> None:
    normal, anomalous = fill(STATES, "metal nut")
    assert len(TEMPLATES) == len(set(TEMPLATES)) == 22
    prompts = [{t.format(s) for s in side for t in TEMPLATES} for side in (normal, anomalous)]
    assert [len(p) for p in prompts] == [154, 88]  # the counts that ALFA's Table 3 quotes
    assert "a jpeg corrupted photo of a unblemished metal nut." in prompts[0]
    assert "a photo of the metal nut with flaw for visual inspection." in prompts[1]


# --------------------------------------------------------------------------- zero-shot
def test_scores_by_hand() -> None:
    """One anomalous window among normal ones at each scale, worked out patch by patch."""
    winclip = method(temperature=0.5)
    features = normal_features(winclip)
    features[Tap("window", 2)][0, 0] = ANOMALOUS  # top left 2x2 patches
    features[Tap("window", 3)][0, 0] = ANOMALOUS  # top left 3x3 patches
    low, high = (1 / (1 + math.exp(s * 2)) for s in (1, -1))
    scores = winclip.score(features, context())
    assert scores.image.item() == pytest.approx(low)

    def harmonic(*values: float) -> float:
        return len(values) / sum(1 / v for v in values)

    corner = harmonic(low, high, high)  # image, the only window of either scale
    edge = harmonic(low, harmonic(high, low), harmonic(high, low))  # two windows of each
    third = harmonic(low, low, harmonic(high, low, low))  # patch (0, 2): no anomalous 2x2 window
    result = scores.maps[0][0]
    assert result[0, 0].item() == pytest.approx(corner)
    assert result[0, 1].item() == pytest.approx(edge)
    assert result[0, 2].item() == pytest.approx(third)
    assert result[5, 5].item() == pytest.approx(low)


@pytest.mark.parametrize("planted", [0, 12, 24])
def test_a_planted_window_lights_up_where_it_is(planted: int) -> None:
    winclip = method(scales=[2], include_image_scale=False)
    features = normal_features(winclip)
    covered = coverage(GRID, 2)[:, planted]
    # Every window that touches the planted patches sees the anomaly; others do not.
    touching = coverage(GRID, 2)[covered].any(0)
    features[Tap("window", 2)][0, touching] = ANOMALOUS
    scores = winclip.score(features, context())
    assert torch.equal(scores.maps[0][0].flatten() > 0.5, covered)
    built = maps.build_maps(scores, winclip.map_spec(), 60).final[0]
    row, col = divmod(int(built.argmax()), 60)
    left, top, right, bottom = window_region(planted, GRID, 2)
    assert left <= (col + 0.5) / 60 <= right
    assert top <= (row + 0.5) / 60 <= bottom


def test_batch_equals_single_images() -> None:
    winclip = method(shots=2)
    features = random_features(winclip, 4, seed=1)
    references = random_features(winclip, 2, seed=2)
    batch = winclip.score(features, context(4, bottle=references))
    for i in range(4):
        one = winclip.score(features.select([i]), context(1, bottle=references))
        torch.testing.assert_close(one.image[0], batch.image[i])
        torch.testing.assert_close(one.maps[0][0], batch.maps[0][i])


# ----------------------------------------------------------------------------- few-shot
@pytest.mark.parametrize("layer", ["penultimate", "last"])
def test_an_image_in_the_memory_has_association_zero(layer: str) -> None:
    winclip = method(shots=2, memory_layer=layer)
    memory = random_features(winclip, 2, seed=3)
    association = winclip.association(memory.select([1]), context(1, bottle=memory))
    assert association.max() < 1e-5
    other = random_features(winclip, 1, seed=4)
    assert winclip.association(other, context(1, bottle=memory)).min() > 1e-3


def test_association_by_hand() -> None:
    winclip = method(shots=1, scales=[2])
    memory = normal_features(winclip)
    memory.data[winclip.memory_tap] = F.one_hot(torch.tensor(0), 5).float().expand(1, 37, 5)
    query = normal_features(winclip)
    tokens = memory[winclip.memory_tap].clone()
    tokens[0, 1 + 14] = F.one_hot(torch.tensor(1), 5).float()  # patch (2, 2): cosine 0
    query.data[winclip.memory_tap] = tokens
    association = winclip.association(query, context(1, bottle=memory))[0]
    assert association[2, 2].item() == pytest.approx(0.25, abs=1e-5)  # mean of 0.5 and 0
    assert association.sum().item() == pytest.approx(0.25, abs=1e-4)
    scores = winclip.score(query, context(1, bottle=memory))
    language = scores.parts["language_image"].item()
    assert scores.image.item() == pytest.approx((language + 0.25) / 2, abs=1e-5)
    torch.testing.assert_close(
        scores.maps[0][0], (scores.parts["language_map"][0] + association) / 2
    )


def test_each_category_uses_its_own_references() -> None:
    winclip = method(shots=1)
    cable = Category("toy", "cable", "cable")
    a, b = (random_features(winclip, 1, seed=s) for s in (5, 6))
    both = ImageFeatures.concat([a, b])
    text = {"bottle": TEXT, "cable": TEXT}
    own = ScoreContext([BOTTLE, cable], text, references={"bottle": a, "cable": b})
    swapped = ScoreContext([BOTTLE, cable], text, references={"bottle": b, "cable": a})
    assert winclip.association(both, own).max() < 1e-5
    assert winclip.association(both, swapped).amax((1, 2)).min() > 0.01


def test_patch_tokens_are_asked_for_only_with_shots() -> None:
    assert method().memory_tap not in method().feature_request().taps
    assert method(shots=1).memory_tap == Tap("tokens", 3)
    assert method(shots=1).memory_tap in method(shots=1).feature_request().taps


# --------------------------------------------------------------------------- explaining
def test_the_states_own_embedding_ranks_first_at_its_window() -> None:
    winclip = method()
    features = normal_features(winclip)
    features.data[CLS] = ANOMALOUS[None]
    features[Tap("window", 3)][0, 5] = ANOMALOUS
    scores = winclip.score(features, context())
    built = maps.build_maps(scores, winclip.map_spec(), 60)
    (reasons,) = winclip.explain(Scored(features, context(), scores, built, scores.image))
    assert reasons[0].text == "damaged bottle"
    assert reasons[0].label == "anomalous"
    assert reasons[0].region == window_region(5, GRID, 3)
    assert reasons[1].label == "normal"


# --------------------------------------------------------------------------------- config
def test_a_scale_larger_than_the_grid_is_a_request_error() -> None:
    with pytest.raises(RequestError, match="window of 7x7 patches does not fit the 6x6"):
        method(scales=[2, 7]).feature_request()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"temperature": -1.0}, "temperature"),
        ({"scales": [], "include_image_scale": False}, "scales"),
        ({"scales": [2, 2]}, "different sizes"),
        ({"shots": -1}, "shots"),
        ({"memory_layer": "first"}, "winclip.memory_layer='first'"),
        ({"scale": [2]}, "did you mean 'scales'"),
    ],
)
def test_bad_config_is_one_line_that_names_the_key(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        registry.method("winclip").resolve(("test", overrides))
    assert "\n" not in str(caught.value)

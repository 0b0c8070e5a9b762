"""Intervals hold at the border: by simulation, by symmetry, and never without width."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from zsad.errors import RequestError
from zsad.metrics.intervals import auroc_bounds, binormal_ap, confidence_interval

RUNS = 400


def draw(random: np.random.Generator, area: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    scores = random.normal(size=2 * count)
    scores[count:] += math.sqrt(2) * norm.ppf(area)
    return scores, np.repeat([0, 1], count)


@pytest.mark.parametrize("count", [5, 20, 100])
@pytest.mark.parametrize("area", [0.95, 0.99])
def test_auroc_is_covered(area: float, count: int) -> None:
    random = np.random.default_rng(1)
    hits = 0
    for _ in range(RUNS):
        found = confidence_interval(*draw(random, area, count))
        hits += found.low <= area <= found.high
    assert hits / RUNS >= 0.93


@pytest.mark.slow
@pytest.mark.parametrize("count", [5, 20, 100])
@pytest.mark.parametrize("area", [0.95, 0.99])
def test_average_precision_is_covered(area: float, count: int) -> None:
    random = np.random.default_rng(2)
    true = binormal_ap(area, 0.5)
    hits = 0
    for _ in range(RUNS // 4):
        found = confidence_interval(*draw(random, area, count), "image_ap")
        hits += found.low <= true <= found.high
    assert hits / (RUNS // 4) >= 0.93


@pytest.mark.parametrize("metric", ["image_auroc", "image_ap"])
def test_a_perfect_order_of_few_images_proves_little(metric: str) -> None:
    found = confidence_interval(np.arange(10), np.repeat([0, 1], 5), metric)
    assert found.value == found.high == 1
    assert found.low < 0.75


def test_the_bounds_mirror() -> None:
    low, high = auroc_bounds(0.9, 12, 30, 0.95)
    mirrored = auroc_bounds(0.1, 12, 30, 0.95)
    assert (1 - high, 1 - low) == pytest.approx(mirrored, abs=1e-6)
    assert low < 0.9 < high


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_guessing_has_the_share_of_anomalous_images_as_its_ap(share: float) -> None:
    assert binormal_ap(0.5, share) == pytest.approx(share, abs=1e-6)
    assert binormal_ap(1.0, share) == pytest.approx(1, abs=1e-3)


def test_too_few_images_have_no_interval() -> None:
    with pytest.raises(RequestError, match="4 normal and 5 anomalous images are too few"):
        confidence_interval(np.arange(9), [0] * 4 + [1] * 5)

"""Regions without scipy are scipy's."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given
from hypothesis import strategies as st
from skimage.measure import approximate_polygon, find_contours

from zsad.inference.regions import find as reference
from zsad.runtime.contours import SIDE, TOLERANCE, contour
from zsad.runtime.regions import find, label


@given(st.integers(0, 2**31), st.integers(1, 12), st.integers(1, 12), st.floats(0.05, 0.95))
def test_labels_are_those_of_scipy(seed: int, height: int, width: int, share: float) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < share
    wanted, count = scipy.ndimage.label(mask, np.ones((3, 3)))
    labels, found = label(mask)
    assert found == count
    np.testing.assert_array_equal(labels, wanted)


@given(st.integers(0, 2**31), st.floats(0.2, 0.9))
def test_regions_are_those_of_predict(seed: int, limit: float) -> None:
    values = np.random.default_rng(seed).random((11, 17), dtype=np.float32)
    wanted = reference(values, limit, most=100)
    regions, omitted, share = find(values, limit)
    assert (omitted, share) == (wanted.omitted, wanted.share)
    for one, right in zip(regions, wanted.regions, strict=True):
        assert (one.box, one.area, one.peak) == (right.box, right.area, right.peak)
        assert one.contour == right.contour
        assert one.score == pytest.approx(right.score, rel=1e-12)


def reference_contour(mask: np.ndarray) -> list[tuple[float, float]]:
    """The same by scikit-image."""
    step = -(-max(mask.shape) // SIDE)
    coarse = np.pad(mask[step // 2 :: step, step // 2 :: step], 1)
    lines = find_contours(coarse.astype(np.float32), 0.5, fully_connected="high")
    if not lines:
        height, width = map(float, mask.shape)
        return [(0.0, 0.0), (width, 0.0), (width, height), (0.0, height)]
    points = approximate_polygon(max(lines, key=len), TOLERANCE)[:-1] - 0.5
    limits = np.array(mask.shape, dtype=np.float64)
    return [(float(x), float(y)) for y, x in np.clip(points * step, 0, limits)]


@given(st.integers(0, 2**31), st.integers(1, 40), st.integers(1, 40), st.floats(0.05, 0.95))
def test_contours_are_those_of_scikit_image(
    seed: int, height: int, width: int, share: float
) -> None:
    """Of noise, and of shapes with holes and corners that touch."""
    noise = np.random.default_rng(seed).random((height, width))
    for mask in (noise < share, scipy.ndimage.gaussian_filter(noise, 1.5) < share):
        assert contour(mask) == reference_contour(mask)


@pytest.mark.parametrize("shape", [(700, 900), (3, 2000), (1, 1), (2, 1)])
def test_contours_of_large_and_thin_regions(shape: tuple[int, int]) -> None:
    rows, columns = np.indices(shape)
    round_ = (rows - shape[0] / 2) ** 2 + (columns - shape[1] / 3) ** 2 <= (max(shape) / 3) ** 2
    for mask in (np.ones(shape, bool), round_):
        assert contour(mask) == reference_contour(mask)


def test_of_many_regions_the_highest_are_listed() -> None:
    values = np.zeros((41, 41), np.float32)
    values[::2, ::2] = np.arange(441, dtype=np.float32).reshape(21, 21) + 1
    regions, omitted, _ = find(values, 1.0)
    assert (len(regions), omitted) == (100, 341)
    assert regions[0].peak == 441
    assert find(values, 1e9) == ((), 0, 0.0)

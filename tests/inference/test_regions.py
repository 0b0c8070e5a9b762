"""Regions: boxes, areas, peaks and means by hand, contours that cover what they surround."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from zsad.inference import regions
from zsad.runtime import contours


def drawn(points: object, height: int, width: int) -> np.ndarray:
    """The pixels whose centre lies within a contour, four times as fine."""
    canvas = Image.new("1", (4 * width, 4 * height))
    ImageDraw.Draw(canvas).polygon([(4 * x, 4 * y) for x, y in points], fill=1)  # type: ignore[attr-defined]
    return np.asarray(canvas)[2::4, 2::4]


def test_two_regions_by_hand() -> None:
    values = np.zeros((40, 60), dtype=np.float32)
    values[5:15, 10:30] = 0.5
    values[6, 11] = 0.9
    values[30:, 50:] = 0.7
    found = regions.find(values, 0.5)  # inclusive
    first, second = found.regions
    assert (first.box, first.area, first.peak) == ((10, 5, 20, 10), 200, np.float32(0.9))
    assert first.score == pytest.approx((199 * 0.5 + 0.9) / 200)
    assert (second.box, second.area, second.peak) == ((50, 30, 10, 10), 100, np.float32(0.7))
    assert found.share == pytest.approx(300 / 2400)
    assert found.omitted == 0
    plain = first.plain()
    assert set(plain) == {"box", "contour", "area", "peak", "score"}
    assert plain["box"] == [10, 5, 20, 10]
    assert all(len(point) == 2 for point in plain["contour"])


def test_pixels_that_touch_at_a_corner_are_one_region() -> None:
    values = np.eye(4, dtype=np.float32)
    assert [r.area for r in regions.find(values, 0.5).regions] == [4]


def test_the_highest_hundred_are_listed_and_the_others_counted() -> None:
    values = np.zeros((40, 40), dtype=np.float32)
    values[::2, ::2] = np.arange(1, 401).reshape(20, 20)
    found = regions.find(values, 1)
    assert [r.peak for r in found.regions] == list(range(400, 300, -1))
    assert found.omitted == 300
    assert found.share == pytest.approx(400 / 1600)


def test_what_is_ignored_is_in_no_region_and_not_in_the_share() -> None:
    values = np.ones((10, 10), dtype=np.float32)
    ignored = np.zeros((10, 10), dtype=bool)
    ignored[:, 4:] = True
    values[:2] = 0
    found = regions.find(values, 0.5, ignored)
    assert [r.box for r in found.regions] == [(0, 2, 4, 8)]
    assert found.share == pytest.approx(32 / 40)


def test_nothing_found() -> None:
    assert regions.find(np.zeros((3, 4), dtype=np.float32), 0.5) == regions.Findings((), 0, 0.0)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_contours_cover_their_regions(seed: int) -> None:
    """A blob without holes and its contour differ by less than its border."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:60, :80]
    middle = rng.uniform((0, 0), (60, 80))
    radii = rng.uniform(6, 30, 2)
    inside = ((rows - middle[0]) / radii[0]) ** 2 + ((columns - middle[1]) / radii[1]) ** 2 <= 1
    found = regions.find(inside.astype(np.float32), 0.5)
    assert len(found.regions) == 1
    again = drawn(found.regions[0].contour, 60, 80)
    x, y, width, height = found.regions[0].box
    assert (again != inside).sum() <= 2 * (width + height)
    assert not again[:y].any()
    assert not again[:, x + width :].any()


def test_a_large_region_has_a_short_contour_near_its_border() -> None:
    mask = np.zeros((3000, 4000), dtype=bool)
    rows, columns = np.ogrid[:3000, :4000]
    mask |= (rows - 1500) ** 2 + (columns - 2000) ** 2 <= 1200**2
    points = contours.contour(mask)
    assert len(points) < 200
    radius = np.hypot(*(np.array(points) - (2000, 1500)).T)
    step = -(-4000 // contours.SIDE)
    assert np.abs(radius - 1200).max() < 2 * step
    line = np.zeros((1, 4000), dtype=bool)
    line[0, :] = True
    assert contours.contour(line)

"""Pictures of maps: known colours, a monotone ramp, exact masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from zsad.results import heatmaps
from zsad.runtime.enlarging import enlarged


def test_the_ends_of_the_ramp_and_what_lies_beyond() -> None:
    colours = heatmaps.heat(np.array([[0.0, 1.0, -5.0, 7.0]]), 0, 1)
    np.testing.assert_array_equal(colours[0, 0], (13, 8, 135))
    np.testing.assert_array_equal(colours[0, 1], (240, 249, 33))
    np.testing.assert_array_equal(colours[0, 2], colours[0, 0])
    np.testing.assert_array_equal(colours[0, 3], colours[0, 1])


def test_brightness_grows_with_the_score() -> None:
    colours = heatmaps.heat(np.linspace(0, 1, 256)[None], 0, 1)[0].astype(float)
    luma = colours @ (0.299, 0.587, 0.114)
    assert (np.diff(luma) >= -0.5).all()  # half a grey level: rounding


def test_a_constant_map_has_no_hot_place() -> None:
    colours = heatmaps.heat(np.full((2, 2), 0.7), 0.7, 0.7)
    assert (colours == (13, 8, 135)).all()


def test_cold_parts_show_the_picture_and_hot_ones_the_colours() -> None:
    picture = Image.new("L", (4, 2), 200)
    values = np.array([[0, 0.25, 0.5, 1.0]] * 2, dtype=np.float32)
    mixed = np.asarray(heatmaps.overlay(picture, values, 0, 1, opacity=0.5))
    np.testing.assert_array_equal(mixed[0, :2], np.full((2, 3), 200))
    hot = heatmaps.heat(values, 0, 1)[0, 2:]
    np.testing.assert_allclose(mixed[0, 2:], (hot.astype(float) + 200) / 2, atol=1)


def test_the_overlay_is_of_bounded_size_and_shows_regions_and_what_is_ignored() -> None:
    picture = Image.new("RGB", (600, 300), (200, 200, 200))
    ignored = np.zeros((300, 600), dtype=bool)
    ignored[:, :300] = True
    shown = heatmaps.overlay(
        picture,
        np.ones((3, 6), dtype=np.float32),
        0,
        1,
        side=200,
        outlines=[[(330, 30), (570, 30), (570, 270), (330, 270)]],
        ignored=ignored,
    )
    assert shown.size == (200, 100)
    pixels = np.asarray(shown).astype(int)
    np.testing.assert_array_equal(pixels[50, 20], (156, 156, 156))  # grey, without colours
    assert (pixels[50, 110] > 240).all()  # the outline
    assert pixels[50, 150, 2] < 150  # yellow
    plain = heatmaps.overlay(picture, np.zeros((3, 6)), 0, 1, side=200)
    marked = heatmaps.overlay(picture, np.zeros((3, 6)), 0, 1, side=200, caption="random weights")
    changed = np.asarray(plain) != np.asarray(marked)
    assert changed.any()
    assert not changed[:50].any()


@pytest.mark.parametrize("size", [(7, 9), (3, 31), (40, 3), (1, 1), (600, 5)])
def test_enlarging_is_torchs_bilinear_interpolation(size: tuple[int, int]) -> None:
    values = np.random.default_rng(3).random((7, 9)).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(values)[None, None], size=size, mode="bilinear", align_corners=False
    )[0, 0].numpy()
    found = enlarged(values, size)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert values.min() <= found.min() <= found.max() <= values.max()


def test_a_mask_is_black_and_white() -> None:
    found = np.asarray(heatmaps.mask(np.array([[False, True, True]])))
    np.testing.assert_array_equal(found, [[0, 255, 255]])


def test_the_threshold_is_never_hotter_than_the_middle() -> None:
    values = np.array([[0.2, 0.4]])
    assert heatmaps.span(values) == (0.2, 0.4)
    assert heatmaps.span(values, 0.5) == (0.2, pytest.approx(0.8))  # a normal picture stays cold
    assert heatmaps.span(values, 0.25) == (0.2, 0.4)
    assert heatmaps.span(values, 0.1) == (0.2, 0.4)


def test_boxes_lie_where_they_are_and_carry_their_words() -> None:
    picture = Image.new("RGB", (400, 200), (200, 200, 200))
    cold = np.zeros((2, 4), dtype=np.float32)
    plain = np.asarray(heatmaps.overlay(picture, cold, 0, 1)).astype(int)
    box = ((0.25, 0.5, 0.75, 0.9), "crack 0.41")
    shown = np.asarray(heatmaps.overlay(picture, cold, 0, 1, boxes=[box])).astype(int)
    changed = (shown != plain).any(axis=2)
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    assert (columns[0], columns[-1]) == (99, 299)  # a quarter and three quarters of 399
    assert rows[-1] == 179
    assert 82 <= rows[0] < 99  # the words above the upper edge
    assert changed[101:179, 100].all()
    assert changed[178, 101:299].all()
    assert not changed[110:170, 110:290].any()  # the picture inside is seen
    coloured = (shown == heatmaps.BOX).all(axis=2)
    assert coloured[102:178, 100].all()
    # at the upper edge there is room for words inside only
    top = np.asarray(heatmaps.overlay(picture, cold, 0, 1, boxes=[((0, 0, 1, 1), "dent")]))
    assert (top.astype(int) != plain).any(axis=2)[3:15, 3:40].any()
    tiny = heatmaps.overlay(picture, cold, 0, 1, boxes=[((0.5, 0.5, 0.5, 0.5), "")])
    assert tiny.size == (400, 200)

"""Pictures of maps: known colours, a monotone ramp, exact masks."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from zsad.results import heatmaps


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


def test_the_overlay_mixes_picture_and_colours() -> None:
    picture = Image.new("L", (3, 2), 200)
    mixed = np.asarray(heatmaps.overlay(picture, np.zeros((2, 3)), 0, 1, opacity=0.5))
    np.testing.assert_allclose(mixed[0, 0], (np.array((13, 8, 135)) + 200) / 2, atol=1)
    with pytest.raises(ValueError, match="the map is"):
        heatmaps.overlay(picture, np.zeros((3, 2)), 0, 1)


def test_the_mask_includes_the_threshold() -> None:
    found = np.asarray(heatmaps.mask(np.array([[0.4, 0.5, 0.6]]), 0.5))
    np.testing.assert_array_equal(found, [[0, 255, 255]])


def test_the_threshold_is_never_hotter_than_the_middle() -> None:
    values = np.array([[0.2, 0.4]])
    assert heatmaps.span(values) == (0.2, 0.4)
    assert heatmaps.span(values, 0.5) == (0.2, pytest.approx(0.8))  # a normal picture stays cold
    assert heatmaps.span(values, 0.25) == (0.2, 0.4)
    assert heatmaps.span(values, 0.1) == (0.2, 0.4)

"""Regions: connectivity, weights and their order."""

from __future__ import annotations

import numpy as np
import pytest

from zsad.metrics import reference
from zsad.metrics.regions import region_pixels


def test_corners_connect_and_images_do_not():
    masks = np.zeros((3, 4, 4), bool)
    masks[0, 0, 0] = masks[0, 1, 1] = True  # touch at a corner: one region
    masks[0, 3, 3] = True  # apart: its own
    masks[2, 0, 0] = True  # same place, other image
    pixels = region_pixels(masks)
    assert pixels.regions == 3
    assert pixels.weights.tolist() == [0.5, 0.5, 1.0, 1.0]
    assert pixels.places.tolist() == [0, 5, 15, 32]


def test_no_region_and_a_full_image():
    none = region_pixels(np.zeros((2, 3, 3), bool))
    assert (len(none.places), len(none.weights), none.regions) == (0, 0, 0)
    full = region_pixels(np.ones((1, 3, 4), bool))
    assert full.regions == 1
    assert full.weights.tolist() == [1 / 12] * 12


@pytest.mark.parametrize("density", [0.02, 0.2, 0.5])
def test_weights_follow_raster_order_and_add_up_to_one_per_region(density):
    masks = np.random.default_rng(5).random((4, 31, 17)) < density
    pixels = region_pixels(masks)
    parts = reference.regions(masks)
    assert pixels.regions == len(parts)
    assert pixels.places.tolist() == np.flatnonzero(masks).tolist()
    placed = np.zeros(masks.shape)
    placed.flat[pixels.places] = pixels.weights
    for image, xy in parts:
        assert placed[image][xy[:, 0], xy[:, 1]].tolist() == [1 / len(xy)] * len(xy)

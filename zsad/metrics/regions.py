"""Anomalous regions of masks: 8-connected components and the weights of their pixels."""

from __future__ import annotations

import numpy as np
import scipy.ndimage

EIGHT = np.ones((3, 3), dtype=bool)  # pixels that touch at a corner belong to one region


def region_weights(masks: np.ndarray) -> tuple[np.ndarray, int, np.ndarray]:
    """Return 1 / area of the region of every anomalous pixel [M], the number of regions, and
    which masks have any [B].

    masks [B, H, W] bool.  Pixels come in raster order, image after image: the order of
    ``maps[masks]``.  Regions never reach across images.
    """
    weights: list[np.ndarray] = []
    regions = 0
    filled = np.array([mask.any() for mask in masks], dtype=bool)
    for mask in masks[filled]:
        rows = np.flatnonzero(mask.any(1))
        columns = np.flatnonzero(mask.any(0))
        # the bounding box of all regions: labelling costs by area
        box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        labels, count = scipy.ndimage.label(box, EIGHT)
        inside = labels[box]
        areas = np.bincount(inside, minlength=count + 1)
        weights.append(1.0 / areas[inside])
        regions += count
    return (np.concatenate(weights) if weights else np.zeros(0)), regions, filled

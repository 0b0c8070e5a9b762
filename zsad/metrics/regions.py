"""Anomalous regions of masks: 8-connected components and the weights of their pixels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.ndimage
import torch
from torch import Tensor

from zsad.on_device import uploaded

EIGHT = np.ones((3, 3), dtype=bool)  # pixels that touch at a corner belong to one region


class RegionPixels(NamedTuple):
    """The anomalous pixels of a stack of masks, in raster order, image after image.

    ``places`` [M]: position in the flattened stack.  ``weights`` [M]: 1 / area of the pixel's
    region.  ``regions``: how many there are.
    """

    places: np.ndarray
    weights: np.ndarray
    regions: int


class BatchRegions:
    """The regions of a batch's masks [B, H, W] (on the CPU), found once for all who count them and
    brought to a device once.  ``ignored`` [B, H, W]: pixels that do not count; None: all do."""

    def __init__(self, masks: Tensor, ignored: Tensor | None = None) -> None:
        counted = None if ignored is None else ~ignored.numpy()
        self.found = region_pixels(masks.numpy(), counted)
        self._there: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Places [M] int64 and weights [M] float64, as in :class:`RegionPixels`."""
        if device not in self._there:
            both = (torch.from_numpy(part) for part in self.found[:2])
            places, weights = (uploaded(part, device) for part in both)
            self._there[device] = places, weights
        return self._there[device]


def region_pixels(masks: np.ndarray, seen: np.ndarray | None = None) -> RegionPixels:
    """Find the 8-connected regions of masks [B, H, W] (bool); none reaches across images.

    ``seen`` [B, H, W] (bool): the pixels that count, None: all.  A region is what is seen of it, in
    however many parts; one of which nothing is seen is none.
    """
    height, width = masks.shape[1:]
    places: list[np.ndarray] = [np.zeros(0, np.int64)]
    weights: list[np.ndarray] = [np.zeros(0)]
    regions = 0
    for image, mask in enumerate(masks):
        if not mask.any():
            continue
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        top, left = rows[0], columns[0]
        # the bounding box of all regions: labelling costs by area
        labels, count = scipy.ndimage.label(mask[top : rows[-1] + 1, left : columns[-1] + 1], EIGHT)
        down, right = np.nonzero(labels)
        if seen is not None:
            kept = seen[image, top + down, left + right]
            down, right = down[kept], right[kept]
        inside = labels[down, right]
        areas = np.bincount(inside, minlength=count + 1)
        weights.append(1.0 / areas[inside])
        places.append((image * height + top + down) * width + left + right)
        regions += int(np.count_nonzero(areas))
    return RegionPixels(np.concatenate(places), np.concatenate(weights), regions)

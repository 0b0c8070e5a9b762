"""Where something was found: the connected regions of a mask, in pixels of the picture.

Regions are 8-connected, as everywhere (:mod:`zsad.metrics.regions`).  Coordinates count from the
upper left corner of the picture, x to the right and y down: the first pixel covers 0..1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from zsad.metrics.regions import EIGHT
from zsad.runtime.contours import contour
from zsad.runtime.regions import MOST, Region


@dataclass(frozen=True)
class Findings:
    """``regions``: by peak, the highest first; ``omitted``: how many more there are;
    ``share``: of the pixels that are looked at, those in any region."""

    regions: tuple[Region, ...]
    omitted: int
    share: float


def marked(
    anomaly_map: NDArray[np.float32], limit: float, ignored: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_]:
    """Where a map [H, W] reaches ``limit`` and is not ``ignored`` [H, W]."""
    mask: NDArray[np.bool_] = anomaly_map >= limit
    return mask if ignored is None else mask & ~ignored


def find(
    anomaly_map: NDArray[np.float32],
    limit: float,
    ignored: NDArray[np.bool_] | None = None,
    most: int = MOST,
) -> Findings:
    """The regions of a map [H, W] at or above ``limit``, at most ``most`` of them."""
    mask = marked(anomaly_map, limit, ignored)
    seen = mask.size - (0 if ignored is None else int(ignored.sum()))
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return Findings((), 0, 0.0)
    top, left = int(rows[0]), int(columns[0])
    inside = (slice(top, int(rows[-1]) + 1), slice(left, int(columns[-1]) + 1))
    labels, count = scipy.ndimage.label(mask[inside], EIGHT)
    values = anomaly_map[inside]
    boxes = scipy.ndimage.find_objects(labels)
    # By their boxes: scipy's own maximum sorts all pixels, at three times the memory of the map.
    peaks = [
        np.max(values[box], where=labels[box] == number, initial=-np.inf)
        for number, box in enumerate(boxes, 1)
    ]
    order = np.argsort(-np.array(peaks), kind="stable")[:most]
    regions = [_region(labels, values, int(i) + 1, boxes[i], top, left) for i in order]
    return Findings(tuple(regions), count - len(regions), float(mask.sum() / seen))


def _region(
    labels: NDArray[np.int32],
    values: NDArray[np.float32],
    number: int,
    box: tuple[slice, slice],
    top: int,
    left: int,
) -> Region:
    """Region ``number`` of ``labels``, whose first pixel lies at (``top``, ``left``)."""
    mask = labels[box] == number
    inside = values[box][mask]
    x, y = left + box[1].start, top + box[0].start
    return Region(
        (x, y, mask.shape[1], mask.shape[0]),
        tuple((round(x + dx, 1), round(y + dy, 1)) for dx, dy in contour(mask)),
        len(inside),
        float(inside.max()),
        float(inside.mean(dtype=np.float64)),
    )

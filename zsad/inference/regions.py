"""Where something was found: the connected regions of a mask, in pixels of the picture.

Regions are 8-connected, as everywhere (:mod:`zsad.metrics.regions`).  Coordinates count from the
upper left corner of the picture, x to the right and y down: the first pixel covers 0..1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from zsad.metrics.regions import EIGHT

MOST = 100  # regions that are listed
CONTOUR_SIDE = 256  # cells to which a region is reduced before its contour is drawn
TOLERANCE = 0.6  # cells by which a contour may leave the region's border


@dataclass(frozen=True)
class Region:
    """``box``: (x, y, w, h); ``contour``: [(x, y), ...], its outer border, to be closed;
    ``area`` in pixels; ``peak`` and ``score``: the highest value and the mean of the map in it."""

    box: tuple[int, int, int, int]
    contour: tuple[tuple[float, float], ...]
    area: int
    peak: float
    score: float

    def plain(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "box": list(self.box),
            "contour": [list(point) for point in self.contour],
            "area": self.area,
            "peak": self.peak,
            "score": self.score,
        }


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


def contour(mask: NDArray[np.bool_]) -> list[tuple[float, float]]:
    """The outer border of a region [H, W] as points (x, y) in pixels from its corner.

    A large region is reduced to a grid of at most :data:`CONTOUR_SIDE` cells a side first: the
    points then lie within a cell of the border.
    """
    from skimage.measure import approximate_polygon, find_contours

    step = -(-max(mask.shape) // CONTOUR_SIDE)
    # A frame of sound pixels closes the border of what touches the edge.
    coarse = np.pad(mask[step // 2 :: step, step // 2 :: step], 1)
    lines = find_contours(coarse.astype(np.float32), 0.5, fully_connected="high")
    if not lines:  # thinner than a cell: its box is all there is to say
        height, width = mask.shape
        return [
            (0.0, 0.0),
            (float(width), 0.0),
            (float(width), float(height)),
            (0.0, float(height)),
        ]
    longest = max(lines, key=len)
    points = approximate_polygon(longest, TOLERANCE)[:-1] - 0.5  # cell centres lie at .5
    limits = np.array(mask.shape, dtype=np.float64)
    return [(float(x), float(y)) for y, x in np.clip(points * step, 0, limits)]

"""The 8-connected regions of a mask, without scipy: where they lie, and what the map is there."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zsad.runtime.contours import contour

MOST = 100  # regions that are listed
AS_A_WHOLE = "anomalous as a whole, nothing stands out"


@dataclass(frozen=True)
class Region:
    """``box``: (x, y, w, h) in pixels of the picture; ``contour``: [(x, y), ...], its outer border,
    to be closed; ``area`` in pixels; ``peak`` and ``score``: the highest value and the mean of the
    map in it."""

    box: tuple[int, int, int, int]
    contour: tuple[tuple[float, float], ...]
    area: int
    peak: float
    score: float

    def plain(self) -> dict[str, Any]:
        """Ready for JSON."""
        contour = [list(point) for point in self.contour]
        return {**asdict(self), "box": list(self.box), "contour": contour}


def find(values: NDArray[np.float32], limit: float) -> tuple[tuple[Region, ...], int, float]:
    """Return the regions of a map [H, W] at or above ``limit``, highest peak first, how many more
    than :data:`MOST` there are, and the share of the picture that all of them take."""
    mask = values >= limit
    labels, count = label(mask)
    if not count:
        return (), 0, 0.0
    rows, columns = np.nonzero(mask)
    own = labels[rows, columns] - 1  # in raster order, as regions are numbered
    inside = values[rows, columns]
    peaks = np.full(count, -np.inf, np.float32)
    np.maximum.at(peaks, own, inside)
    area = np.bincount(own, minlength=count)
    mean = np.bincount(own, inside.astype(np.float64), count) / area
    box = [np.full(count, np.iinfo(np.int64).max) for _ in range(2)]
    far = [np.full(count, -1) for _ in range(2)]
    for axis, places in enumerate((columns, rows)):
        np.minimum.at(box[axis], own, places)
        np.maximum.at(far[axis], own, places)
    order = np.argsort(-peaks, kind="stable")[:MOST]
    regions = []
    for i in order.tolist():
        x, y = int(box[0][i]), int(box[1][i])
        width, height = int(far[0][i]) - x + 1, int(far[1][i]) - y + 1
        border = contour(labels[y : y + height, x : x + width] == i + 1)
        points = tuple((round(x + dx, 1), round(y + dy, 1)) for dx, dy in border)
        measured = int(area[i]), float(peaks[i]), float(mean[i])
        regions.append(Region((x, y, width, height), points, *measured))
    return tuple(regions), count - len(regions), float(mask.sum() / mask.size)


def label(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], int]:
    """Number the 8-connected regions of a mask [H, W] from 1 in raster order of their first pixels;
    return the numbers [H, W], 0 outside, and how many there are."""
    padded = np.pad(mask.astype(np.int8), ((0, 0), (1, 1)))
    steps = np.diff(padded, axis=1)
    row, first = np.nonzero(steps == 1)  # runs along the rows, in raster order
    last = np.nonzero(steps == -1)[1]  # exclusive
    parent = list(range(len(row)))
    starts = np.searchsorted(row, np.arange(mask.shape[0] + 1))

    def root(run: int) -> int:
        while parent[run] != run:
            parent[run] = parent[parent[run]]
            run = parent[run]
        return run

    for y in range(1, mask.shape[0]):
        above, here = int(starts[y - 1]), int(starts[y])
        while above < starts[y] and here < starts[y + 1]:
            if first[here] <= last[above] and first[above] <= last[here]:  # corners touch, too
                low, high = sorted((root(above), root(here)))
                parent[high] = low
            if last[above] < last[here]:
                above += 1
            else:
                here += 1
    roots = np.array([root(i) for i in range(len(row))], dtype=np.int64)
    kept, numbers = np.unique(roots, return_inverse=True)
    labels = np.zeros(mask.shape, np.int64)
    for line, start, end, number in zip(row, first, last, numbers):
        labels[line, start:end] = number + 1
    return labels, len(kept)

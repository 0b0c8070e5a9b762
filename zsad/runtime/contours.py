"""The outer border of a region without scikit-image: the very points that it gives.

Marching squares on a binary grid, then Douglas and Peucker's simplification.  Where a border
begins decides which points are kept, so segments are joined in scikit-image's order.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

SIDE = 256  # cells to which a region is reduced before its contour is drawn
TOLERANCE = 0.6  # cells by which a contour may leave the region's border

Point = tuple[int, int]  # row, column, in half cells
Points = NDArray[np.float64]  # [N, 2], row and column, in cells

# The sides of a square of four cells, by half cells from its upper left one.
_TOP, _LEFT, _BOTTOM, _RIGHT = (0, 1), (1, 0), (2, 1), (1, 2)
# Segments by which of the cells belong to the region (1 upper left, 2 upper right, 4 lower left,
# 8 lower right); cells that touch at a corner are one region.
_SEGMENTS = {
    1: [(_TOP, _LEFT)],
    2: [(_RIGHT, _TOP)],
    3: [(_RIGHT, _LEFT)],
    4: [(_LEFT, _BOTTOM)],
    5: [(_TOP, _BOTTOM)],
    6: [(_LEFT, _TOP), (_RIGHT, _BOTTOM)],
    7: [(_RIGHT, _BOTTOM)],
    8: [(_BOTTOM, _RIGHT)],
    9: [(_TOP, _RIGHT), (_BOTTOM, _LEFT)],
    10: [(_BOTTOM, _TOP)],
    11: [(_BOTTOM, _LEFT)],
    12: [(_LEFT, _RIGHT)],
    13: [(_TOP, _RIGHT)],
    14: [(_LEFT, _TOP)],
}


def lines(mask: NDArray[np.bool_]) -> list[Points]:
    """All borders between the cells of a mask [H, W], which is clear along its edge, as closed
    lines of points [N, 2] (row, column) in cells: those of holes, too."""
    cells = mask.astype(np.int8)
    kinds = cells[:-1, :-1] + 2 * cells[:-1, 1:] + 4 * cells[1:, :-1] + 8 * cells[1:, 1:]
    joined = _Lines()
    for row, column in np.argwhere((kinds > 0) & (kinds < 15)).tolist():
        for start, end in _SEGMENTS[int(kinds[row, column])]:
            first = (2 * row + start[0], 2 * column + start[1])
            joined.add(first, (2 * row + end[0], 2 * column + end[1]))
    return [np.array(line) / 2 for _, line in sorted(joined.lines.items())]


class _Lines:
    """Lines by number, which grow by segments; of two that meet, the older one stays."""

    def __init__(self) -> None:
        self.lines: dict[int, deque[Point]] = {}
        self._starts: dict[Point, int] = {}
        self._ends: dict[Point, int] = {}
        self._made = 0

    def add(self, first: Point, last: Point) -> None:
        tail, head = self._starts.pop(last, None), self._ends.pop(first, None)
        if tail is None and head is None:
            self.lines[self._made] = deque((first, last))
            self._starts[first] = self._ends[last] = self._made
            self._made += 1
        elif head is None:
            assert tail is not None
            self.lines[tail].appendleft(first)
            self._starts[first] = tail
        elif tail is None or tail == head:
            self.lines[head].append(last)
            if tail is None:
                self._ends[last] = head
        else:
            self._meet(tail, head)

    def _meet(self, tail: int, head: int) -> None:
        """Line ``tail`` goes on where ``head`` ends."""
        if head < tail:
            kept = head
            self.lines[head].extend(self.lines.pop(tail))
        else:
            kept = tail
            before = self.lines.pop(head)
            self._starts.pop(before[0], None)
            self.lines[tail].extendleft(reversed(before))
        line = self.lines[kept]
        self._starts[line[0]] = self._ends[line[-1]] = kept


def simplified(points: Points, tolerance: float) -> Points:
    """Those of the points [N, 2] of a line without which it would leave itself by more than
    ``tolerance`` (Douglas and Peucker 1973); the first and the last one are among them."""
    kept = np.zeros(len(points), dtype=bool)
    kept[[0, -1]] = True
    spans = [(0, len(points) - 1)]
    while spans:
        start, end = spans.pop()
        away = _distances(points[start + 1 : end], points[start], points[end])
        if len(away) and away.max() > tolerance:
            middle = start + int(away.argmax()) + 1
            kept[middle] = True
            spans += [(middle, end), (start, middle)]
    return points[kept]


def _distances(
    points: NDArray[np.float64], start: NDArray[np.float64], end: NDArray[np.float64]
) -> NDArray[np.float64]:
    """How far points [N, 2] lie from the segment between two points: [N]."""
    along, left, right = end - start, points - start, points - end
    angle = -np.arctan2(along[0], along[1])
    offset = start[1] * np.sin(angle) + start[0] * np.cos(angle)
    beside = np.abs(points[:, 0] * np.cos(angle) + points[:, 1] * np.sin(angle) - offset)
    ends = np.minimum(np.sqrt((left**2).sum(1)), np.sqrt((right**2).sum(1)))
    within = (left @ along > 0) & (-right @ along > 0)
    found: NDArray[np.float64] = np.where(within, beside, ends)
    return found


def contour(mask: NDArray[np.bool_]) -> list[tuple[float, float]]:
    """The outer border of a region [H, W] as points (x, y) in pixels from its corner, to be
    closed.

    A large region is reduced to a grid of at most :data:`SIDE` cells a side first: the points then
    lie within a cell of the border.
    """
    step = -(-max(mask.shape) // SIDE)
    # A frame of sound pixels closes the border of what touches the edge.
    found = lines(np.pad(mask[step // 2 :: step, step // 2 :: step], 1))
    if not found:  # thinner than a cell: its box is all there is to say
        height, width = map(float, mask.shape)
        return [(0.0, 0.0), (width, 0.0), (width, height), (0.0, height)]
    points = simplified(max(found, key=len), TOLERANCE)[:-1] - 0.5  # cell centres lie at .5
    limits = np.array(mask.shape, dtype=np.float64)
    return [(float(x), float(y)) for y, x in np.clip(points * step, 0, limits)]

"""Tiles that cover a picture, and how their maps are put together.  Numpy alone.

Where tiles overlap, their maps are blended by weights that fall smoothly to nothing at the seam and
add up to one, so that a seam leaves no edge.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from zsad.runtime.enlarging import enlarged

OVERLAP = 0.25  # of a tile's side, at least
MOST_AUTO = 256  # tiles of a picture that `auto` chooses
Span = tuple[int, int]  # from, to (exclusive), pixels
Box = tuple[int, int, int, int]  # left, top, right, bottom, pixels


def cut(tiles: int | Literal["auto"], height: int, width: int, side: int) -> Grid:
    """The tiles of a picture, for a model with an input of ``side`` pixels: ``tiles`` along its
    longer side (0 and 1: the whole picture), or such as are as large as the input."""
    if tiles in (0, 1):
        return Grid.of(height, width, max(height, width))
    if tiles == "auto":
        size = side
        while len(Grid.of(height, width, size)) > MOST_AUTO:
            size = math.ceil(size * 1.05)
    else:
        size = math.ceil(max(height, width) / (1 + (int(tiles) - 1) * (1 - OVERLAP)))
    return Grid.of(height, width, size)


@dataclass(frozen=True)
class Grid:
    """Tiles of a picture: every span of ``rows`` with every span of ``columns``."""

    rows: tuple[Span, ...]
    columns: tuple[Span, ...]

    @classmethod
    def of(cls, height: int, width: int, side: int) -> Grid:
        """Tiles of ``side`` pixels, or of the picture's own side where that is smaller."""
        return cls(spans(height, side), spans(width, side))

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)

    def scaled(self, factor: float) -> Grid:
        """The same tiles of a picture that is smaller by ``factor`` (0..1), of a pixel at least."""

        def of(cover: tuple[Span, ...]) -> tuple[Span, ...]:
            ends = [(round(start * factor), round(end * factor)) for start, end in cover]
            return tuple((start, max(start + 1, end)) for start, end in ends)

        return Grid(of(self.rows), of(self.columns))

    @property
    def boxes(self) -> list[Box]:
        """(left, top, right, bottom) of every tile in pixels, row by row."""
        return [
            (left, top, right, bottom) for top, bottom in self.rows for left, right in self.columns
        ]


def spans(length: int, side: int) -> tuple[Span, ...]:
    """Cover ``length`` pixels evenly with spans of ``side``, each sharing at least
    :data:`OVERLAP` of itself with the next."""
    if length <= side:
        return ((0, length),)
    step = max(1, math.floor(side * (1 - OVERLAP)))
    count = math.ceil((length - side) / step) + 1
    starts = [round(i * (length - side) / (count - 1)) for i in range(count)]
    return tuple((start, start + side) for start in starts)


def weights(cover: Sequence[Span]) -> list[NDArray[np.float32]]:
    """The weight of each span at each of its pixels; over all spans they add up to one.

    A span rises and falls over what it shares with its neighbours as sin² does.
    """
    length = cover[-1][1]
    total = np.zeros(length)
    found = []
    for i, (start, end) in enumerate(cover):
        weight = np.ones(end - start)
        if i and (shared := cover[i - 1][1] - start) > 0:
            weight[:shared] *= _rise(shared)
        if i + 1 < len(cover) and (shared := end - cover[i + 1][0]) > 0:
            weight[-shared:] *= _rise(shared)[::-1]
        total[start:end] += weight
        found.append(weight)
    return [
        (weight / total[start:end]).astype(np.float32) for weight, (start, end) in zip(found, cover)
    ]


def _rise(count: int) -> NDArray[np.float64]:
    return np.asarray(np.sin(np.pi / 2 * (np.arange(count) + 0.5) / count) ** 2)


class Joined:
    """The maps of tiles, put together as they come, at the scale at which the model sees them.

    ``side``: pixels of the model's input.
    """

    def __init__(self, grid: Grid, side: int) -> None:
        height, width = grid.rows[0][1] - grid.rows[0][0], grid.columns[0][1] - grid.columns[0][0]
        self.grid = grid.scaled(min(1.0, side / max(height, width)))
        height, width = self.grid.rows[-1][1], self.grid.columns[-1][1]
        self.values: NDArray[np.float32] = np.zeros((height, width), dtype=np.float32)
        self._down, self._across = weights(self.grid.rows), weights(self.grid.columns)

    def add(self, index: int, values: NDArray[np.float32]) -> None:
        """Add the map of tile ``index``, of any size, stretched over the tile."""
        row, column = divmod(index, len(self.grid.columns))
        (top, bottom), (left, right) = self.grid.rows[row], self.grid.columns[column]
        part = enlarged(values, (bottom - top, right - left)) * self._down[row][:, None]
        part *= self._across[column][None]
        self.values[top:bottom, left:right] += part

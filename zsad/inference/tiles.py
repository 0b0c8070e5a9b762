"""How pictures are shown to the model: whole, in tiles, or in their own proportions.

**Tiles** cover a picture with overlapping squares, so that small defects of large pictures and both
ends of long ones are seen at a useful size.  The whole picture is looked at, too: the score is the
larger of its own and that of the best tile, and a pixel of the map the larger of the whole's and of
the tiles'.  Where tiles overlap, their maps are blended by weights that fall smoothly to nothing at
the seam and add up to one, so that a seam leaves no edge.

**Own proportions**: the picture is not squeezed into a square, but brought to about as many pixels
with its sides in proportion, each a whole number of patches.  Nothing is padded, so nothing but the
picture enters map and score, and a square picture is treated as ever.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from zsad.errors import RequestError
from zsad.runtime.enlarging import enlarged
from zsad.types import Boxes, Explanation

OVERLAP = 0.25  # of a tile's side, at least
MOST_ALONG = 64  # tiles along the longer side
MOST_AUTO = 256  # tiles of a picture that `auto` chooses
LEAST_PATCHES = 4  # along the shorter side, in own proportions: windows of patches must fit
Span = tuple[int, int]  # from, to (exclusive), pixels
Box = tuple[int, int, int, int]  # left, top, right, bottom, pixels


@dataclass(frozen=True)
class Framing:
    """``tiles``: along the longer side of a picture; 0 and 1: none; ``auto``: tiles of the model's
    input size, larger ones where that makes more than :data:`MOST_AUTO`.  ``keep_aspect``: own
    proportions, of pictures and tiles.  ``bits``: that deep files use, such as 12 of 16; 0: as many
    as they hold.  Raises :class:`RequestError` for other values."""

    tiles: int | Literal["auto"] = 0
    keep_aspect: bool = False
    bits: int = 0

    def __post_init__(self) -> None:
        count = self.tiles
        if count == "auto" or (isinstance(count, int) and 0 <= count <= MOST_ALONG):
            return
        raise RequestError(
            f"--tiles {count}: give auto, or the number of tiles along the longer side, "
            f"up to {MOST_ALONG}"
        )

    @classmethod
    def of(cls, tiles: int | str | None, keep_aspect: bool = False, bits: int = 0) -> Framing:
        """Take the words of the command line: ``"4"``, ``"auto"``, None."""
        try:
            count = tiles if tiles == "auto" else int(tiles or 0)
        except ValueError:
            count = -1
        if count == -1:
            raise RequestError(f"--tiles {tiles}: give auto, or a whole number such as 4")
        return cls(count, bool(keep_aspect), bits)  # type: ignore[arg-type]

    def identity(self) -> dict[str, Any]:
        """What thresholds depend on; {} for whole pictures in a square."""
        found: dict[str, Any] = {}
        if self.tiled:
            found["tiles"] = self.tiles
        if self.keep_aspect:
            found["keep_aspect"] = True
        if self.bits:
            found["bits"] = self.bits
        return found

    @property
    def tiled(self) -> bool:
        """Whether pictures may be cut."""
        return self.tiles not in (0, 1)

    def cut(self, height: int, width: int, side: int) -> Grid:
        """The tiles of a picture, for a model with an input of ``side`` pixels."""
        if not self.tiled:
            return Grid.of(height, width, max(height, width))
        longer = max(height, width)
        if self.tiles == "auto":
            size = side
            while len(Grid.of(height, width, size)) > MOST_AUTO:
                size = math.ceil(size * 1.05)
        else:
            size = math.ceil(longer / (1 + (int(self.tiles) - 1) * (1 - OVERLAP)))
        return Grid.of(height, width, size)

    def input_size(self, height: int, width: int, side: int, patch: int) -> tuple[int, int]:
        """Height and width in pixels at which the model sees a picture: ``side`` x ``side``, or in
        own proportions about as many pixels, whole patches each way.

        A picture that is longer than :data:`LEAST_PATCHES` rows of patches allow is squeezed to
        that; tiles are the way for such."""
        if not self.keep_aspect or height == width:
            return side, side
        patches = side / patch
        ratio = math.sqrt(height / width)
        most = int(patches**2 // LEAST_PATCHES)
        rows, columns = (
            max(min(LEAST_PATCHES, round(patches)), min(most, round(patches * r)))
            for r in (ratio, 1 / ratio)
        )
        if rows == columns:
            return side, side
        return rows * patch, columns * patch


WHOLE = Framing()


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


# --------------------------------------------------------------- between whole and tile
def boxes_in(boxes: Boxes | None, tile: Box, size: tuple[int, int]) -> Boxes | None:
    """A detector's answer for the whole picture, (height, width) ``size``, as one for a tile: what
    of each box lies in it, in fractions of the tile."""
    if boxes is None:
        return None
    left, top, right, bottom = tile
    height, width = size
    kept = []
    for i, (cx, cy, w, h) in enumerate(boxes.boxes):
        x0, x1 = (max(left, (cx - w / 2) * width), min(right, (cx + w / 2) * width))
        y0, y1 = (max(top, (cy - h / 2) * height), min(bottom, (cy + h / 2) * height))
        if x0 < x1 and y0 < y1:
            across, down = right - left, bottom - top
            inside = [(x0 + x1) / 2 - left, (y0 + y1) / 2 - top, x1 - x0, y1 - y0]
            scale = [across, down, across, down]
            kept.append((i, [v / s for v, s in zip(inside, scale)]))
    return Boxes(
        [box for _, box in kept],
        [boxes.scores[i] for i, _ in kept],
        [boxes.phrases[i] for i, _ in kept],
    )


def reasons_of_tile(
    reasons: Sequence[Explanation], tile: Box, size: tuple[int, int]
) -> list[Explanation]:
    """The reasons for a tile's score, with regions as fractions of the whole picture; the tile
    itself where a reason names none."""
    left, top, right, bottom = tile
    height, width = size
    for reason in reasons:
        x0, y0, x1, y1 = reason.region or (0.0, 0.0, 1.0, 1.0)
        reason.region = (
            (left + x0 * (right - left)) / width,
            (top + y0 * (bottom - top)) / height,
            (left + x1 * (right - left)) / width,
            (top + y1 * (bottom - top)) / height,
        )
        reason.note = f"{reason.note}; in the tile that scores highest".removeprefix("; ")
    return list(reasons)

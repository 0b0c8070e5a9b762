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

from zsad.errors import RequestError
from zsad.runtime.tiles import Box, Grid, cut
from zsad.types import Explanation

MOST_ALONG = 64  # tiles along the longer side
LEAST_PATCHES = 4  # along the shorter side, in own proportions: windows of patches must fit


@dataclass(frozen=True)
class Framing:
    """``tiles``: along the longer side of a picture; 0 and 1: none; ``auto``: tiles of the model's
    input size, larger ones where that makes more than :data:`zsad.runtime.tiles.MOST_AUTO`.
    ``keep_aspect``: own proportions, of pictures and tiles.  ``bits``: that deep files use, such as
    12 of 16; 0: as many as they hold.  Raises :class:`RequestError` for other values."""

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
        """Take the words of the command line: ``"4"``, ``"auto"``, None.  Raises
        :class:`RequestError` for a word that changes nothing, too."""
        if tiles in ("0", "1"):
            raise RequestError(
                f"--tiles {tiles}: changes nothing; give 2 or more, or auto, or leave it out"
            )
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
        return cut(self.tiles, height, width, side)

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

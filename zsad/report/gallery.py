"""What the page compares picture by picture: scores of all methods, small pictures and maps.

A category's small pictures lie on one sheet, each method's maps on another.  Maps of different
methods have different units; what they share is a rank.  So a map's grey says how rare its value is
among all pixels of the category by the same method: :data:`DECADES` steps of ten from "everywhere"
to "one pixel in a thousand".  That is one scale for all methods.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zsad.results import gallery
from zsad.results.examples import CellExamples
from zsad.results.gallery import MapGallery
from zsad.results.store import ResultStore

DECADES = 3.0
STEPS = 24  # of grey: more would not be seen, and would take room
COLUMNS = 8  # of a sheet
PICTURE_SIDE = 112  # pixels
QUALITY = 50
MOST_LISTED = 1000  # pictures of a category whose scores are on the page
MOST_PICTURES = 1200  # small pictures on a page


def of_category(
    store: ResultStore, dataset: str, category: str, uids: Sequence[str], most: int
) -> dict[str, Any]:
    """The sheet of small pictures of a category: of ``uids``, at most ``most``; ``tiles``: the
    place on the sheet of each of ``uids``, -1 for none."""
    held = gallery.load(store.root, dataset, category)
    shown = [uid for uid in uids if uid in held][:most]
    place = {uid: i for i, uid in enumerate(shown)}
    tiles = [place.get(uid, -1) for uid in uids]
    if not shown:
        return {"sheet": "", "tiles": tiles, "columns": COLUMNS}
    pictures = [np.asarray(_opened(held[uid])) for uid in shown]
    return {"sheet": _uri(_sheet(pictures), "WEBP"), "tiles": tiles, "columns": COLUMNS}


def of_cell(
    found: CellExamples, uids: Sequence[str], scores: Mapping[str, float], shown: set[str]
) -> dict[str, Any]:
    """A method's scores of ``uids`` (None where it has none) and its sheet of maps of ``shown``."""
    values = [scores.get(uid) for uid in uids]
    return {
        "scores": [None if v is None else float(f"{v:.6g}") for v in values],
        "maps": None if found.maps is None else _maps(found.maps, uids, shown),
    }


def _maps(held: MapGallery, uids: Sequence[str], shown: set[str]) -> dict[str, Any] | None:
    kept = [i for i, uid in enumerate(held.uids) if uid in shown]
    if not kept:
        return None
    grey = rarity(held.levels)[held.levels]
    place = {held.uids[i]: n for n, i in enumerate(kept)}
    return {
        "sheet": _uri(_sheet([grey[i] for i in kept]), "PNG"),
        "tiles": [place.get(uid, -1) for uid in uids],
        "columns": COLUMNS,
    }


def rarity(levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The grey of every level 0..255: how rare it is that a pixel reaches it, 0 for all pixels and
    255 for one in 10 to the power of :data:`DECADES`, in :data:`STEPS` steps."""
    counts = np.bincount(levels.ravel(), minlength=256)
    reached = counts[::-1].cumsum()[::-1] / levels.size  # share of pixels at or above a level
    decades = -np.log10(np.maximum(reached, 10**-DECADES)) / DECADES
    steps = np.round(decades * (STEPS - 1)) / (STEPS - 1)
    grey: NDArray[np.uint8] = np.round(255 * np.clip(steps, 0, 1)).astype(np.uint8)
    return grey


def _opened(jpeg: bytes) -> Image.Image:
    return Image.open(io.BytesIO(jpeg)).convert("RGB").resize((PICTURE_SIDE, PICTURE_SIDE))


def _sheet(tiles: Sequence[NDArray[np.uint8]]) -> Image.Image:
    """Tiles of one size side by side, row by row."""
    height, width = tiles[0].shape[:2]
    rows = math.ceil(len(tiles) / COLUMNS)
    canvas = np.zeros((rows * height, COLUMNS * width, *tiles[0].shape[2:]), np.uint8)
    for i, tile in enumerate(tiles):
        top, left = (i // COLUMNS) * height, (i % COLUMNS) * width
        canvas[top : top + height, left : left + width] = tile
    return Image.fromarray(canvas)


def _uri(sheet: Image.Image, kind: str) -> str:
    buffer = io.BytesIO()
    if kind == "PNG":
        sheet.quantize(STEPS + 1).save(buffer, kind, optimize=True)
    else:
        sheet.save(buffer, kind, quality=QUALITY, method=6)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"

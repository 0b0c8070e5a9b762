"""Example pictures as the page needs them: each picture once, heat maps and outlines apart.

The browser lays the heat map over the picture and draws the outline, so a picture that several
methods show is stored once, and the reader can fade the heat map.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from zsad.results import heatmaps
from zsad.results.examples import Example

HEAT_SIDE = 112  # pixels of an embedded heat map: finer than any patch grid
TOLERANCE = 0.6  # pixels by which a drawn outline may leave the mask's border
# What teaches most comes first, where there is no room for all.
IMPORTANCE = ("missed", "false alarm", "detected", "clean")
MOST = 1200  # example pictures on a page, about 15 MB


class PictureShelf:
    """Collects pictures; equal ones get one place.  ``uris``: data URIs by name."""

    def __init__(self) -> None:
        self.uris: dict[str, str] = {}

    def put(self, jpeg: bytes) -> str:
        """Keep a picture and return its name."""
        name = hashlib.sha256(jpeg).hexdigest()[:16]
        self.uris.setdefault(name, data_uri(jpeg))
        return name


def choose(examples: Sequence[Example], most: int) -> list[Example]:
    """The ``most`` examples of a cell that teach most, in the order in which they are shown."""
    rank = {kind: i for i, kind in enumerate(IMPORTANCE)}
    kept = sorted(examples, key=lambda e: (rank.get(e.kind, 9), e.uid))[:most]
    shown = {kind: i for i, kind in enumerate(("detected", "missed", "false alarm", "clean"))}
    return sorted(kept, key=lambda e: (shown.get(e.kind, 9), e.uid))


def colour_range(examples: Sequence[Example]) -> tuple[float, float]:
    """One colour range for all pictures of a cell, so that they can be compared."""
    if not examples:
        return 0.0, 1.0
    low = min(float(e.map.min()) for e in examples)
    high = max(float(e.map.max()) for e in examples)
    return low, high if high > low else low + 1.0


def heat_uri(values: np.ndarray, low: float, high: float) -> str:
    """A map [H, W] in colours as a small data URI."""
    picture = Image.fromarray(heatmaps.heat(values, low, high))
    picture.thumbnail((HEAT_SIDE, HEAT_SIDE), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return data_uri(buffer.getvalue())


def outline(mask: np.ndarray | None) -> str:
    """The border of a mask [H, W] as an SVG path in its pixels; "" where nothing is marked."""
    if mask is None or not mask.any():
        return ""
    from skimage.measure import approximate_polygon, find_contours

    # A frame of sound pixels closes the border of what touches the edge of the picture.
    framed = np.pad(mask.astype(np.float32), 1)
    parts = []
    for line in find_contours(framed, 0.5):
        points = approximate_polygon(line, TOLERANCE) - 0.5  # pixel centres lie at .5
        steps = " ".join(f"{x:.4g} {y:.4g}" for y, x in points[:-1])
        parts.append(f"M{steps}Z")
    return "".join(parts)


def as_data(
    example: Example, low: float, high: float, rivals: np.ndarray, shelf: PictureShelf
) -> dict[str, Any]:
    """An example ready for JSON.  ``rivals``: scores of the images with the other label."""
    return {
        "uid": example.uid,
        "kind": example.kind,
        "label": example.label,
        "defect": example.defect,
        "score": example.score,
        "above": [int((rivals < example.score).sum()), len(rivals)],
        "side": list(example.map.shape[::-1]),
        "picture": shelf.put(example.jpeg),
        "heat": heat_uri(example.map, low, high),
        "outline": outline(example.mask),
        "explanations": [
            {
                "text": e.text,
                "similarity": e.similarity,
                "label": e.label,
                "source": e.source,
                "note": e.note,
                "region": e.region,
            }
            for e in example.explanations
        ],
    }


def data_uri(jpeg: bytes) -> str:
    """A JPEG as text that a page can hold."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")

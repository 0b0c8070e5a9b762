"""From a detector's raw answer to kept boxes and a position (section 3.3.1 and 3.3.2).

``exact``: boxes above the threshold and smaller than the area limit, or else the best one;
those whose phrase names something that was asked for; the best one's centre names the cell
floor(3 x), floor(3 y) of the 3x3 grid.

``released``: the published test script (commit 36ff29c), number by number.  Its table of cells
is made for 518 pixels whatever the image size and has gaps of a pixel between cells, scores are
cut to two decimals before they are compared, the later of equals wins, phrases are compared with
case, and an image whose boxes are all dropped is suppressed as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from zsad.methods.filo.config import Grounding
from zsad.types import Boxes

CENTER = 4  # index of the centre cell
CELLS_518 = ((0, 172), (173, 344), (345, 517))  # released table, pixels, both ends included
NOTHING = [0.5, 0.5, 0.0, 0.0]  # a box without extent protects no pixel


@dataclass(frozen=True)
class Located:
    """``kept``: the boxes that protect the map, None for no suppression.  ``position``: index of
    the cell of the best box, or None: all nine.  ``best``: its (box, score, phrase)."""

    kept: Boxes | None = None
    position: int | None = None
    best: tuple[list[float], float, str] | None = None


def locate(
    boxes: Boxes | None,
    asked: Sequence[str],
    options: Grounding,
    arithmetic: Literal["exact", "released"],
    image_size: int,
) -> Located:
    """Filter one image's detections.  ``asked``: words of which a phrase must contain one;
    ``image_size``: pixels of the working image (``released`` only)."""
    if boxes is None or not boxes.boxes:
        return Located()
    chosen = _threshold(boxes, options)
    if arithmetic == "released":
        return _released(boxes, chosen, asked, options, image_size)
    if options.phrase_filter:
        words = [_plain(a) for a in asked]
        chosen = [i for i in chosen if any(w in _plain(boxes.phrases[i]) for w in words)]
    if not chosen:
        return Located()
    best = max(chosen, key=lambda i: boxes.scores[i])
    kept = Boxes(
        [boxes.boxes[i] for i in chosen],
        [boxes.scores[i] for i in chosen],
        [boxes.phrases[i] for i in chosen],
    )
    column, row = (min(2, max(0, int(3 * c))) for c in boxes.boxes[best][:2])
    return Located(kept, 3 * row + column, _answer(boxes, best))


def _threshold(boxes: Boxes, options: Grounding) -> list[int]:
    """Indices above the score threshold and below the area limit, or the highest score."""
    wide = np.asarray(boxes.boxes, dtype=np.float32)
    scores = np.asarray(boxes.scores, dtype=np.float32)
    small = wide[:, 2] * wide[:, 3] < np.float32(options.area)
    found = np.flatnonzero((scores > np.float32(options.box_threshold)) & small)
    return found.tolist() if len(found) else [int(scores.argmax())]


def _released(
    boxes: Boxes, chosen: list[int], asked: Sequence[str], options: Grounding, image_size: int
) -> Located:
    # The released script reads the phrase off the tokens above a threshold, and passes the box
    # threshold for it, so a box that is only the fallback has an empty phrase.
    def named(i: int) -> bool:
        above = boxes.scores[i] > options.box_threshold
        return above and any(a in boxes.phrases[i] for a in asked)

    accepted = [i for i in chosen if named(i)] if options.phrase_filter else chosen
    best: int | None = None
    for i in accepted:
        if best is None or _cut(boxes.scores[i]) >= _cut(boxes.scores[best]):
            best = i
    kept = Boxes(
        [boxes.boxes[i] if i in accepted else NOTHING for i in chosen],
        [boxes.scores[i] for i in chosen],
        [boxes.phrases[i] for i in chosen],
    )
    if best is None:
        return Located(kept, CENTER)
    return Located(kept, _cell_518(boxes.boxes[best], image_size), _answer(boxes, best))


def _cell_518(box: Sequence[float], image_size: int) -> int | None:
    """The released table's cell of a box' centre, computed from its corners in float32."""
    scaled = np.asarray(box, dtype=np.float32) * np.float32(image_size)
    first = scaled[:2] - scaled[2:] / np.float32(2)
    centre = (first + (scaled[2:] + first)) / np.float32(2)
    cells = [
        next((k for k, (low, high) in enumerate(CELLS_518) if low <= c <= high), None)
        for c in centre
    ]
    column, row = cells
    return None if column is None or row is None else 3 * row + column


def _cut(score: float) -> float:
    """The score as the released script reads it back from text: four characters of it."""
    text = str(np.float32(score).item())[:4]
    return float(text) if "e" not in text else 0.0


def _answer(boxes: Boxes, i: int) -> tuple[list[float], float, str]:
    return boxes.boxes[i], boxes.scores[i], " ".join(boxes.phrases[i].split())


def _plain(text: str) -> str:
    return " ".join(text.lower().split())

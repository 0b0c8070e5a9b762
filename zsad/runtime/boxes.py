"""A detector's boxes: which of them count, where they lie, what they cover.  Numpy alone.

Methods and the packages of methods share these rules.  ``exact``: boxes above the threshold and
smaller than the area limit, or else the best one; those whose phrase names something that was asked
for; the best one's centre names the cell floor(3 x), floor(3 y) of the 3x3 grid.

``released``: FiLo's published test script (commit 36ff29c), number by number.  Its table of cells
is made for 518 pixels whatever the image size and has gaps of a pixel between cells, scores are
cut to two decimals before they are compared, the later of equals wins, phrases are compared with
case, and an image whose boxes are all dropped is suppressed as a whole.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from zsad.errors import DataError, RequestError, counted, reason
from zsad.strict_json import parse_json

if TYPE_CHECKING:
    from PIL.Image import Image

CELLS = 9  # of the 3x3 grid, in raster order
CENTER = 4  # index of the centre cell
CELLS_518 = ((0, 172), (173, 344), (345, 517))  # released table, pixels, both ends included
NOTHING = [0.5, 0.5, 0.0, 0.0]  # a box without extent protects no pixel
MOST_FILE = 256 * 2**20  # bytes
Arithmetic = Literal["exact", "released"]


class Detections(Protocol):
    """A detector's answer: ``boxes`` [N, 4] = cx, cy, w, h in fractions of the image."""

    def __init__(
        self, boxes: list[list[float]], scores: list[float], phrases: list[str]
    ) -> None: ...
    @property
    def boxes(self) -> list[list[float]]: ...
    @property
    def scores(self) -> list[float]: ...
    @property
    def phrases(self) -> list[str]: ...


DetectionsT = TypeVar("DetectionsT", bound=Detections)


class Answer(NamedTuple):
    """A detector's answer, as :class:`Detections`."""

    boxes: list[list[float]]
    scores: list[float]
    phrases: list[str]


@dataclass(frozen=True)
class BoxRule:
    """Which boxes count.  ``asked``: words of which a phrase must contain one, with
    ``phrase_filter``; a box needs a score above ``box_threshold`` and less than ``area`` of the
    image.  ``required``: a picture without an answer is an error."""

    asked: tuple[str, ...]
    box_threshold: float
    area: float
    phrase_filter: bool
    arithmetic: Arithmetic
    required: bool = False

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> BoxRule:
        """Take a rule from a package's description.  Raises ``ValueError``."""
        found = cls(**{**told, "asked": tuple(map(str, told["asked"]))})
        if found.arithmetic not in ("exact", "released"):
            raise ValueError(f"arithmetic {found.arithmetic!r}")
        for number in (found.box_threshold, found.area):
            if isinstance(number, (bool, str)) or not math.isfinite(float(number)):
                raise ValueError(f"threshold of boxes {number!r}")
        return found


@dataclass(frozen=True)
class Located(Generic[DetectionsT]):
    """``kept``: the boxes that protect the map, None for no suppression.  ``position``: index of
    the cell of the best box, or None: all nine.  ``best``: its (box, score, phrase)."""

    kept: DetectionsT | None = None
    position: int | None = None
    best: tuple[list[float], float, str] | None = None


# -------------------------------------------------------------------------- which ones count
def locate(found: DetectionsT | None, rule: BoxRule, image_size: int) -> Located[DetectionsT]:
    """Filter one image's detections.  ``image_size``: pixels of the working image (``released``
    only)."""
    if found is None or not found.boxes:
        return Located()
    chosen = _above(found, rule)
    if rule.arithmetic == "released":
        return _released(found, chosen, rule, image_size)
    if rule.phrase_filter:
        words = [_plain(a) for a in rule.asked]
        chosen = [i for i in chosen if any(w in _plain(found.phrases[i]) for w in words)]
    if not chosen:
        return Located()
    best = max(chosen, key=lambda i: found.scores[i])
    kept = type(found)(
        [found.boxes[i] for i in chosen],
        [found.scores[i] for i in chosen],
        [found.phrases[i] for i in chosen],
    )
    column, row = (min(2, max(0, int(3 * c))) for c in found.boxes[best][:2])
    return Located(kept, 3 * row + column, _answer(found, best))


def _above(found: Detections, rule: BoxRule) -> list[int]:
    """Indices above the score threshold and below the area limit, or the highest score."""
    wide = np.asarray(found.boxes, dtype=np.float32)
    scores = np.asarray(found.scores, dtype=np.float32)
    small = wide[:, 2] * wide[:, 3] < np.float32(rule.area)
    chosen = np.flatnonzero((scores > np.float32(rule.box_threshold)) & small)
    return chosen.tolist() if len(chosen) else [int(scores.argmax())]


def _released(
    found: DetectionsT, chosen: list[int], rule: BoxRule, image_size: int
) -> Located[DetectionsT]:
    # The released script reads the phrase off the tokens above a threshold, and passes the box
    # threshold for it, so a box that is only the fallback has an empty phrase.
    def named(i: int) -> bool:
        above = found.scores[i] > rule.box_threshold
        return above and any(a in found.phrases[i] for a in rule.asked)

    accepted = [i for i in chosen if named(i)] if rule.phrase_filter else chosen
    best: int | None = None
    for i in accepted:
        if best is None or _cut(found.scores[i]) >= _cut(found.scores[best]):
            best = i
    kept = type(found)(
        [found.boxes[i] if i in accepted else NOTHING for i in chosen],
        [found.scores[i] for i in chosen],
        [found.phrases[i] for i in chosen],
    )
    if best is None:
        return Located(kept, CENTER)
    return Located(kept, _cell_518(found.boxes[best], image_size), _answer(found, best))


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


def _answer(found: Detections, i: int) -> tuple[list[float], float, str]:
    return found.boxes[i], found.scores[i], " ".join(found.phrases[i].split())


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


# ------------------------------------------------------------------------------ where they lie
def in_tile(
    found: DetectionsT | None, tile: tuple[int, int, int, int], size: tuple[int, int]
) -> DetectionsT | None:
    """An answer for the whole picture, (height, width) ``size``, as one for a tile (left, top,
    right, bottom): what of each box lies in it, in fractions of the tile."""
    if found is None:
        return None
    left, top, right, bottom = tile
    height, width = size
    kept = []
    for i, (cx, cy, w, h) in enumerate(found.boxes):
        x0, x1 = (max(left, (cx - w / 2) * width), min(right, (cx + w / 2) * width))
        y0, y1 = (max(top, (cy - h / 2) * height), min(bottom, (cy + h / 2) * height))
        if x0 < x1 and y0 < y1:
            across, down = right - left, bottom - top
            inside = [(x0 + x1) / 2 - left, (y0 + y1) / 2 - top, x1 - x0, y1 - y0]
            scale = [across, down, across, down]
            kept.append((i, [v / s for v, s in zip(inside, scale)]))
    return type(found)(
        [box for _, box in kept],
        [found.scores[i] for i, _ in kept],
        [found.phrases[i] for i, _ in kept],
    )


def shares(position: int | None) -> NDArray[np.float32]:
    """The weight [9] of each cell: all of it for one cell, equal ones for None."""
    if position is None:
        return np.full(CELLS, 1 / CELLS, np.float32)
    chosen: NDArray[np.float32] = np.eye(CELLS, dtype=np.float32)[position]
    return chosen


# ------------------------------------------------------------------------------ what they cover
def coverage(
    boxes: Sequence[Sequence[float]], height: int, width: int, arithmetic: Arithmetic
) -> NDArray[np.float64]:
    """The share of each pixel [H, W] that the union of boxes (cx, cy, w, h) covers.

    ``exact``: by area.  ``released``: FiLo's integer rectangles, corners cut towards zero; a
    negative corner counts from the far end as a Python index does.
    """
    sides = np.array([width, height, width, height], dtype=np.float32)
    corners = np.asarray(boxes, dtype=np.float32).reshape(-1, 4) * sides
    if arithmetic == "released":
        return _integer_union(corners, height, width)
    return _exact_union(corners.astype(np.float64), height, width)


def _exact_union(boxes: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """The edges of all boxes cut the plane into cells that are wholly inside or outside the union;
    each axis' overlaps of pixels with cells then add up to areas."""
    half = boxes[:, 2:] / 2
    left, top = (boxes[:, :2] - half).T
    right, bottom = (boxes[:, :2] + half).T
    xs, ys = np.unique(np.concatenate([left, right])), np.unique(np.concatenate([top, bottom]))
    in_x = (left[:, None] <= xs[:-1]) & (right[:, None] >= xs[1:])  # [N, cells]
    in_y = (top[:, None] <= ys[:-1]) & (bottom[:, None] >= ys[1:])
    inside = (in_y[:, :, None] & in_x[:, None, :]).any(0).astype(np.float64)
    covered: NDArray[np.float64] = _overlaps(ys, height) @ inside @ _overlaps(xs, width).T
    return covered


def _overlaps(edges: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """The length that pixel i (from i to i + 1) shares with each cell: [side, cells]."""
    pixels = np.arange(side, dtype=np.float64)[:, None]
    low = np.maximum(pixels, edges[None, :-1])
    high = np.minimum(pixels + 1, edges[None, 1:])
    shared: NDArray[np.float64] = np.maximum(high - low, 0)
    return shared


def _integer_union(boxes: NDArray[np.float32], height: int, width: int) -> NDArray[np.float64]:
    """1 inside released FiLo's integer rectangles, 0 outside."""
    covered = np.zeros((height, width))
    first = boxes[:, :2] - boxes[:, 2:] / 2
    last = boxes[:, 2:] + first
    for (left, top), (right, bottom) in zip(first.tolist(), last.tolist()):
        covered[int(top) : int(bottom), int(left) : int(right)] = 1
    return covered


# --------------------------------------------------------------------------------- their files
class BoxAnswers(Generic[DetectionsT]):
    """Answers by picture, as a JSON file has them: ``{name: {"boxes": [[cx, cy, w, h]],
    "scores": [...], "phrases": [...]}}``.  Names are those that ``zsad predict`` looks up: the path
    of a picture, its file name, or the SHA-256 of its pixels."""

    def __init__(self, answers: Mapping[str, DetectionsT]) -> None:
        self._answers = dict(answers)

    def __len__(self) -> int:
        return len(self._answers)

    @classmethod
    def of_json(cls, told: Any, kind: type[DetectionsT]) -> BoxAnswers[DetectionsT]:
        """Take what JSON says, as answers of a ``kind``.  Raises ``ValueError`` that names the
        picture."""
        if not isinstance(told, dict):
            raise ValueError("must map image names to boxes, scores and phrases")
        found = {}
        for name, value in told.items():
            try:
                found[str(name)] = _checked(value, kind)
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(
                    f"'{name}' needs lists boxes, scores and phrases ({reason(error)})"
                ) from None
        return cls(found)

    def find(self, names: Sequence[str]) -> DetectionsT | None:
        """The answer under the first of ``names`` that there is."""
        return next((self._answers[name] for name in names if name in self._answers), None)

    def of(self, path: str, picture: Image) -> DetectionsT | None:
        """The answer for an RGB picture; ``path``: "" for one without a file."""
        names = [name for name in (path, Path(path).name if path else "") if name]
        return self.find(names) or self.find([picture_digest(picture)])


def read_answers(path: Path | str) -> BoxAnswers[Answer]:
    """Read a file of answers.  Raises :class:`RequestError` that names the file and the picture."""
    try:
        if Path(path).stat().st_size > MOST_FILE:
            raise RequestError(f"--boxes {path}: more than {MOST_FILE:,} bytes")
        # Editors of Windows put a byte-order mark in front.
        text = Path(path).read_text(encoding="utf-8-sig")
        return BoxAnswers.of_json(parse_json(text, f"--boxes {path}"), Answer)
    except OSError as error:
        raise RequestError(f"--boxes {path}: cannot be read ({error.strerror})") from None
    except DataError as error:
        raise RequestError(str(error)) from None
    except ValueError as error:  # not UTF-8, or no answers
        raise RequestError(f"--boxes {path}: {error}") from None


def picture_digest(picture: Image) -> str:
    """SHA-256 of a picture's size and pixels."""
    content = f"{picture.mode}{picture.size}".encode() + picture.tobytes()
    return hashlib.sha256(content).hexdigest()


def _checked(told: Any, kind: type[DetectionsT]) -> DetectionsT:
    boxes = [[_number(n) for n in box] for box in _list(told["boxes"])]
    scores = [_number(n) for n in _list(told["scores"])]
    phrases = _list(told["phrases"])
    if not all(isinstance(p, str) for p in phrases):
        raise ValueError("phrases are texts")
    found = kind(boxes, scores, phrases)
    require_boxes(found)
    return found


def require_boxes(found: Detections) -> None:
    """Raise ``ValueError`` unless there is a score and a phrase per box, and every box may be one
    of a picture's."""
    if not len(found.boxes) == len(found.scores) == len(found.phrases):
        raise ValueError(
            f"{counted(len(found.boxes), 'box', 'boxes')}, "
            f"{counted(len(found.scores), 'score')} and "
            f"{counted(len(found.phrases), 'phrase')}; give one of each per box"
        )
    for box in found.boxes:
        if len(box) != 4 or not all(-1 <= x <= 2 for x in box):
            raise ValueError(f"{box} is not [cx, cy, w, h] in fractions of the image")


def _list(told: Any) -> list[Any]:
    if not isinstance(told, list):
        raise TypeError(f"{told!r} is not a list")
    return told


def _number(told: Any) -> float:
    if isinstance(told, bool) or not isinstance(told, (int, float)) or not math.isfinite(told):
        raise ValueError(f"{told!r} is not a number")
    return float(told)

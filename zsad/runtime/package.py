"""A package: one method for one class name, ready to score pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from zsad.errors import DataError, RequestError, reason
from zsad.runtime import package_file, regions
from zsad.runtime.boxes import (
    Answer,
    BoxAnswers,
    BoxRule,
    coverage,
    in_tile,
    locate,
    read_answers,
    shares,
)
from zsad.runtime.enlarging import enlarged
from zsad.runtime.graph import Session, open_graph, takes
from zsad.runtime.package_file import numbers
from zsad.runtime.pictures import Preprocess, open_picture
from zsad.runtime.thresholds import Thresholds, of_picture
from zsad.runtime.tiles import Joined, cut

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Found:
    """What is said of a picture.

    ``image_score``: higher is more anomalous; ``anomaly_map``: of the picture's size, float32
    [H, W]; ``values``: the map as the method made it; ``anomalous``: None without a threshold;
    ``regions``: where the map reaches its threshold, highest peak first, ``omitted`` more are not
    listed; ``share``: of the picture that all of them take, None where nothing is marked by rule.
    ``boxes``: how many boxes of a detector the picture has; None: none were asked for, or known.
    """

    image_score: float
    values: NDArray[np.float32]
    size: tuple[int, int]
    thresholds: Thresholds
    anomalous: bool | None
    regions: tuple[regions.Region, ...]
    omitted: int
    share: float | None
    boxes: int | None = None

    @property
    def anomaly_map(self) -> NDArray[np.float32]:
        return enlarged(self.values, self.size)

    @property
    def note(self) -> str:
        """What a reader of score and regions should know, or ""."""
        whole = bool(self.anomalous) and self.share is not None and not self.regions
        return regions.AS_A_WHOLE if whole else ""

    def plain(self) -> dict[str, Any]:
        """Ready for JSON, by the names that ``zsad predict`` uses."""
        return {
            "image_score": self.image_score,
            "anomalous": self.anomalous,
            "marked": self.share,
            "map_max": float(self.values.max()),
            "note": self.note or None,
            "regions": [r.plain() for r in self.regions],
            "regions_omitted": self.omitted,
            "thresholds": asdict(self.thresholds),
            **({} if self.boxes is None else {"boxes": self.boxes}),
        }


class Package:
    """What :func:`load` returns.  ``about``: everything that the package says of itself;
    ``runtime``: who runs it.  Not thread-safe."""

    def __init__(
        self, about: Mapping[str, Any], session: Session, boxes: BoxAnswers[Answer] | None = None
    ) -> None:
        self.about, self._session = dict(about), session
        self.runtime = session.runtime
        self._preprocess = Preprocess(about["preprocess"])
        told_of_boxes = about.get("boxes")
        self._rule = None if told_of_boxes is None else BoxRule.of(told_of_boxes)
        self._answers = boxes
        self._reads_text, self._marks = bool(about["reads_text"]), bool(about["marks_pixels"])
        self._tiles = tiling(about["tiles"])
        told = about["thresholds"]
        self._limits = None if told is None else limits_of(told)
        for name in ("title", "class_name", "mark"):
            if not isinstance(about[name], str):
                raise ValueError(f"{name} {about[name]!r}")

    @property
    def title(self) -> str:
        """Method and class name, and what has to be said wherever a result is shown."""
        mark = f" [{self.about['mark']}]" if self.about["mark"] else ""
        without = " (no boxes)" if self._rule and self._answers is None else ""
        return f"{self.about['title']}{without}, '{self.about['class_name']}'{mark}"

    def predict(self, picture: Any) -> Found:
        """Score a picture: a path, a PIL image or an array [H, W, 3] uint8.

        Raises :class:`DataError` for a picture that cannot be read or scored."""
        image = open_picture(picture, self._preprocess.stored)
        size = image.height, image.width
        answer = self._boxes_of(picture, image)
        score, values = self._seen(image, answer)
        grid = cut(self._tiles, *size, self._preprocess.size)
        if len(grid) > 1:  # the larger score, and in every place the larger value
            merged = Joined(grid, self._preprocess.size)
            for i, box in enumerate(grid.boxes):
                of_tile, part = self._seen(image.crop(box), in_tile(answer, box, size))
                merged.add(i, part)
                score = max(score, of_tile)
            values = np.maximum(enlarged(values, merged.values.shape), merged.values)
        found = self._found(score, values, size)
        return found if answer is None else replace(found, boxes=len(answer.boxes))

    def _boxes_of(self, picture: Any, image: Image) -> Answer | None:
        """The boxes of a picture; without an answer it goes without, unless some are required."""
        if self._rule is None or (self._answers is None and not self._rule.required):
            return None
        path = str(picture) if isinstance(picture, (str, Path)) else ""
        coloured = image if image.mode == "RGB" else image.convert("RGB")
        found = None if self._answers is None else self._answers.of(path, coloured)
        if found is None and self._rule.required:
            raise DataError(
                f"no boxes of {path or 'the picture'} are given, and the package asks for some"
            )
        return found

    def _seen(self, image: Image, answer: Answer | None) -> tuple[float, NDArray[np.float32]]:
        """The score and the map [S, S] of what is brought to the graph's square."""
        side = self._preprocess.size
        given = {"image": self._preprocess(image)}
        if self._rule is not None:
            place = locate(answer, self._rule, side)
            given["cells"] = shares(place.position)[None]
            covered = np.ones((side, side))
            if place.kept is not None and place.kept.boxes:
                covered = coverage(place.kept.boxes, side, side, self._rule.arithmetic)
            given["covered"] = covered[None].astype(np.float32)
        score, values = self._session(given)
        if score.shape != (1,) or values.shape != (1, side, side):
            raise DataError("the package's graph gives no score and map; export it again")
        if not (np.isfinite(score).all() and np.isfinite(values).all()):
            raise DataError("not-a-number in the map or score")
        return float(score[0]), values[0]

    def _found(self, score: float, values: NDArray[np.float32], size: tuple[int, int]) -> Found:
        limits = of_picture(self._limits, values, self._reads_text)
        if not self._marks:
            limits = replace(limits, pixel=None)
        anomalous = None if limits.image is None else score >= limits.image
        if limits.pixel is None:
            return Found(score, values, size, limits, anomalous, (), 0, None)
        listed, omitted, share = regions.find(enlarged(values, size), limits.pixel)
        return Found(score, values, size, limits, anomalous, listed, omitted, share)


def limits_of(told: Mapping[str, Any]) -> Thresholds:
    """The thresholds that a package says.  Raises ``TypeError`` or ``ValueError``."""
    found = Thresholds(**told)
    given = {name: value for name, value in told.items() if name != "rule" and value is not None}
    numbers([*given.values()], len(given))
    if any(isinstance(value, (bool, str)) for value in given.values()):
        raise ValueError(f"thresholds {given}")
    return found


def tiling(told: Any) -> int | Literal["auto"]:
    """How many tiles along the longer side a package says.  Raises ``ValueError``."""
    if told == "auto":
        return "auto"
    if isinstance(told, bool) or not isinstance(told, int) or not 0 <= told <= 64:
        raise ValueError(f"tiles {told!r}")
    return told


def load(
    path: Path | str,
    runtime: str | None = None,
    threads: int = 0,
    boxes: Path | str | None = None,
) -> Package:
    """Load a package.  ``runtime``: ``onnxruntime`` or ``openvino``, None: the first that is there;
    ``threads`` 0: all cores; ``boxes``: a JSON file of a detector's boxes by picture
    (:func:`zsad.runtime.boxes.read_answers`), for packages that take boxes.

    No code of the package runs, and its graph is bounded (:mod:`zsad.runtime.limits`).  Raises
    :class:`RequestError` for a file that is not one, was changed, or was written by a newer
    version, and where no runtime is installed.
    """
    contents = package_file.read(path)
    about = contents.manifest
    if boxes is not None and not about.get("boxes"):
        raise RequestError(f"--boxes {boxes}: {path} takes no boxes; leave the option out")
    answers = None if boxes is None else read_answers(boxes)
    try:
        size = Preprocess(about["preprocess"]).size
        inputs = takes(size, bool(about.get("boxes")))
        session = open_graph(str(path), about["format"], contents.parts, runtime, threads, inputs)
        return Package(about, session, answers)
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise RequestError(f"{path}: its description is incomplete ({reason(error)})") from None

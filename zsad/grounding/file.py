"""Boxes that were found before, as a JSON file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zsad.errors import DataError
from zsad.io import read_json, sha256_file
from zsad.types import Boxes


@dataclass(frozen=True)
class BoxFile:
    """Detections by image: ``{name: {"boxes": [[cx, cy, w, h]], "scores": [], "phrases": []}}``.

    Names are an image's uid (its path inside the dataset), ``dataset/uid``, a file name, or the
    SHA-256 of the image file.  Numbers are fractions of the image.
    """

    path: Path
    answers: Mapping[str, Boxes]
    info: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> BoxFile:
        """Read a file.  Raises :class:`DataError` that names the file and the image."""
        raw = read_json(path)
        if not isinstance(raw, dict):
            raise DataError(f"{path}: must map image names to boxes, scores and phrases")
        answers = {str(name): _boxes(path, str(name), value) for name, value in raw.items()}
        info = {
            "source": "file",
            "file": path.name,
            "sha256": sha256_file(path),
            "images": len(answers),
        }
        return cls(path, answers, info)

    def find(self, names: Sequence[str]) -> Boxes | None:
        """Return the answer under the first of ``names`` that the file has."""
        for name in names:
            if name in self.answers:
                return self.answers[name]
        return None


def _boxes(path: Path, name: str, value: Any) -> Boxes:
    try:
        found = Boxes.from_dict(value)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: '{name}' needs lists boxes, scores and phrases ({error!r})"
        ) from None
    if not len(found.boxes) == len(found.scores) == len(found.phrases):
        raise DataError(
            f"{path}: '{name}' has {len(found.boxes)} boxes, {len(found.scores)} scores and "
            f"{len(found.phrases)} phrases; give one of each per box"
        )
    wrong = [b for b in found.boxes if len(b) != 4 or not all(-1 <= x <= 2 for x in b)]
    if wrong:
        raise DataError(
            f"{path}: '{name}': {wrong[0]} is not [cx, cy, w, h] in fractions of the image"
        )
    return found

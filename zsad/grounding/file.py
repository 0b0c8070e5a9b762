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
        return Boxes.from_dict(value)
    except ValueError as error:
        raise DataError(
            f"{path}: '{name}' needs lists boxes, scores and phrases ({error})"
        ) from None

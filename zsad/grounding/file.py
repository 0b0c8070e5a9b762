"""Boxes that were found before, as a JSON file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zsad.errors import DataError
from zsad.io import read_json, sha256_file
from zsad.runtime.boxes import BoxAnswers
from zsad.types import Boxes


@dataclass(frozen=True)
class BoxFile:
    """Detections by image: ``{name: {"boxes": [[cx, cy, w, h]], "scores": [], "phrases": []}}``.

    Names are an image's uid (its path inside the dataset), ``dataset/uid``, a file name, or the
    SHA-256 of the image file (of its pixels, where `zsad predict` asks).  Numbers are fractions of
    the image.
    """

    path: Path
    answers: BoxAnswers[Boxes]
    info: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> BoxFile:
        """Read a file.  Raises :class:`DataError` that names the file and the image."""
        told = read_json(path)
        try:
            answers = BoxAnswers.of_json(told, Boxes)
        except ValueError as error:
            raise DataError(f"{path}: {error}") from None
        info = {
            "source": "file",
            "file": path.name,
            "sha256": sha256_file(path),
            "images": len(answers),
        }
        return cls(path, answers, info)

    def find(self, names: Sequence[str]) -> Boxes | None:
        """Return the answer under the first of ``names`` that the file has."""
        return self.answers.find(names)

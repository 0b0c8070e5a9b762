"""What a detector says of a picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zsad.errors import counted
from zsad.io.schema import read


@dataclass
class Boxes:
    """A detector's raw answer for one image: ``boxes`` [N, 4] = cx, cy, w, h in 0..1."""

    boxes: list[list[float]]
    scores: list[float]
    phrases: list[str]

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Boxes:
        """Take boxes from JSON or from arrays.  Raises ``ValueError``."""
        if isinstance(value, Mapping):
            value = {name: _listed(part) for name, part in value.items()}
        found = read(cls, value, others=True)
        if not len(found.boxes) == len(found.scores) == len(found.phrases):
            raise ValueError(
                f"{counted(len(found.boxes), 'box', 'boxes')}, "
                f"{counted(len(found.scores), 'score')} and "
                f"{counted(len(found.phrases), 'phrase')}; give one of each per box"
            )
        for box in found.boxes:
            if len(box) != 4 or not all(-1 <= x <= 2 for x in box):
                raise ValueError(f"{box} is not [cx, cy, w, h] in fractions of the image")
        return found


def _listed(value: Any) -> Any:
    """Arrays, tensors and their scalars as plain lists and numbers, wherever they lie."""
    if isinstance(value, (list, tuple)):
        return [_listed(v) for v in value]
    return value.tolist() if hasattr(value, "tolist") else value

"""What a detector says of a picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zsad.io.schema import read
from zsad.runtime.boxes import require_boxes


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
        require_boxes(found)
        return found


def _listed(value: Any) -> Any:
    """Arrays, tensors and their scalars as plain lists and numbers, wherever they lie."""
    if isinstance(value, (list, tuple)):
        return [_listed(v) for v in value]
    return value.tolist() if hasattr(value, "tolist") else value

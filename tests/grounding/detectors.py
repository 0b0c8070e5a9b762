"""Detectors as a user would write them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL.Image import Image


def whole(image: Image, phrases: Sequence[str]) -> dict[str, Any]:
    """One box around everything, named after the first phrase."""
    return {"boxes": [[0.5, 0.5, 1.0, 1.0]], "scores": [0.5], "phrases": [phrases[0]]}


def fails(image: Image, phrases: Sequence[str]) -> dict[str, Any]:
    """A detector that breaks."""
    raise ValueError("no light")


def wrong(image: Image, phrases: Sequence[str]) -> str:
    """A detector that answers nonsense."""
    return "a box"

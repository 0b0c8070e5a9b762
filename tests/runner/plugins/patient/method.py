"""Lets a test look on while it scores: ``meanwhile`` is told the category of every batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from raises.method import Config, Plain

from zsad.types import ImageFeatures, ScoreContext, Scores

__all__ = ["Config", "Odd"]


class Odd(Plain):
    name = "patient"
    meanwhile: ClassVar[Callable[[str], object]] = str

    def score(self, features: ImageFeatures, context: ScoreContext) -> Scores:
        type(self).meanwhile(context.categories[0].key)
        return super().score(features, context)

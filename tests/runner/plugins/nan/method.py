"""Returns a map with a hole that is not a number."""

from __future__ import annotations

from raises.method import Config, Plain

from zsad.types import ImageFeatures, ScoreContext, Scores

__all__ = ["Config", "Odd"]


class Odd(Plain):
    name = "nan"

    def score(self, features: ImageFeatures, context: ScoreContext[None]) -> Scores:
        scores = super().score(features, context)
        scores.maps[0][0, 0, 0] = float("nan")
        return scores

"""Asks for a pebibyte per image of the category ``cloth``."""

from __future__ import annotations

import torch
from raises.method import Config, Plain

from zsad.types import ImageFeatures, ScoreContext, Scores

__all__ = ["Config", "Odd"]


class Odd(Plain):
    name = "starved"

    def score(self, features: ImageFeatures, context: ScoreContext[None]) -> Scores:
        if context.categories[0].key == "cloth":
            torch.empty((features.batch_size, 1 << 48))
        return super().score(features, context)

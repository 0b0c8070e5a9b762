"""Runs out of memory whenever it sees more than two images at once."""

from __future__ import annotations

import torch
from raises.method import Config, Plain

from zsad.types import ImageFeatures, ScoreContext, Scores

__all__ = ["Config", "Odd"]


class Odd(Plain):
    name = "hungry"

    def score(self, features: ImageFeatures, context: ScoreContext[None]) -> Scores:
        if features.batch_size > 2:
            raise torch.OutOfMemoryError("out of memory: tried to allocate 1 TiB")
        return super().score(features, context)

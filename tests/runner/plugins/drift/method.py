"""Carries state: an image's score is its distance to the mean of the images before it."""

from __future__ import annotations

from typing import Any

import torch
from raises.method import Config, Plain

from zsad.types import ImageFeatures, ScoreContext, Scores, Tap

__all__ = ["Config", "Odd"]


class Odd(Plain):
    name = "drift"

    @property
    def carries(self) -> bool:
        return True

    def score(self, features: ImageFeatures, context: ScoreContext) -> Scores:
        scores = super().score(features, context)
        carry: dict[str, Any] = dict(context.carry)
        values = []
        for token, category in zip(features[Tap("cls")], context.categories):
            count, total = carry.get(category.key, (0, torch.zeros_like(token)))
            values.append((token - total / max(1, count)).norm())
            carry[category.key] = (count + 1, total + token)
        scores.image = torch.stack(values)
        scores.carry = carry
        return scores

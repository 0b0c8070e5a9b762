"""Raises while it scores the category ``cloth``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from zsad.config.method_config import MethodConfig
from zsad.method import Method
from zsad.types import Category, FeatureRequest, ImageFeatures, MapSpec, ScoreContext, Scores, Tap


@dataclass(frozen=True)
class Config(MethodConfig):
    preset: str = "default"


class Plain(Method[Config, None]):
    """Score: mean of the class embedding; map: norm of the projected tokens."""

    name = "plain"

    @property
    def tap(self) -> Tap:
        return Tap("tokens_proj", self.backbone.depth)

    def feature_request(self) -> FeatureRequest:
        return FeatureRequest.of(Tap("cls"), self.tap)

    def prepare_text(self, categories: Sequence[Category], text: Any) -> dict[str, None]:
        return {c.key: None for c in categories}

    def score(self, features: ImageFeatures, context: ScoreContext[None]) -> Scores:
        height, width = features.grid
        values = features.patches(self.tap).norm(dim=-1).unflatten(-1, (height, width))
        return Scores([values], features[Tap("cls")].mean(-1), "values")

    def map_spec(self) -> MapSpec:
        return MapSpec()


class Odd(Plain):
    name = "raises"

    def score(self, features: ImageFeatures, context: ScoreContext[None]) -> Scores:
        if context.categories[0].key == "cloth":
            raise ArithmeticError("cannot weave")
        return super().score(features, context)

"""Heads: methods that are built, loaded and ready to score one dataset."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from zsad import backbones
from zsad.backbones import Backbone
from zsad.data.calibration import EXAMPLES
from zsad.method import AnyMethod, new_method
from zsad.runner.columns import Column
from zsad.runner.request import Request
from zsad.scoring import Scorer
from zsad.types import FeatureRequest


@dataclass
class Head:
    """A column's method, ready to score.  ``seeds``: the seeds whose cells it fills (several
    where the seed changes nothing)."""

    column: Column
    seeds: tuple[int, ...]
    scorer: Scorer
    trained_on: dict[str, Any] = field(default_factory=dict)
    text_seconds: float = 0.0  # spent once for all categories of the dataset

    @property
    def method(self) -> AnyMethod:
        return self.scorer.method

    @property
    def request(self) -> FeatureRequest:
        return self.scorer.request

    @property
    def label(self) -> str:
        return self.column.label

    @property
    def seed(self) -> int:
        return self.seeds[0]


def load_backbone(request: Request, device: torch.device) -> Backbone:
    """Load the backbone that the settings name."""
    return backbones.load_chosen(request.settings.backbone, device, request.offline, EXAMPLES)


def build_method(
    column: Column, backbone: Backbone, seed: int, device: torch.device, target: str = ""
) -> AnyMethod:
    """Build a column's method in its initial state, ready to score the dataset ``target``."""
    method = new_method(column.entry, column.config, backbone.info, seed, target)
    return method.to(device).eval()

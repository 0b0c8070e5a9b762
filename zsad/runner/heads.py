"""Heads: methods that are built, loaded and ready to score one dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from zsad.backbones import Backbone
from zsad.grounding import BoxProvider
from zsad.method import AnyMethod, new_method
from zsad.runner.request import Column
from zsad.types import Category, FeatureRequest


@dataclass
class Head:
    """One method instance with its text.  ``seeds``: the seeds whose cells it fills (several
    where the seed changes nothing)."""

    column: Column
    seeds: tuple[int, ...]
    method: AnyMethod
    request: FeatureRequest
    trained_on: dict[str, Any] = field(default_factory=dict)
    text: dict[str, Any] = field(default_factory=dict)
    text_seconds: float = 0.0  # spent once for all categories of the dataset
    boxes: BoxProvider | None = None

    @property
    def label(self) -> str:
        return self.column.label

    @property
    def seed(self) -> int:
        return self.seeds[0]


def build_method(column: Column, backbone: Backbone, seed: int, device: torch.device) -> AnyMethod:
    """Build a column's method in its initial state, ready to score."""
    return new_method(column.entry, column.config, backbone.info, seed).to(device).eval()


@torch.no_grad()
def prepare_text(head: Head, categories: Sequence[Category], backbone: Backbone) -> None:
    """Fill ``head.text``: everything that does not depend on the image, once per dataset."""
    head.text = head.method.prepare_text(categories, backbone.text_encoder(head.request.variant))

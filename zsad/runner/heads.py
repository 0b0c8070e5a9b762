"""Heads: methods that are built, loaded and ready to score one dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from zsad.backbones import Backbone
from zsad.errors import WeightsError
from zsad.grounding import BoxProvider
from zsad.method import Method
from zsad.runner.request import Column
from zsad.types import Category, FeatureRequest


@dataclass
class Head:
    """One method instance with its text.  ``seeds``: the seeds whose cells it fills (several
    where the seed changes nothing)."""

    column: Column
    seeds: tuple[int, ...]
    method: Method
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


def build_method(column: Column, backbone: Backbone, seed: int, device: torch.device) -> Method:
    """Instantiate a method.  Its initial parameters are a function of the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        method = column.entry.load()(column.config, backbone.info)
    return method.to(device).eval()


def feature_request(method: Method, image_size: int) -> FeatureRequest:
    """The method's request with the run's image size filled in where it names none.

    Raises :class:`WeightsError` if the size is no multiple of the patch.
    """
    from dataclasses import replace

    request = method.feature_request()
    size = request.variant.image_size or image_size or method.backbone.image_size
    if size % method.backbone.patch:
        raise WeightsError(
            f"image size {size} is no multiple of the patch size {method.backbone.patch} of "
            f"{method.backbone.name}; choose another backbone.image_size"
        )
    return FeatureRequest(request.taps, replace(request.variant, image_size=size))


@torch.no_grad()
def prepare_text(head: Head, categories: Sequence[Category], backbone: Backbone) -> None:
    """Fill ``head.text``: everything that does not depend on the image, once per dataset."""
    head.text = head.method.prepare_text(categories, backbone.text_encoder(head.request.variant))

"""Small backbones for the tests of methods."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from zsad import backbones
from zsad.backbones import Backbone

SMALL = {"vision_width": 64, "vision_layers": 8, "embed": 48, "text_width": 64, "text_layers": 2}


@pytest.fixture(scope="session")
def small_weights(
    recipe: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """``small_weights(seed, **dims)``: a file of CLIP weights in OpenAI's naming."""

    def write(seed: int, **dims: Any) -> Path:
        path = tmp_path_factory.mktemp("weights") / "clip.pt"
        torch.save(dict(recipe.clip_state(recipe.ClipDims(**SMALL | dims), seed)), path)
        return path

    return write


@pytest.fixture(scope="session")
def small_backbone(small_weights: Callable[..., Path]) -> Callable[..., Backbone]:
    """``small_backbone(seed, size=84, **dims)``: a CLIP of that file, for images of ``size``."""

    def load(seed: int, size: int = 84, **dims: Any) -> Backbone:
        return backbones.load("file", weights=small_weights(seed, **dims), image_size=size)

    return load


@pytest.fixture(scope="module")
def backbone(small_backbone: Callable[..., Backbone]) -> Backbone:
    """Six visual blocks, images of 48 pixels; modules that need others have their own."""
    return small_backbone(5, size=48, vision_layers=6, patch=8, grid=4, text_layers=3)


@pytest.fixture(scope="module")
def images(recipe: ModuleType) -> Tensor:
    """A batch of eight for :func:`backbone`."""
    images: Tensor = recipe.images(8, 48, 3)
    return images

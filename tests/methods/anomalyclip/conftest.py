"""A small backbone with random weights, and a batch of pictures."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch

from zsad import backbones
from zsad.backbones import Backbone

SIZE = 48


@pytest.fixture(scope="module")
def backbone(recipe: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    dims = recipe.ClipDims(
        vision_width=64,
        vision_layers=6,
        patch=8,
        grid=4,
        embed=48,
        text_width=64,
        text_layers=3,
    )
    path = tmp_path_factory.mktemp("weights") / "clip.pt"
    torch.save(recipe.clip_state(dims, 5), path)
    return backbones.load("file", weights=path, image_size=SIZE)


@pytest.fixture(scope="module")
def images(recipe: ModuleType) -> torch.Tensor:
    return recipe.images(8, SIZE, 3)

"""A small CLIP with reproducible weights, built through the public loader."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from zsad.backbones import Backbone, load

State = dict[str, torch.Tensor]


@pytest.fixture(scope="session")
def clip_state(recipe: ModuleType) -> State:
    """OpenAI names; 5 x 5 native patches of 8 pixels, two heads in each tower."""
    dims = recipe.ClipDims(
        vision_width=128,
        vision_layers=5,
        patch=8,
        grid=5,
        embed=48,
        text_width=128,
        text_layers=4,
    )
    return dict(recipe.clip_state(dims, 5))


@pytest.fixture(scope="session")
def make_backbone(
    clip_state: State, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Backbone]:
    """``make(precision=..., **changed tensors)``: a fresh backbone with changed weights."""
    folder: Path = tmp_path_factory.mktemp("clip")

    def make(precision: str = "fp32", change: State | None = None) -> Backbone:
        path = folder / "state.pt"
        torch.save({**clip_state, **(change or {})}, path)
        return load("file", weights=path, precision=precision)

    return make


@pytest.fixture(scope="session")
def backbone(make_backbone: Callable[..., Backbone]) -> Backbone:
    return make_backbone()


@pytest.fixture(scope="session")
def images(recipe: ModuleType) -> torch.Tensor:
    """Three normalised images of the native size, 40 pixels."""
    return recipe.images(3, 40, 2)

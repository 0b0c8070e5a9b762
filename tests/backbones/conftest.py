"""A small CLIP with reproducible weights, built through the public loader."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

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


@pytest.fixture(scope="session")
def torchscript() -> Callable[[Any, Path], None]:
    """``torchscript(model, path)`` saves a model the way OpenAI does: a traced archive."""

    def save(model: Any, path: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            images = torch.zeros(1, 3, 40, 40, dtype=model.visual.conv1.weight.dtype)
            texts = torch.zeros(1, 77, dtype=torch.int)
            torch.jit.trace(model, (images, texts), check_trace=False).save(str(path))

    return save


@pytest.fixture(scope="session")
def files(
    clip_state: State,
    backbone: Backbone,
    torchscript: Callable[[Any, Path], None],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    """The same weights in every format that is accepted."""
    folder = tmp_path_factory.mktemp("formats")
    paths = {n: folder / n for n in ("plain.pt", "jit.pt", "oc.bin", "oc.safetensors", "legacy.pt")}
    torch.save(clip_state, paths["plain.pt"])
    torchscript(backbone.model, paths["jit.pt"])
    wrapped = {"epoch": 32, "state_dict": {f"module.{k}": v for k, v in clip_state.items()}}
    torch.save(wrapped, paths["oc.bin"])
    save_file({k: v.contiguous() for k, v in clip_state.items()}, paths["oc.safetensors"])
    torch.save(clip_state, paths["legacy.pt"], _use_new_zipfile_serialization=False)
    return paths

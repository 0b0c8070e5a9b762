"""A small backbone with random weights and a small dataset of generated pictures."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from zsad import backbones
from zsad.backbones import Backbone
from zsad.config import BackboneSettings, DataSettings, RunSettings, Settings
from zsad.data.index import DatasetIndex, load_index

SIZE = 48
CATEGORIES = {"felt": 60, "panel": 100}  # darkest pixel value


def make_dataset(
    root: Path, per_kind: int = 5, categories: dict[str, int] = CATEGORIES, seed: int = 0
) -> Path:
    """Write ``<category>/test/{good,spot}`` with masks: noise, and noise with a bright square."""
    generator = np.random.default_rng(seed)
    for category, dark in categories.items():
        for kind in ("good", "spot"):
            for i in range(per_kind):
                pixels = generator.integers(dark, dark + 60, (SIZE, SIZE, 3))
                mask = np.zeros((SIZE, SIZE), np.uint8)
                if kind == "spot":
                    top, left = generator.integers(0, SIZE - 16, 2)
                    pixels[top : top + 14, left : left + 14] = 240
                    mask[top : top + 14, left : left + 14] = 255
                folder = root / category / "test" / kind
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i:03d}.png")
                if kind == "spot":
                    truth = root / category / "ground_truth" / kind
                    truth.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(mask).save(truth / f"{i:03d}_mask.png")
    return root


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "swatches")


@pytest.fixture(scope="session")
def unseen(tmp_path_factory: pytest.TempPathFactory) -> DatasetIndex:
    """A third category."""
    root = tmp_path_factory.mktemp("unseen") / "slabs"
    return load_index(f"folder:{make_dataset(root, 12, {'slab': 80}, seed=1)}")


@pytest.fixture(scope="session")
def swatches(tmp_path_factory: pytest.TempPathFactory) -> DatasetIndex:
    """More pictures of the first two categories."""
    root = tmp_path_factory.mktemp("more") / "swatches-more"
    return load_index(f"folder:{make_dataset(root, 20, seed=2)}")


@pytest.fixture(scope="session")
def index(dataset: Path) -> DatasetIndex:
    return load_index(f"folder:{dataset}")


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory, recipe: ModuleType) -> Path:
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
    return path


@pytest.fixture
def backbone(weights: Path) -> Backbone:
    return backbones.load("file", weights=weights, image_size=SIZE)


@pytest.fixture
def settings() -> Settings:
    return Settings(
        backbone=BackboneSettings(name="file", image_size=SIZE),
        data=DataSettings(workers=0),
        run=RunSettings(feature_cache_gb=0.05),
    )

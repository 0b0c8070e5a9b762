"""A small real dataset on disk, sweeps of it, and odd methods as plug-ins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import zsad
from zsad import registry

SIZE = 56
PLUGINS = Path(__file__).parent / "plugins"


def write_dataset(
    root: Path, categories: tuple[str, ...] = ("bolt", "cloth"), count: int = 4, seed: int = 3
) -> Path:
    """MVTec-like: ``count`` train, ``count`` normal and ``count`` anomalous test images each.

    Equal seeds give equal pictures, and what was trained on one set is not evaluated on them."""
    rng = np.random.default_rng(seed)
    for category in categories:
        for part, label in (("train/good", 0), ("test/good", 0), ("test/spot", 1)):
            folder = root / category / part
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(90, 130, (64, 64, 3), dtype=np.uint8)
                if label:
                    y, x = rng.integers(0, 44, 2)
                    pixels[y : y + 20, x : x + 20] = 250
                    mask = np.zeros((64, 64), dtype=np.uint8)
                    mask[y : y + 20, x : x + 20] = 255
                    truth = root / category / "ground_truth" / "spot"
                    truth.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(mask).save(truth / f"{i:03}_mask.png")
                Image.fromarray(pixels).save(folder / f"{i:03}.png")
    return root


DEFINITION = """
name: {name}
title: bolts and cloths
domain: industrial
categories:
  bolt: {{prompt: bolt}}
  cloth: {{prompt: cloth, kind: texture}}
default_variant: whole
variants:
  whole:
    title: as written by the test
    layouts: [{{indexer: mvtec_like, looks: "<category>/test/<kind>/*.png"}}]
root: {root}
"""


def define(folder: Path) -> Path:
    """Write a user's own dataset below ``folder``; return its definition file."""
    root = write_dataset(folder / "things")
    name = f"things-{abs(hash(folder)) % 10**8}"  # definitions are known by name in a process
    path = folder / f"{name}.yaml"
    path.write_text(DEFINITION.format(name=name, root=root))
    return path


@pytest.fixture
def definition(tmp_path: Path) -> Path:
    """A user's own dataset: definition file and images."""
    return define(tmp_path)


@pytest.fixture
def bench(definition: Path, weights: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """``zsad.bench`` on the small dataset and backbone, with results in the test's folder."""
    return benching(definition, weights, tmp_path / "results")


def benching(definition: Path, weights: Path, results: Path) -> Callable[..., dict[str, Any]]:
    """Return ``zsad.bench`` with these where a call names no others."""

    def run(methods: str = "clip", **options: Any) -> dict[str, Any]:
        settings: dict[str, Any] = {
            "datasets": str(definition),
            "backbone": "file",
            "weights": weights,
            "results": results,
            "device": "cpu",
            "overrides": [f"backbone.image_size={SIZE}", *options.pop("overrides", [])],
        }
        return zsad.bench(methods, **{**settings, **options})

    return run


@pytest.fixture(scope="module", autouse=True)
def plugins() -> None:
    """Make the odd methods of ``plugins/`` known to the module."""
    registry.add_plugins(PLUGINS)

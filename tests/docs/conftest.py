"""Miniature data, a small CLIP and a reader's own files, made once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from tests import small_clip
from tests.data.miniatures import WRITERS, write_miniature
from tests.docs.workspace import Workspace, clean_environment, forget, forget_modules
from zsad import registry


@pytest.fixture(scope="session")
def miniatures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds a miniature of every dataset."""
    root = tmp_path_factory.mktemp("data")
    for name in WRITERS:
        write_miniature(name, root)
    return root


@pytest.fixture(scope="session")
def brought(recipe: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader brings along, and the small CLIP (``clip.pt``)."""
    root = tmp_path_factory.mktemp("brought")
    rng = np.random.default_rng(5)
    for kind, bad in (("photos", True), ("good", False), ("normal", False), ("anomalous", True)):
        folder = root / "parts" / kind if kind in ("normal", "anomalous") else root / kind
        folder.mkdir(parents=True)
        for i in range(3):
            pixels = rng.integers(90, 130, (60, 80, 3), dtype=np.uint8)
            if bad:
                pixels[10:30, 5:25] = 250
            Image.fromarray(pixels).save(folder / f"{i}.png")
    (root / "parts" / "masks").mkdir()
    for i in range(3):
        mask = np.zeros((60, 80), dtype=np.uint8)
        mask[10:30, 5:25] = 255
        Image.fromarray(mask).save(root / "parts" / "masks" / f"{i}.png")
    shutil.copy(root / "photos" / "0.png", root / "photo.png")

    small_clip.write(recipe, root / "clip.pt")
    dims = small_clip.dims(recipe)
    for name in ("faprompt", "anomalyclip"):
        head = getattr(recipe, f"{name}_learnables")(dims, 7, depth=3)
        torch.save({"prompt_learner": dict(head)}, root / f"{name}.pth")
    torch.save({"filo": dict(recipe.filo_learnables(dims, 7))}, root / "filo.pth")
    return root


@pytest.fixture
def workspace(
    tmp_path: Path, miniatures: Path, brought: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Workspace]:
    """A fresh folder with the reader's own files."""
    clean_environment(monkeypatch)
    folder = tmp_path / "reader"
    shutil.copytree(brought, folder, ignore=shutil.ignore_patterns("clip.pt"))
    known = registry.plugin_dirs()
    yield Workspace(folder, miniatures, brought / "clip.pt", monkeypatch)
    forget()
    forget_modules(folder)
    for plugins in known:  # of other tests in this process
        registry.add_plugins(plugins)

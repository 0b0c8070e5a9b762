"""Files of the released formats filled with recipe weights, known by the table, and small data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tests import small_clip
from tests.data.miniatures import write_miniature
from zsad.checkpoints import released

SIZE = 56  # pixels of the small CLIP


@pytest.fixture(scope="session")
def dims(recipe: ModuleType) -> object:
    return small_clip.dims(recipe)


@pytest.fixture(scope="session")
def clip(weights: Path) -> Path:
    """Weights of the same dimensions as the released files."""
    return weights


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Miniatures of MVTec AD and VisA."""
    root = tmp_path_factory.mktemp("data")
    for name in ("mvtec", "visa"):
        write_miniature(name, root)
    return root


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Path]], None]:
    """Let the table of released files know files at hand under the names of released ones."""

    def as_released(files: dict[str, Path]) -> None:
        rows = {r.file: r for r in released.released_files()}
        more = tuple(
            replace(rows[name], content=released.content_of(path)) for name, path in files.items()
        )
        monkeypatch.setattr(released, "released_files", lambda: more)
        monkeypatch.setattr("zsad.certificate.official.released_files", lambda: more)

    return as_released


@pytest.fixture
def anomalyclip(
    recipe: ModuleType, dims: object, tmp_path: Path, known: Callable[[dict[str, Path]], None]
) -> Path:
    """A folder with AnomalyCLIP's two files under names that say nothing."""
    folder = tmp_path / "official"
    folder.mkdir()
    for seed, name in enumerate(("a", "b")):
        state = dict(recipe.anomalyclip_learnables(dims, seed, depth=3))
        torch.save({"prompt_learner": state}, folder / f"{name}.pth")
    known(
        {
            "9_12_4_multiscale/epoch_15.pth": folder / "a.pth",
            "9_12_4_multiscale_visa/epoch_15.pth": folder / "b.pth",
        }
    )
    return folder


@pytest.fixture
def recipe_files(
    recipe: ModuleType, dims: object, tmp_path: Path, known: Callable[[dict[str, Path]], None]
) -> Path:
    """A folder with FiLo's two files and its two detectors, which are asked as they are."""
    folder = tmp_path / "official"
    folder.mkdir()
    names = (
        *("filo_train_on_visa.pth", "filo_train_on_mvtec.pth"),
        *("grounding_train_on_mvtec.pth", "grounding_train_on_visa.pth"),
    )
    for seed, letter in enumerate("abcd"):
        state = dict(recipe.filo_learnables(dims, seed))
        torch.save(
            {"filo": state} if letter in "ab" else {"model": state}, folder / f"{letter}.pth"
        )
    known({name: folder / f"{letter}.pth" for name, letter in zip(names, "abcd")})
    return folder

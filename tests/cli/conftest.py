"""A small backbone for the command line."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch


@pytest.fixture(scope="session")
def weights(recipe: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CLIP in OpenAI's naming."""
    dims = recipe.ClipDims(
        vision_width=64, vision_layers=12, embed=64, text_width=64, text_layers=3
    )
    path = tmp_path_factory.mktemp("backbone") / "clip.pt"
    torch.save(dict(recipe.clip_state(dims, 7)), path)
    return path

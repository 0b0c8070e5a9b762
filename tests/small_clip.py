"""The small CLIP that whole runs are tested on: real blocks, in OpenAI's naming."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import torch


def dims(recipe: ModuleType) -> Any:
    """12 visual blocks of width 64, as methods that read several stages need, four text blocks."""
    return recipe.ClipDims(
        vision_width=64, vision_layers=12, embed=64, text_width=64, text_layers=3
    )


def write(recipe: ModuleType, path: Path, seed: int = 7) -> Path:
    """Write weights that depend on the seed alone."""
    torch.save(dict(recipe.clip_state(dims(recipe), seed)), path)
    return path

"""The small CLIP that whole runs are tested on: real blocks, in OpenAI's naming."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import torch


def dims(recipe: ModuleType, vision_layers: int = 12, text_layers: int = 3) -> Any:
    """12 visual blocks of width 64, as methods that read several stages need, three text blocks."""
    return recipe.ClipDims(
        vision_width=64,
        vision_layers=vision_layers,
        embed=64,
        text_width=64,
        text_layers=text_layers,
    )


def write(recipe: ModuleType, path: Path, seed: int = 7, **layers: int) -> Path:
    """Write weights that depend on the seed, and on the numbers of ``layers``, alone."""
    torch.save(dict(recipe.clip_state(dims(recipe, **layers), seed)), path)
    return path

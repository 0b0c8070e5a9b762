"""Frozen CLIP backbones: their registry, their weights, and the two shared encoders.

Importing this package imports neither torch nor open_clip; :func:`load` does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zsad.backbones.backbone import Backbone, load
    from zsad.backbones.clip_vit import ImageEncoder
    from zsad.backbones.counters import Counters
    from zsad.backbones.text import PromptTokens, TextEncoder

_PUBLIC = {
    "Backbone": "zsad.backbones.backbone",
    "load": "zsad.backbones.backbone",
    "ImageEncoder": "zsad.backbones.clip_vit",
    "Counters": "zsad.backbones.counters",
    "PromptTokens": "zsad.backbones.text",
    "TextEncoder": "zsad.backbones.text",
}

__all__ = ["Backbone", "Counters", "ImageEncoder", "PromptTokens", "TextEncoder", "load"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

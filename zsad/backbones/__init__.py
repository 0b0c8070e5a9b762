"""Frozen CLIP backbones: their registry, their weights, and the two shared encoders.

Importing this package imports neither torch nor open_clip; :func:`load` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zsad import names_on_demand

if TYPE_CHECKING:
    from zsad.backbones.backbone import Backbone, load, load_chosen
    from zsad.backbones.clip_vit import ImageEncoder
    from zsad.backbones.counters import Counters
    from zsad.backbones.text import PromptTokens, TextEncoder

_PUBLIC = {
    "Backbone": "zsad.backbones.backbone",
    "load": "zsad.backbones.backbone",
    "load_chosen": "zsad.backbones.backbone",
    "ImageEncoder": "zsad.backbones.clip_vit",
    "Counters": "zsad.backbones.counters",
    "PromptTokens": "zsad.backbones.text",
    "TextEncoder": "zsad.backbones.text",
}

__all__ = [
    "Backbone",
    "Counters",
    "ImageEncoder",
    "PromptTokens",
    "TextEncoder",
    "load",
    "load_chosen",
]

__getattr__ = names_on_demand(__name__, _PUBLIC)

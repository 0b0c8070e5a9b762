"""The fixed prompts of AdaptCLIP: 147 normal and 84 anomalous ones.  No torch."""

from __future__ import annotations

from zsad.components.templates import NORMAL_STATES, STATES, TEMPLATES

# Those of WinCLIP, but for two that the released code does not have, and one that it has twice.
_ABSENT = ("a cropped photo of a {}.", "a jpeg corrupted photo of a {}.")
_TWICE = "a jpeg corrupted photo of the {}."
OWN_TEMPLATES = (*(t for t in TEMPLATES if t not in _ABSENT), _TWICE)

__all__ = ["NORMAL_STATES", "OWN_TEMPLATES", "STATES"]

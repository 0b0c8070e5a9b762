"""The templates of WinCLIP's re-implementation; the paper's are shared.  Torch-free."""

from __future__ import annotations

from zsad.components.templates import TEMPLATES

_DOUBLED = "a jpeg corrupted photo of the {}."
_MISSING = ("a cropped photo of a {}.", "a jpeg corrupted photo of a {}.")
REPRODUCTION = (*(t for t in TEMPLATES if t not in _MISSING), _DOUBLED)
"""The 21 of the re-implementation by AnomalyCLIP's authors (Accurate-WinCLIP, eef4f8c): two of the
paper's are missing, and one counts twice."""

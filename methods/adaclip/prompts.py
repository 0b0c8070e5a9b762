"""The sentences of AdaCLIP's released prompts: seven normal and five anomalous states of an object,
each in four templates.  Torch-free."""

from __future__ import annotations

from zsad.components.templates import BROKEN_STATES, NORMAL_STATES
from zsad.types import Category, Names

TEMPLATES = (
    "a bad photo of a {}.",
    "a low resolution photo of the {}.",
    "a bad photo of the {}.",
    "a cropped photo of the {}.",
)
STATES = (NORMAL_STATES, BROKEN_STATES)

NORMAL = len(NORMAL_STATES) * len(TEMPLATES)
"""How many of the sentences of an object are normal ones; they come first."""


def word(category: Category, names: Names) -> str:
    """Return the name of a category that the prompts say; released: its key without hyphens."""
    said = category.said(names)
    return said.replace("-", " ") if names == "released" else said

"""The sentences of AdaCLIP's released prompts: seven normal and five anomalous states of an object,
each in four templates.  Torch-free."""

from __future__ import annotations

from zsad.components.templates import NORMAL_STATES
from zsad.types import Category, Names

TEMPLATES = (
    "a bad photo of a {}.",
    "a low resolution photo of the {}.",
    "a bad photo of the {}.",
    "a cropped photo of the {}.",
)
ANOMALOUS_STATES = ("damaged {}", "broken {}", "{} with flaw", "{} with defect", "{} with damage")

NORMAL = len(NORMAL_STATES) * len(TEMPLATES)
"""How many of the sentences of an object are normal ones; they come first."""


def word(category: Category, names: Names) -> str:
    """Return the name of a category that the prompts say; released: its key without hyphens."""
    said = category.said(names)
    return said.replace("-", " ") if names == "released" else said


def phrases(name: str) -> tuple[list[str], list[str]]:
    """Return the (normal, anomalous) phrases of an object."""
    normal, anomalous = (
        [s.format(name) for s in side] for side in (NORMAL_STATES, ANOMALOUS_STATES)
    )
    return normal, anomalous


def sentences(said: list[str]) -> list[str]:
    """Return every phrase in every template, phrase by phrase."""
    return [template.format(phrase) for phrase in said for template in TEMPLATES]

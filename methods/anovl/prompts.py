"""Domain-aware prompts: states in templates that say which kind of picture it is.  Torch-free."""

from __future__ import annotations

from zsad.prompt_bank.bank import article
from zsad.types import Category

NORMAL_STATES = (
    "normal {}",
    "flawless {}",
    "perfect {}",
    "unblemished {}",
    "{} without flaw",
    "{} without defect",
    "{} without damage",
)
ANOMALOUS_STATES = (
    "damaged {}",
    "abnormal {}",
    "imperfect {}",
    "blemished {}",
    "{} with flaw",
    "{} with defect",
    "{} with damage",
)
STATES = (NORMAL_STATES, ANOMALOUS_STATES)

PICTURES = {
    "object": ("industrial photo", "industrial image", "manufacturing image"),
    "texture": ("industrial photo", "textural photo", "surface picture"),
    "medical": ("medical photo", "medical image", "clinical image"),
}
"""Kinds of picture; the medical ones are ours."""

_LOOKS = ("cropped", "close-up", "bright", "dark", "jpeg corrupted", "blurry")
_TASKS = ("visual inspection", "anomaly detection")


def templates(category: Category, domain: str) -> tuple[str, ...]:
    """Return the 66 templates of a category: 22 per kind of picture.

    ``domain`` "auto" follows the category's domain; "industrial" treats all as industrial.
    """
    medical = domain == "auto" and category.domain == "medical"
    kinds = PICTURES["medical" if medical else category.kind]
    return tuple(template for picture in kinds for template in _templates(picture))


def _templates(picture: str) -> tuple[str, ...]:
    one = f"{article(picture)} {picture}"
    articles = ("a", "the")
    return (
        *(f"a {look} {picture} of {the} {{}}" for look in _LOOKS for the in articles),
        *(f"{one} of {the} {{}}" for the in articles),
        *(f"{one} of {the} {size} {{}}" for size in ("small", "large") for the in articles),
        *(f"{one} of {the} {{}} for {task}" for task in _TASKS for the in articles),
    )

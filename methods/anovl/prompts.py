"""Domain-aware prompts: states in templates that say which kind of picture it is.  Torch-free."""

from __future__ import annotations

from zsad.prompt_bank.bank import article
from zsad.types import Category, Names

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


RELEASED_TEXTURES = ("carpet", "leather", "grid", "tile", "wood")
"""The categories that the released script calls textures: MVTec's."""


def word(category: Category, names: Names) -> str:
    """Return the name of a category that the prompts say; the released code calls macaroni1 and
    macaroni2 alike, and all others by their folder."""
    said = category.said(names)
    return "macaroni" if names == "released" and said in ("macaroni1", "macaroni2") else said


def templates(category: Category, domain: str, names: Names = "spoken") -> tuple[str, ...]:
    """Return the 66 templates of a category: 22 per kind of picture.

    ``domain`` "auto" follows the category's domain; "industrial" treats all as industrial.  With
    released ``names`` the script's list says what is a texture.
    """
    medical = domain == "auto" and category.domain == "medical"
    kind = category.kind
    if names == "released":
        kind = "texture" if category.said(names) in RELEASED_TEXTURES else "object"
    kinds = PICTURES["medical" if medical else kind]
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

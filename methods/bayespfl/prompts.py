"""The words of Bayes-PFL's prompts, and its authors' lists of classes.  No torch."""

from __future__ import annotations

from zsad.types import Category

# What the released code says in place of a folder's name (commit 8f155a0).
REPLACED = {
    "macaroni1": "macaroni",
    "macaroni2": "macaroni",
    **{f"pcb{i}": "printed circuit board" for i in (1, 2, 3, 4)},
    "pipe_fryum": "pipe fryum",
    "chewinggum": "chewing gum",
    "metal_nut": "metal nut",
}
# Classes whose defects it calls small, and sets whose map stays out of the image score.
SMALL = frozenset(
    {
        "capsules",
        "macaroni1",
        "macaroni2",
        "pipe_fryum",
        "screw",
        "cashew",
        "chewinggum",
    }
)
WITHOUT_MAP = frozenset({"headct", "brainmri", "br35h"})


def word(category: Category, names: str) -> str:
    """Return the name of a category that its prompts say."""
    if names == "spoken":
        return category.class_name
    key = category.said("released").lower()
    return REPLACED.get(key, key)


def is_small(category: Category) -> bool:
    """Whether the released code counts fewer pixels of this class."""
    return category.said("released").lower() in SMALL


def has_map(category: Category) -> bool:
    """Whether the map is part of the image score of this dataset in the released code."""
    return category.dataset not in WITHOUT_MAP

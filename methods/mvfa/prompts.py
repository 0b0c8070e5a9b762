"""The names that MVFA-AD's released prompts give its six medical datasets.  Torch-free."""

from __future__ import annotations

from zsad.types import Category, Names

RELEASED = {
    "retina": "retinal OCT",
    "retina resc": "retinal OCT",
    "retina oct2017": "retinal OCT",
    "chest": "Chest X-ray film",
    "histopathology": "histopathological image",
}
"""By class name, small; Brain and Liver are called what they are."""


def word(category: Category, names: Names) -> str:
    """Return the name of a category that the prompts say."""
    if names == "spoken":
        return category.class_name
    return RELEASED.get(category.class_name.lower(), category.class_name)

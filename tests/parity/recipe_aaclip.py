"""Deterministic fillers for AA-CLIP's adapters; same rules as ``recipe.py``."""

from __future__ import annotations

from collections import OrderedDict

from tests.parity.recipe import ClipDims, randn


def recipe_aaclip(
    dims: ClipDims,
    seed: int,
    text_until: int = 3,
    image_until: int = 6,
    levels: int = 4,
    relu: bool = False,
):
    """Return ``(text_adapter, image_adapter)``: the two state dicts of the released files."""
    w, e, t = dims.vision_width, dims.embed, dims.text_width
    text: OrderedDict = OrderedDict()
    for i in range(text_until):
        text[f"{i}.fc.0.weight"] = randn(f"aac.text.{i}", (t, t), seed, 1.2 * t**-0.5)
    text[f"{text_until}.fc.0.weight"] = randn("aac.text.proj", (e, t), seed, 1.2 * t**-0.5)
    image: OrderedDict = OrderedDict()
    for i in range(image_until):
        name = f"layer_adapters.{i}.fc.0.weight"
        image[name] = randn(f"aac.image.{i}", (w, w), seed, 1.2 * w**-0.5)
    leaf = "fc.0.weight" if relu else "fc.weight"
    for j in range(levels):
        image[f"seg_proj.{j}.{leaf}"] = randn(f"aac.seg.{j}", (e, w), seed, 1.2 * w**-0.5)
    image[f"det_proj.{leaf}"] = randn("aac.det", (e, w), seed, 1.2 * w**-0.5)
    return text, image

"""Serves the generated dataset: lists its samples, and draws a picture when it is read.

A sample's address says everything about it::

    synthetic://wood?seed=0&split=test&index=3&label=1&size=224[&mask=1]

so nothing is stored, and a new ``seed`` is a new dataset of the same kind.
"""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import parse_qsl, urlsplit

import numpy as np
from PIL import Image

from zsad.data.images import register_reader
from zsad.data.indexers import Indexing, indexer
from zsad.data.synthetic.generator import CATEGORIES, SIZE, Picture, choose_defect, draw
from zsad.errors import DataError
from zsad.types import Sample

SCHEME = "synthetic"


def address(category: str, seed: int, split: str, index: int, label: int, size: int = SIZE) -> str:
    """The address of one picture."""
    return (
        f"{SCHEME}://{category}?seed={seed}&split={split}&index={index}&label={label}&size={size}"
    )


@indexer("synthetic")
def index_synthetic(
    indexing: Indexing,
    *,
    seed: int = 0,
    per_class: int = 20,
    references: int = 8,
    size: int = SIZE,
) -> list[Sample]:
    """List the pictures of one seed.

    Test split: ``per_class`` normal and as many anomalous pictures of each held-out category.
    Train split: the same of each category of the train group (with masks, to learn from), and
    ``references`` normal pictures of each held-out category (for few-shot methods).
    """
    samples: list[Sample] = []
    for key in indexing.spec.categories:
        kind = CATEGORIES[key]
        if kind.group == "test":
            for i in range(references):
                samples.append(_sample(key, seed, "train", i, 0, size))
        split = "test" if kind.group == "test" else "train"
        for label in (0, 1):
            samples += [_sample(key, seed, split, i, label, size) for i in range(per_class)]
    return samples


def _sample(key: str, seed: int, split: str, index: int, label: int, size: int) -> Sample:
    uri = address(key, seed, split, index, label, size)
    defect = choose_defect(CATEGORIES[key], seed, split, index) if label else ""
    state = defect.replace(" ", "_") or "good"
    return Sample(
        uri,
        label,
        key,
        f"{uri}&mask=1" if label else None,
        defect,
        "test" if split == "test" else "train",
        uid=f"seed-{seed}/{key}/{split}/{state}/{index:03d}",
    )


def read(uri: str) -> Image.Image:
    """Draw the picture (RGB) or, with ``mask=1``, the mask (L, 0 or 255) of an address.

    Raises :class:`DataError` for an address that names no picture."""
    base, _, flag = uri.partition("&mask=")
    picture = _draw(base)
    if flag == "1":
        return Image.fromarray(picture.mask.astype(np.uint8) * np.uint8(255))
    return Image.fromarray(picture.image)


@lru_cache(maxsize=64)  # a mask is read right after its picture
def _draw(uri: str) -> Picture:
    parts = urlsplit(uri)
    values = dict(parse_qsl(parts.query))
    try:
        kind = CATEGORIES[parts.netloc]
        seed, index, label, size = (int(values[k]) for k in ("seed", "index", "label", "size"))
        split = values["split"]
    except (KeyError, ValueError) as error:
        raise DataError(f"{uri}: no such generated picture ({error})") from None
    if label not in (0, 1) or not 32 <= size <= 1024:
        raise DataError(f"{uri}: label must be 0 or 1 and size between 32 and 1024")
    return draw(kind, seed=seed, split=split, index=index, label=label, size=size)


register_reader(SCHEME, read)

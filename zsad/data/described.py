"""Pictures that are described, not stored: a URI says what is drawn when it is read.

``SCHEME://image/CODE`` is the picture and ``SCHEME://mask/CODE`` its mask; ``CODE`` is the
description, JSON in base64.  Mosaics and changed training pictures are made this way.  No torch.
"""

from __future__ import annotations

import base64
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from zsad.data.ignored import of_sample
from zsad.data.images import nearest, read_image, read_mask
from zsad.io import parse_json
from zsad.types import Sample

What = Literal["image", "mask"]


def address(scheme: str, what: What, description: str) -> str:
    """Return the URI of a description."""
    return f"{scheme}://{what}/{base64.urlsafe_b64encode(description.encode()).decode()}"


def description(uri: str) -> tuple[What, Any]:
    """Return whether a URI of :func:`address` is of a picture or its mask, and its description.

    Raises :class:`zsad.errors.DataError` for one that is not JSON."""
    what, _, code = uri.partition("://")[2].partition("/")
    return cast(What, what), parse_json(base64.urlsafe_b64decode(code), uri)


def fields(value: dict[str, object]) -> dict[str, Any]:
    """Return the fields of a dataclass out of a description, where tuples are lists."""
    return {name: tuple(v) if isinstance(v, list) else v for name, v in value.items()}


def original(value: dict[str, object]) -> Sample:
    """Return the picture that another one is made of, as a description holds it."""
    return Sample(label=0, category="", **fields(value))


def defects(sample: Sample, size: tuple[int, int] | None = None) -> NDArray[np.bool_]:
    """Return the mask [H, W] of a sample without what is ignored, which is nothing to learn from.

    ``size``: (height, width) to bring it to; None: as it is stored."""
    marked = read_mask(sample) if size is None else read_mask(sample, size)
    if sample.ignore is None:
        return marked
    shape = read_image(sample.image, sample.crop, sample.bits).size[::-1]
    hidden = of_sample(sample, shape)
    return marked if hidden is None else marked & ~nearest(hidden, marked.shape)

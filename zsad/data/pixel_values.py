"""Values of decoded pictures and masks to 8 bits.  No torch, and no file is opened.

Every rule that changes a pixel is in :data:`zsad.data.images.DECODING_RULES`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from zsad.data import plausible
from zsad.errors import DataError

ALPHA_BACKGROUND = (0, 0, 0)
STRIPE = 1 << 22  # values that are converted at a time: their float64 takes 32 MiB
DEEP = 65535.0  # the largest value of 16 bits


def to_rgb(image: Image.Image, uri: str, bits: int) -> Image.Image:
    """8-bit RGB of any mode.  ``uri`` names the picture in what is said about it.

    Raises :class:`DataError` for values without an 8-bit meaning, and what Pillow raises."""
    mode = image.mode
    if mode == "RGB":
        return image if "transparency" not in image.info else _composited(image.convert("RGBA"))
    if mode.startswith("I") or mode == "F":
        # Pillow brings the values of a PGM file to 16 bits, whatever range the file states.
        stated = DEEP if image.format == "PPM" and mode == "I" else 0.0
        return Image.fromarray(eight_bit(np.asarray(image), uri, bits, stated)).convert("RGB")
    if mode in ("P", "PA") or "A" in mode or "a" in mode or "transparency" in image.info:
        if mode == "P" and "transparency" not in image.info:
            return image.convert("RGB")
        return _composited(image.convert("RGBA"))
    return image.convert("RGB")


def _composited(image: Image.Image) -> Image.Image:
    background = Image.new("RGBA", image.size, (*ALPHA_BACKGROUND, 255))
    return Image.alpha_composite(background, image).convert("RGB")


def eight_bit(array: np.ndarray, uri: str, bits: int, stated: float = 0.0) -> np.ndarray:
    """uint8 of a numeric array, in its shape, by the range of its type (see ``DECODING_RULES``).

    ``stated``: the largest value that there could be, where the file says so; 0: it does not.
    Raises :class:`DataError` for values below 0, infinite ones, and more than ``bits`` hold."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    low, high = float(array.min()), float(array.max())
    if not np.isfinite([low, high]).all() or low < 0:
        raise DataError(f"{uri}: pixel values from {low:g} to {high:g} have no 8-bit meaning")
    if bits:
        full = float(2**bits - 1)
        if high > full:
            raise DataError(f"{uri}: its values reach {high:g}, more than {bits} bits hold")
    elif stated:
        full = stated
    elif array.dtype == np.uint16:
        full = DEEP
    else:
        full = guessed_range(array.dtype.kind == "f", high)
    if not bits:
        # A float picture in 0..1 is dark where it is dark; others hold the counts of a camera.
        high_bound = 0.0 if array.dtype.kind == "f" and full <= 1 else high
        plausible.look_at_range(uri, high_bound, full, not stated and array.dtype != np.uint16)
    return _striped(lambda part: np.rint(part * (255.0 / full)), array)


def guessed_range(floating: bool, high: float) -> float:
    """The largest value that there could be in a 32-bit picture whose brightest value is ``high``:
    such files hold 8-, 16- or 32-bit data, or fractions of one."""
    if floating:
        return next((m for m in (1.0, 255.0, DEEP) if high <= m), high)
    return next((m for m in (255.0, DEEP) if high <= m), float(2**32 - 1))


def _striped(change: Callable[[np.ndarray], np.ndarray], array: np.ndarray) -> np.ndarray:
    """uint8 of ``change`` (of float64 values) of an array, a stripe of its rows at a time: a
    float64 copy of a large picture would take eight times its memory."""
    out = np.empty(array.shape, np.uint8)
    rows = max(1, STRIPE // max(1, math.prod(array.shape[1:])))
    for start in range(0, len(array), rows):
        part = array[start : start + rows].astype(np.float64)
        out[start : start + rows] = change(part).astype(np.uint8)
    return out


def mask_levels(image: Image.Image) -> np.ndarray:
    """The grey values of a decoded mask, uint8 [H, W]."""
    mode = image.mode
    if mode == "1":
        return np.asarray(image).astype(np.uint8) * 255
    if mode == "L":
        return np.asarray(image)
    if mode == "P":
        palette = image.getpalette() or [0, 0, 0]
        if palette[:3] == [0, 0, 0]:
            return np.asarray(image)  # class indices: 0 is background whatever the colours say
        return np.asarray(image.convert("L"))
    if mode.startswith("I") or mode == "F":
        array: np.ndarray[Any, Any] = np.asarray(image)
        return kept_levels(array, 255.0 if array.max() <= 255 else max(DEEP, float(array.max())))
    if "A" in mode or "a" in mode:
        return np.asarray(_composited(image.convert("RGBA")).convert("L"))
    return np.asarray(image.convert("L"))


def kept_levels(array: np.ndarray, full: float) -> np.ndarray:
    """uint8 of the values of a deep mask [H, W], of which ``full`` is white; what is not 0 does not
    become 0."""
    return _striped(lambda part: np.clip(np.ceil(part * (255.0 / full)), 0, 255), array)

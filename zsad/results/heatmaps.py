"""Pictures of anomaly maps: heat maps over the image, and masks at a threshold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

# A perceptually ordered ramp from dark blue to yellow (RGB anchors of equal steps).
_RAMP = np.array(
    [(13, 8, 135), (84, 2, 163), (156, 23, 158), (204, 71, 120), (240, 127, 79), (240, 249, 33)],
    dtype=np.float64,
)

SIDE = 1024  # pixels of a heat map over a picture
OPACITY = 0.65  # of its hot half
ROWS = 256  # of a map that are enlarged at once
STRIP = 64  # rows of a picture that are coloured at once

Outline = Sequence[tuple[float, float]]


def level(anomaly_map: np.ndarray, low: float, high: float) -> np.ndarray:
    """Where each value lies between ``low`` and ``high``, 0..1; a constant map has no hot place."""
    if not high > low:
        return np.zeros(anomaly_map.shape)
    found: np.ndarray = np.clip((anomaly_map.astype(np.float64) - low) / (high - low), 0, 1)
    return found


def heat(anomaly_map: np.ndarray, low: float, high: float) -> np.ndarray:
    """Colours [H, W, 3] uint8 of a map [H, W]; values at or below ``low`` are the coldest."""
    at = level(anomaly_map, low, high) * (len(_RAMP) - 1)
    lower = np.minimum(at.astype(int), len(_RAMP) - 2)
    part = (at - lower)[..., None]
    colours: np.ndarray = np.round(_RAMP[lower] * (1 - part) + _RAMP[lower + 1] * part)
    return colours.astype(np.uint8)


def span(anomaly_map: np.ndarray, threshold: float | None = None) -> tuple[float, float]:
    """The values of the coldest and the hottest colour: the map's own range, widened upwards so
    that the threshold is no hotter than the middle.  A normal picture then stays cold."""
    low, high = float(anomaly_map.min()), float(anomaly_map.max())
    if threshold is not None and threshold > low:
        high = max(high, 2 * threshold - low)
    return low, high


def opacity_of(anomaly_map: np.ndarray, low: float, high: float) -> np.ndarray:
    """How much of a colour is seen, 0..1: the cold quarter of the range is transparent; from the
    middle on colours are whole."""
    found: np.ndarray = np.clip(4 * level(anomaly_map, low, high) - 1, 0, 1)
    return found


def overlay(
    image: Image.Image,
    anomaly_map: np.ndarray,
    low: float,
    high: float,
    *,
    side: int = SIDE,
    opacity: float = OPACITY,
    outlines: Sequence[Outline] = (),
    ignored: np.ndarray | None = None,
    caption: str = "",
) -> Image.Image:
    """The picture under its heat map, at most ``side`` pixels a side.

    ``anomaly_map`` [h, w] covers the whole picture and may be of any size.  The cold quarter of
    the range is transparent; from the middle on colours have ``opacity``.  ``outlines``: lines
    around regions, points (x, y) in pixels of the picture.  ``ignored`` [H, W] of the picture's
    size: pixels that are shown grey and without colours.  ``caption``: a line at the lower edge.
    """
    factor = min(1.0, side / max(image.size))
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    small = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0).convert("RGB")
    values = enlarged(np.asarray(anomaly_map, dtype=np.float32), (small.height, small.width))
    where = None
    if ignored is not None:
        where = np.asarray(Image.fromarray(ignored).resize(small.size, Image.Resampling.NEAREST))
    pixels = np.array(small)
    for start in range(0, small.height, STRIP):
        rows = slice(start, start + STRIP)
        alpha = opacity_of(values[rows], low, high)[..., None] * np.float32(opacity)
        below = pixels[rows].astype(np.float32)
        if where is not None:
            alpha[where[rows]] = 0
            below = np.where(where[rows, :, None], 0.4 * below + 76, below)
        mixed = below * (1 - alpha) + heat(values[rows], low, high) * alpha
        pixels[rows] = np.round(mixed).astype(np.uint8)
    shown = Image.fromarray(pixels)
    _draw(shown, outlines, small.width / image.width, small.height / image.height)
    if caption:
        height = max(8, min(20, shown.width // 40))
        font = ImageFont.load_default(height)
        pen = ImageDraw.Draw(shown)
        at = (height // 2, shown.height - height - height // 2)
        pen.text(at, caption, "white", font, stroke_width=1, stroke_fill="black")
    return shown


def _draw(shown: Image.Image, outlines: Sequence[Outline], across: float, down: float) -> None:
    """Lines in white with a dark rim, which is seen on any ground."""
    pen = ImageDraw.Draw(shown)
    width = max(1, round(max(shown.size) / 400))
    for colour, thickness in (("black", width + 2), ("white", width)):
        for line in outlines:
            points = [(x * across, y * down) for x, y in line]
            if len(points) > 1:
                pen.line([*points, points[0]], fill=colour, width=thickness, joint="curve")


def enlarged(anomaly_map: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """A map [h, w] bilinearly at another ``size`` (H, W): pixel centres are sampled, as torch's
    ``interpolate(align_corners=False)`` does.  No value leaves the range of the map."""
    if anomaly_map.shape == tuple(size):
        return anomaly_map
    (top, below, down), (left, right, across) = (
        _between(old, new) for old, new in zip(anomaly_map.shape, size)
    )
    rows = anomaly_map[:, left] * (1 - across) + anomaly_map[:, right] * across  # [h, W]
    out = np.empty(size, dtype=np.float32)
    for start in range(0, size[0], ROWS):  # a large picture in strips, to save memory
        part = slice(start, start + ROWS)
        weight = down[part, None]
        out[part] = rows[top[part]] * (1 - weight) + rows[below[part]] * weight
    # Rounding alone would let a value leave the range.
    return np.clip(out, anomaly_map.min(), anomaly_map.max(), out=out)


def _between(
    old: int, new: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """For each of ``new`` places along an axis of ``old`` values: the two values that it lies
    between, and the weight of the second."""
    place = np.clip((np.arange(new) + 0.5) * (old / new) - 0.5, 0, old - 1)
    first = np.floor(place).astype(np.int64)
    return first, np.minimum(first + 1, old - 1), (place - first).astype(np.float32)


def mask(marked: NDArray[np.bool_]) -> Image.Image:
    """A black and white picture: white where ``marked`` [H, W]."""
    return Image.fromarray(marked.astype(np.uint8) * np.uint8(255))

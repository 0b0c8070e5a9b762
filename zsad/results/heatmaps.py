"""Pictures of anomaly maps: heat maps over the image, and masks at a threshold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from zsad.runtime.enlarging import enlarged

# A perceptually ordered ramp from dark blue to yellow (RGB anchors of equal steps).
_RAMP = np.array(
    [(13, 8, 135), (84, 2, 163), (156, 23, 158), (204, 71, 120), (240, 127, 79), (240, 249, 33)],
    dtype=np.float64,
)

SIDE = 1024  # pixels of a heat map over a picture
OPACITY = 0.65  # of its hot half
STRIP = 64  # rows of a picture that are coloured at once

BOX = (90, 220, 255)  # colour of a detector's boxes

Outline = Sequence[tuple[float, float]]
LabelledBox = tuple[tuple[float, float, float, float], str]


def level(anomaly_map: np.ndarray, low: float, high: float) -> np.ndarray:
    """Where each value of a map [H, W] lies between ``low`` and ``high``: [H, W] in [0, 1]; all 0
    where ``high`` is not above ``low``."""
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
    """The values of the coldest and the hottest colour of a map [H, W]: its own range, widened
    upwards so that the threshold is no hotter than the middle.  A normal picture then stays
    cold."""
    low, high = float(anomaly_map.min()), float(anomaly_map.max())
    if threshold is not None and threshold > low:
        high = max(high, 2 * threshold - low)
    return low, high


def opacity_of(anomaly_map: np.ndarray, low: float, high: float) -> np.ndarray:
    """How much of a colour is seen, [H, W] in [0, 1]: the cold quarter of the range is transparent;
    from the middle on colours are whole."""
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
    boxes: Sequence[LabelledBox] = (),
    ignored: np.ndarray | None = None,
    caption: str = "",
) -> Image.Image:
    """The picture under its heat map, at most ``side`` pixels a side.

    ``anomaly_map`` [h, w] covers the whole picture and may be of any size.  The cold quarter of
    the range is transparent; from the middle on colours have ``opacity``.  ``outlines``: lines
    around regions, points (x, y) in pixels of the picture.  ``boxes``: (left, top, right, bottom)
    as fractions of the picture, each with words.  ``ignored`` [H, W] of the picture's size: pixels
    that are shown grey and without colours.  ``caption``: a line at the lower edge.
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
    _draw_boxes(shown, boxes)
    if caption:
        height = _letters(shown)
        at = (height // 2, shown.height - height - height // 2)
        _write(shown, at, caption, "white")
    return shown


def _letters(shown: Image.Image) -> int:
    """The height of letters, in pixels."""
    return max(8, min(20, shown.width // 40))


def _write(
    shown: Image.Image, at: tuple[float, float], text: str, colour: str | tuple[int, int, int]
) -> None:
    font = ImageFont.load_default(_letters(shown))
    ImageDraw.Draw(shown).text(at, text, colour, font, stroke_width=1, stroke_fill="black")


def _draw_boxes(shown: Image.Image, boxes: Sequence[LabelledBox]) -> None:
    """Rectangles with a dark rim, the last of ``boxes`` first, so that the best lies on top; the
    words stand above the upper edge, or below it where there is no room."""
    pen = ImageDraw.Draw(shown)
    width = max(1, round(max(shown.size) / 400))
    height = _letters(shown)
    for (left, top, right, bottom), words in reversed(boxes):
        across, down = shown.width - 1, shown.height - 1
        corners = (left * across, top * down, right * across, bottom * down)
        pen.rectangle(corners, outline="black", width=width + 2)
        inner = (corners[0] + 1, corners[1] + 1, corners[2] - 1, corners[3] - 1)
        if inner[2] > inner[0] and inner[3] > inner[1]:
            pen.rectangle(inner, outline=BOX, width=width)
        above = corners[1] - height - 4
        at = (corners[0] + 3, above if above >= 0 else corners[1] + width + 2)
        room = pen.textlength(words, ImageFont.load_default(height))
        _write(shown, (max(0.0, min(at[0], shown.width - room - 3)), at[1]), words, BOX)


def _draw(shown: Image.Image, outlines: Sequence[Outline], across: float, down: float) -> None:
    """Lines in white with a dark rim, which is seen on any ground."""
    pen = ImageDraw.Draw(shown)
    width = max(1, round(max(shown.size) / 400))
    for colour, thickness in (("black", width + 2), ("white", width)):
        for line in outlines:
            points = [(x * across, y * down) for x, y in line]
            if len(points) > 1:
                pen.line([*points, points[0]], fill=colour, width=thickness, joint="curve")


def mask(marked: NDArray[np.bool_]) -> Image.Image:
    """A black and white picture: white where ``marked`` [H, W]."""
    return Image.fromarray(marked.astype(np.uint8) * np.uint8(255))

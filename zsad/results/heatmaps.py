"""Pictures of anomaly maps: heat maps over the image, and masks at a threshold."""

from __future__ import annotations

import numpy as np
from PIL import Image

# A perceptually ordered ramp from transparent dark blue to yellow (RGB anchors of equal steps).
_RAMP = np.array(
    [(13, 8, 135), (84, 2, 163), (156, 23, 158), (204, 71, 120), (240, 127, 79), (240, 249, 33)],
    dtype=np.float64,
)


def heat(anomaly_map: np.ndarray, low: float, high: float) -> np.ndarray:
    """Colours [H, W, 3] uint8 of a map [H, W]; values at or below ``low`` are the coldest."""
    span = high - low
    level = np.clip((anomaly_map.astype(np.float64) - low) / span, 0, 1) if span > 0 else None
    if level is None:  # a constant map has no hot place
        level = np.zeros(anomaly_map.shape)
    at = level * (len(_RAMP) - 1)
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


def overlay(
    image: Image.Image, anomaly_map: np.ndarray, low: float, high: float, opacity: float = 0.5
) -> Image.Image:
    """The picture under its heat map.  ``anomaly_map`` [H, W] has the picture's size."""
    if anomaly_map.shape != (image.height, image.width):
        raise ValueError(
            f"the map is {anomaly_map.shape}, the picture {(image.height, image.width)}"
        )
    colours = Image.fromarray(heat(anomaly_map, low, high))
    return Image.blend(image.convert("RGB"), colours, opacity)


def mask(anomaly_map: np.ndarray, threshold: float) -> Image.Image:
    """A black and white picture: white where the map reaches ``threshold``."""
    return Image.fromarray(((anomaly_map >= threshold) * 255).astype(np.uint8))

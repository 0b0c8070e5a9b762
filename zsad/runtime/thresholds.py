"""The thresholds of one picture, by the values of its map; the rules are those
of :mod:`zsad.inference.calibration`, which makes the thresholds of many pictures."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

MIDDLE = 0.5
DEVIATIONS = 5.0
GAUSSIAN_MAD = 1.4826  # standard deviations of a normal distribution in a median absolute one
GAUSSIAN_MEAN = 1.2533  # and in a mean absolute one


@dataclass(frozen=True)
class Thresholds:
    """From where on a picture (``image``) and a pixel (``pixel``) count as anomalous; both
    inclusive; None: no rule says.  :mod:`zsad.inference.calibration` has the rules.

    ``contrast``: of a calibration, by how many robust deviations a pixel must rise above the
    middle of its own map; ``rise``: in its place for pictures in tiles, by how much.  ``pixel``
    then follows from each picture's map, and is None before.
    ``normal_pictures`` and ``false_alarms`` (the highest expected share of normal pictures that
    are called anomalous) are those of a calibration; ``mask_false_alarms``: the share of them
    with anything marked, where that is an estimate below ``false_alarms``.
    """

    image: float | None
    pixel: float | None
    rule: Literal["uncalibrated", "calibrated", "given"] = "uncalibrated"
    normal_pictures: int = 0
    false_alarms: float | None = None
    contrast: float | None = None
    rise: float | None = None
    mask_false_alarms: float | None = None


def of_picture(
    limits: Thresholds | None, seen: NDArray[np.float32], reads_text: bool
) -> Thresholds:
    """The thresholds of one picture: ``limits`` made out for the values of its map that are
    ``seen`` (of any shape), or, without any, the uncalibrated ones."""
    if limits is None:
        return uncalibrated(seen, reads_text)
    if limits.contrast is None and limits.rise is None:
        return limits
    middle, spread = level(seen)
    peak = float(seen.max())
    # Rounding must not decide whether anything is marked: that is what the promise is about.
    if limits.rise is not None:
        least, stands_out = limits.rise, height(seen, tiled=True) >= limits.rise
    else:
        least = (limits.contrast or 0.0) * spread
        stands_out = height(seen) >= (limits.contrast or 0.0)
    pixel = float(np.float32(middle + max(least, (peak - middle) / 2)))
    return replace(limits, pixel=min(pixel, peak) if stands_out else max(pixel, just_above(peak)))


def uncalibrated(anomaly_map: np.ndarray, reads_text: bool) -> Thresholds:
    """The thresholds of one picture by the values of its map alone, of any shape."""
    values = np.asarray(anomaly_map, dtype=np.float64)
    middle = float(np.median(values))
    spread = GAUSSIAN_MAD * float(np.median(np.abs(values - middle)))
    pixel = middle + DEVIATIONS * spread
    if not spread:  # more than half of the map is flat: whatever is higher stands out
        pixel = just_above(middle)
    return Thresholds(MIDDLE if reads_text else None, pixel)


def level(values: np.ndarray) -> tuple[float, float]:
    """The median of a map's values, of any shape, and their robust standard deviation around it.

    Where more than half of the map is flat the mean absolute deviation takes the place of the
    median one; 0 for a map that is flat altogether.
    """
    exact = np.asarray(values, dtype=np.float64)
    middle = float(np.median(exact))
    distance = np.abs(exact - middle)
    spread = GAUSSIAN_MAD * float(np.median(distance))
    return middle, spread or GAUSSIAN_MEAN * float(distance.mean())


def contrast(values: np.ndarray) -> float:
    """By how many robust deviations the highest value of a map, of any shape, rises above its
    median: a number of 0 or above."""
    middle, spread = level(values)
    return (float(values.max()) - middle) / spread if spread else 0.0


def height(values: np.ndarray, tiled: bool = False) -> float:
    """What the highest value of a map is judged by: its :func:`contrast`, or, for a map of tiles,
    by how much it rises above the middle."""
    return float(values.max()) - level(values)[0] if tiled else contrast(values)


def just_above(value: float) -> float:
    """The next number of single precision, which scores and maps have."""
    single = np.float32(value)
    return float(single if single > value else np.nextafter(single, np.float32(np.inf)))

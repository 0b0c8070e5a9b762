"""From where on a picture, and a pixel of it, counts as anomalous.

**Uncalibrated.**  A method that compares texts has a score in which 0.5 means that normal and
anomalous descriptions fit equally well: that is the threshold of a picture.  A method without
texts has no such point, and none is made up.  A pixel is marked where the anomaly map exceeds
the picture's own median by five robust standard deviations (1.4826 times the median absolute
deviation): it stands out from the rest of its picture, whatever the scale of the map.  Nothing
says how often normal pictures lie above either threshold.

**Calibrated** on n normal pictures (split conformal prediction, Vovk et al. 2005).  With the
highest share of false alarms r that is wished for, the threshold lies just above the k-th smallest
of the n scores, k = min(n, ceil((n + 1)(1 - r))).  If later normal pictures are like these, a share
of at most (n + 1 - k) / (n + 1) of them is expected at or above it: r, or 1 / (n + 1) where there
are too few pictures for r.  The threshold of a pixel is the same figure of the maps' maxima: the
share is that of normal pictures with any pixel marked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from zsad.errors import DataError, RequestError
from zsad.inference.prediction import Thresholds
from zsad.io import read_json, write_json

FALSE_ALARMS = 0.05  # the default wish
MIDDLE = 0.5
DEVIATIONS = 5.0


def uncalibrated(anomaly_map: np.ndarray, reads_text: bool) -> Thresholds:
    """The thresholds of one picture by its map [H, W] alone."""
    values = np.asarray(anomaly_map, dtype=np.float64)
    middle = float(np.median(values))
    spread = 1.4826 * float(np.median(np.abs(values - middle)))
    pixel = middle + DEVIATIONS * spread
    if not spread:  # more than half of the map is flat: whatever is higher stands out
        pixel = _just_above(middle)
    return Thresholds(MIDDLE if reads_text else None, pixel)


def calibrated(
    image_scores: Sequence[float],
    map_maxima: Sequence[float],
    false_alarms: float = FALSE_ALARMS,
) -> Thresholds:
    """Thresholds from the scores and the maps' maxima of normal pictures.

    Raises :class:`RequestError` without a picture, or for a share outside of 0..1.
    """
    if not 0 < false_alarms < 1:
        raise RequestError(f"false alarms {false_alarms:g}: give a share between 0 and 1")
    if not image_scores:
        raise RequestError("calibration needs at least one normal picture")
    image, share = conformal(image_scores, false_alarms)
    pixel, _ = conformal(map_maxima, false_alarms)
    return Thresholds(image, pixel, "calibrated", len(image_scores), share)


def conformal(values: Sequence[float], share: float) -> tuple[float, float]:
    """A threshold, and the highest expected share of further values of this kind at or above it."""
    n = len(values)
    k = min(n, math.ceil(round((n + 1) * (1 - share), 9)))
    return _just_above(sorted(values)[k - 1]), (n + 1 - k) / (n + 1)


def _just_above(value: float) -> float:
    """The next number of single precision, which scores and maps have."""
    return float(np.nextafter(np.float32(value), np.float32(np.inf)))


# ------------------------------------------------------------------------------- storage
def save(path: Path | str, thresholds: Thresholds, made_for: Mapping[str, Any]) -> Path:
    """Write thresholds to a JSON file with what they were made for."""
    return write_json(path, {"thresholds": asdict(thresholds), "made_for": dict(made_for)})


def load(path: Path | str, made_for: Mapping[str, Any]) -> Thresholds:
    """Read thresholds.  Raises :class:`DataError` for a file of another kind, and
    :class:`RequestError` where they were made for something else than ``made_for``."""
    raw = read_json(path)
    try:
        found, other = Thresholds(**raw["thresholds"]), dict(raw["made_for"])
        numbers = [v for v in (found.image, found.pixel) if v is not None]
        if not all(isinstance(v, (int, float)) for v in numbers) or found.pixel is None:
            raise TypeError("a threshold is not a number")
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not a calibration file ({error})") from None
    for key in {**made_for, **other}:  # also what only the file was made for: tiles, say
        value = made_for.get(key)
        if other.get(key) != value:
            raise RequestError(
                f"{path}: was made for {key} {other.get(key)!r}, not {value!r}; calibrate again "
                f"with a folder of normal pictures"
            )
    return found

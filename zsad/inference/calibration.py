"""From where on a picture, and a pixel of it, counts as anomalous.

**Uncalibrated.**  A method that compares texts has a score in which 0.5 means that normal and
anomalous descriptions fit equally well: that is the threshold of a picture.  A method without
texts has no such point, and none is made up.  A pixel is marked where the anomaly map exceeds
the picture's own median by five robust standard deviations (1.4826 times the median absolute
deviation): it stands out from the rest of its picture, whatever the scale of the map.  Nothing
says how often normal pictures lie above either threshold.

**Calibrated** on n normal pictures (split conformal prediction, Vovk et al. 2005).  With the
largest share r of false alarms that is allowed, the threshold lies just above the k-th smallest
of the n scores, k = min(n, ceil((n + 1)(1 - r))).  If later normal pictures are like these, a share
of at most (n + 1 - k) / (n + 1) of them is expected at or above it: r, or 1 / (n + 1) where there
are too few pictures for r.

Pixels are told by their *contrast*, by how many robust deviations they rise above the median of
their own map.  The level of a map depends on its picture: with many methods it rises everywhere as
soon as something is wrong anywhere, and a threshold in values of the map would then mark all of
it.  The threshold of the contrast is the same order statistic of the highest contrast of each
normal map, so at most the same share of normal pictures is expected to have any pixel marked.
Where a map rises higher than that, what is marked is its upper half: from half way between its
median and its peak on, the usual full width at half maximum.  A peak is above its own half, so
this changes how much is marked, never whether anything is.

In a map of **tiles** a defect raises its own tile and leaves the others as they are, so the level
of the map does not follow it, and the deviation of the whole says how varied the surface is, not
how high a defect may rise.  There the highest value counts by how much it rises above the median.

Where the wish r is below 1 / (n + 1) no order statistic fulfils it.  From :data:`FEWEST` normal
pictures on the threshold of a pixel is then raised to what the spread of the n figures lets
expect: the value that a share r exceeds of a Gumbel distribution with the first two L-moments of
the n figures (Hosking 1990).  Each is the largest of many values of a map, and such figures tend
to that distribution (Fisher and Tippett 1928).  This is an estimate, and no promise; the promise
of 1 / (n + 1) holds as before, since the threshold is only ever raised.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from zsad.errors import DataError, RequestError
from zsad.io import read_json, write_json
from zsad.runtime.thresholds import Thresholds, just_above
from zsad.runtime.thresholds import contrast as contrast
from zsad.runtime.thresholds import height as height
from zsad.runtime.thresholds import level as level
from zsad.runtime.thresholds import of_picture as of_picture
from zsad.runtime.thresholds import uncalibrated as uncalibrated

FALSE_ALARMS = 0.05  # the default wish
FEWEST = 10  # normal pictures whose spread is taken for that of all
EULER = 0.5772156649015329  # the mean of the standard Gumbel distribution


# ---------------------------------------------------------------------------- many pictures
def calibrated(
    image_scores: Sequence[float],
    heights: Sequence[float],
    false_alarms: float = FALSE_ALARMS,
    tiled: bool = False,
) -> Thresholds:
    """Thresholds from the scores of normal pictures and the heights of their maps, which are
    :func:`zsad.runtime.thresholds.height` of maps in tiles or not.

    Raises :class:`RequestError` without a picture, or for a share outside of 0..1.
    """
    if not 0 < false_alarms < 1:
        raise RequestError(f"false alarms {false_alarms:g}: give a share between 0 and 1")
    if not image_scores:
        raise RequestError("calibration needs at least one normal picture")
    image, share = conformal(image_scores, false_alarms)
    least, masks = of_heights(heights, false_alarms)
    found = Thresholds(image, None, "calibrated", len(image_scores), share)
    found = replace(found, mask_false_alarms=masks if masks < share else None)
    return replace(found, rise=least) if tiled else replace(found, contrast=least)


def conformal(values: Sequence[float], share: float) -> tuple[float, float]:
    """A threshold, and the highest expected share of further values of this kind at or above it."""
    n = len(values)
    k = min(n, math.ceil(round((n + 1) * (1 - share), 9)))
    return just_above(sorted(values)[k - 1]), (n + 1 - k) / (n + 1)


def of_heights(heights: Sequence[float], share: float) -> tuple[float, float]:
    """A threshold for the heights of maps, and the share of further ones that is expected at or
    above it: promised, or estimated where ``share`` is less than their number can promise."""
    threshold, promised = conformal(heights, share)
    if share >= promised or len(heights) < FEWEST:
        return threshold, promised
    return max(threshold, just_above(exceeded(heights, share))), share


def exceeded(values: Sequence[float], share: float) -> float:
    """What a ``share`` of further values exceeds, if all are those of a Gumbel distribution."""
    ordered = sorted(values)
    n = len(ordered)
    mean = math.fsum(ordered) / n
    # The second L-moment: half the expected difference of two values.
    half = 2 * math.fsum(i * v for i, v in enumerate(ordered)) / (n * (n - 1)) - mean
    scale = half / math.log(2)
    return mean - scale * (EULER + math.log(-math.log1p(-share)))


# ------------------------------------------------------------------------------- storage
def save(
    path: Path | str,
    thresholds: Thresholds,
    made_for: Mapping[str, Any],
    made_by: Mapping[str, Any] | None = None,
) -> Path:
    """Write thresholds to a JSON file with what they hold for, and what made them."""
    content = {"thresholds": asdict(thresholds), "made_for": dict(made_for)}
    return write_json(path, {**content, "made_by": dict(made_by or {})})


def load(path: Path | str, made_for: Mapping[str, Any]) -> Thresholds:
    """Read thresholds.  Raises :class:`DataError` for a file of another kind, and
    :class:`RequestError` where they were made for something else than ``made_for``, or by a rule
    that has changed since."""
    raw = read_json(path)
    try:
        found, other = Thresholds(**raw["thresholds"]), dict(raw["made_for"])
        _check(found)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not a calibration file ({error})") from None
    again = "calibrate again with a folder of normal pictures"
    for key in [*made_for, *sorted(set(other) - set(made_for))]:
        if other.get(key) != made_for.get(key):
            raise RequestError(
                f"{path}: was made for {key} {other.get(key)!r}, not {made_for.get(key)!r}; {again}"
            )
    if found.contrast is None and found.rise is None:
        raise RequestError(
            f"{path}: was made by an earlier version, whose masks marked too much; {again}"
        )
    return found


def _check(found: Thresholds) -> None:
    """Raise ``TypeError`` or ``ValueError`` for what no calibration gives."""
    shares = (found.false_alarms, found.mask_false_alarms)
    for value in (found.image, found.pixel, found.contrast, found.rise, *shares):
        if value is not None and (type(value) not in (int, float) or not math.isfinite(value)):
            raise TypeError("a threshold is not a number")
    if found.image is None:
        raise TypeError("it holds no threshold of a picture")
    if found.rule != "calibrated":
        raise ValueError(f"its rule is {found.rule!r}")
    if type(found.normal_pictures) is not int or found.normal_pictures < 1:
        raise ValueError(f"of {found.normal_pictures!r} normal pictures")
    if any(value is not None and not 0 < value < 1 for value in shares):
        raise ValueError("its false alarms are not a share between 0 and 1")
    if min(found.contrast or 0, found.rise or 0) < 0:
        raise ValueError("a contrast below 0")

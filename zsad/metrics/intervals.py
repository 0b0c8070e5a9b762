"""Confidence intervals of image AUROC and AP that hold at the border, too.

A percentile bootstrap has no width where a method makes no mistake in the sample at hand, which is
what small collections of images show; the intervals here do not rest on the sample's own spread.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm, t

from zsad.errors import RequestError, counted
from zsad.metrics.spec import resampled
from zsad.metrics.statistics import Interval, bootstrap_ci, checked, image_metric

FEWEST = 5  # images of each label below which no interval is given
_STEPS = 2000  # of the integral over the true-positive rate
_TINY = 1e-9


def confidence_interval(
    image_scores: Any, labels: Any, metric: str | None = None, level: float = 0.95
) -> Interval:
    """Return an interval of an image metric (None: AUROC), of images drawn within each class.

    image_scores [N] of any scale, labels [N] in {0, 1}.  AUROC: Newcombe (2006, method 5), the
    score interval of Hanley's and McNeil's variance, with Student's quantile for small samples.
    AP: the hull of the percentile bootstrap and of the AUROC interval carried over by the
    equal-variance binormal model; wider than needed rather than too narrow.  In simulations
    (tests/metrics/test_intervals.py) at least 93 % hold the truth.  Raises :class:`RequestError`
    for fewer than :data:`FEWEST` images of a label.
    """
    scores, truth = checked(image_scores, labels)
    anomalous = int(truth.sum())
    normal = len(truth) - anomalous
    if min(normal, anomalous) < FEWEST:
        raise RequestError(
            f"{normal} normal and {counted(anomalous, 'anomalous image')} are too few for an "
            f"interval; take at least {FEWEST} of each"
        )
    area = image_metric(scores, truth)
    low, high = auroc_bounds(area, normal, anomalous, level)
    if metric in (None, next(iter(resampled()))):
        return Interval(area, low, high, level)
    drawn = bootstrap_ci(scores, truth, metric, level)
    share = anomalous / len(truth)
    shift = drawn.value - binormal_ap(area, share)
    carried = binormal_ap(low, share) + shift, binormal_ap(high, share) + max(shift, 0.0)
    top = 1.0 if area == 1 else min(1.0, max(drawn.high, carried[1]))
    return Interval(drawn.value, max(0.0, min(drawn.low, carried[0])), top, level)


def auroc_bounds(area: float, normal: int, anomalous: int, level: float) -> tuple[float, float]:
    """The bounds of an AUROC ``area`` in [0, 1] for so many images of each label."""
    quantile = float(t.isf((1 - level) / 2, normal + anomalous - 2))

    def reach(theta: float) -> float:
        """How far an estimate may lie from ``theta``."""
        half = (normal + anomalous) / 2 - 1
        spread = 1 + half * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return quantile * math.sqrt(theta * (1 - theta) * spread / (normal * anomalous))

    def below(theta: float) -> float:
        return area - theta - reach(theta)

    def above(theta: float) -> float:
        return theta - area - reach(theta)

    low = brentq(below, 0.0, min(area, 1 - _TINY)) if area > 0 else 0.0
    high = brentq(above, max(area, _TINY), 1.0) if area < 1 else 1.0
    return float(low), float(high)


@cache
def binormal_ap(area: float, share: float) -> float:
    """The AP of two normal distributions of one variance with this AUROC, where ``share`` of the
    images is anomalous."""
    rate = (np.arange(_STEPS) + 0.5) / _STEPS
    distance = math.sqrt(2) * float(norm.ppf(min(max(area, _TINY), 1 - _TINY)))
    alarms = norm.sf(distance + norm.isf(rate))
    return float(np.mean(share * rate / (share * rate + (1 - share) * alarms)))

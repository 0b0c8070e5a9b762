"""Intervals and paired tests of pixel metrics, by drawing and swapping whole images.

Counts over a few dozen bins (:mod:`zsad.metrics.pixel_table`) give a metric that lies a little off
the exact one; an interval is shifted by that distance, on the scale of the logit, so that it is one
of the exact value.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit, logit
from scipy.stats import t

from zsad.errors import RequestError, counted, unknown
from zsad.metrics import spec
from zsad.metrics.intervals import FEWEST
from zsad.metrics.pixel_table import PixelTable, joined
from zsad.metrics.statistics import Interval, PairedTest, ap_rows, auroc_rows

EDGE = 1e-6  # how near to 0 and 1 log odds are taken


class Drawn(NamedTuple):
    """Pixels of R draws of images over K bins, the highest first: ``found`` (anomalous), ``alarms``
    (normal) and ``overlap`` [R, K], ``regions`` [R]; ``limit``: false-positive rate of AUPRO."""

    found: np.ndarray
    alarms: np.ndarray
    overlap: np.ndarray
    regions: np.ndarray
    limit: float


def auroc(drawn: Drawn) -> np.ndarray:
    """Pixel AUROC of each draw [R]."""
    return auroc_rows(drawn.found, drawn.alarms)


def average_precision(drawn: Drawn) -> np.ndarray:
    """Pixel AP of each draw [R]."""
    return ap_rows(drawn.found, drawn.alarms)


def f1_max(drawn: Drawn) -> np.ndarray:
    """Pixel F1-max of each draw [R]."""
    hits = np.cumsum(drawn.found, axis=1)
    taken = hits + np.cumsum(drawn.alarms, axis=1)
    found = 2 * hits / np.maximum(taken + drawn.found.sum(1, keepdims=True), 1)
    return np.asarray(found.max(1))


def aupro(drawn: Drawn) -> np.ndarray:
    """AUPRO of each draw [R], straight lines between bins, cut off at the limit."""
    start = np.zeros((len(drawn.found), 1))
    rate = np.cumsum(drawn.alarms, axis=1) / drawn.alarms.sum(1, keepdims=True)
    cover = np.cumsum(drawn.overlap, axis=1) / np.maximum(drawn.regions, 1)[:, None]
    rate, cover = np.hstack([start, rate]), np.hstack([start, cover])
    left, right = rate[:, :-1].clip(max=drawn.limit), rate[:, 1:].clip(max=drawn.limit)
    width = np.diff(rate, axis=1)
    part = np.divide(right - left, width, out=np.zeros_like(width), where=width > 0)
    end = cover[:, :-1] + part * np.diff(cover, axis=1)
    return np.asarray(((right - left) * (cover[:, :-1] + end) / 2).sum(1) / drawn.limit)


def pixel_interval(
    table: PixelTable,
    labels: Any,
    metric: str,
    value: float,
    limit: float = 0.3,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Return the interval of a pixel metric over images drawn with replacement within each label.

    ``table``: counts of N images; labels [N] in {0, 1}; ``value``: the exact metric in [0, 1].
    The interval is Student's on the scale of the logit, on which a metric near 1 has room: the
    deviation of the draws, the quantile of the smaller number n of images, the factor
    sqrt(n / (n - 1)), and the centre corrected by the draws' bias (Efron and Tibshirani 1993, ch.
    10; ``benchmarks/intervals.py`` says how often it holds).

    Raises :class:`RequestError` for fewer than ``FEWEST`` images of a label, or a metric that
    cannot be drawn.
    """
    truth, of = np.asarray(labels) > 0, _metric(metric)
    anomalous = int(truth.sum())
    fewest = min(anomalous, len(truth) - anomalous)
    if fewest < FEWEST:
        raise RequestError(
            f"{len(truth) - anomalous} normal and {counted(anomalous, 'anomalous image')} are too "
            f"few for an interval; take at least {FEWEST} of each"
        )
    random = np.random.default_rng(seed)
    copies = np.zeros((resamples, len(truth)))
    for kind in (truth, ~truth):
        size = int(kind.sum())
        copies[:, kind] = random.multinomial(size, np.full(size, 1 / size), size=resamples)
    whole = _logit(of(_drawn(table, np.ones((1, len(truth))), limit)))[0]
    draws = _logit(of(_drawn(table, copies, limit)))
    centre = _logit(np.array([value]))[0] - (draws.mean() - whole)
    wide = float(t.isf((1 - level) / 2, fewest - 1)) * math.sqrt(fewest / (fewest - 1))
    ends = expit(centre + np.array([-1, 1]) * wide * draws.std(ddof=1)) if draws.std() else value
    low, high = np.broadcast_to(ends, 2)
    bounds = [float(np.clip(b, 0, 1)) for b in (low, high)]
    return Interval(value, min(bounds[0], value), max(bounds[1], value), level)


def pixel_permutation(
    first: PixelTable,
    second: PixelTable,
    metric: str,
    limit: float = 0.3,
    permutations: int = 2000,
    seed: int = 0,
) -> PairedTest:
    """Test whether the maps of two methods differ on the same images; two-sided.

    Under the null hypothesis it does not matter which method made an image's map, so that maps are
    swapped image by image at random; scores are compared by their ranks among all pixels of their
    method.  ``difference``: of the binned metrics.  p = (1 + hits) / (1 + permutations).
    """
    of = _metric(metric)
    a, b = joined(first, second)
    everything = np.ones((1, len(a.regions)))
    observed = float((of(_drawn(a, everything, limit)) - of(_drawn(b, everything, limit)))[0])
    random = np.random.default_rng(seed)
    swap = (random.random((permutations, len(a.regions))) < 0.5).astype(np.float64)
    one = _mixed(_drawn(a, 1 - swap, limit), _drawn(b, swap, limit))
    other = _mixed(_drawn(a, swap, limit), _drawn(b, 1 - swap, limit))
    hits = int((np.abs(of(one) - of(other)) >= abs(observed) - 1e-12).sum())
    return PairedTest(observed, (1 + hits) / (1 + permutations))


def _logit(values: np.ndarray) -> np.ndarray:
    """The log odds, of 0 and 1 those of a millionth off."""
    return np.asarray(logit(values.clip(EDGE, 1 - EDGE)))


def _metric(name: str) -> Callable[[Drawn], np.ndarray]:
    able = spec.drawn()
    if name not in able:
        raise unknown("pixel metric", name, able)
    found: Callable[[Drawn], np.ndarray] = spec.resolve(able[name].drawn)
    return found


def _drawn(table: PixelTable, copies: np.ndarray, limit: float) -> Drawn:
    """The pixels of ``copies`` [R, N] of the images."""
    found, alarms, overlap = (copies @ p for p in (table.anomalous, table.normal, table.overlap))
    return Drawn(found, alarms, overlap, copies @ table.regions, limit)


def _mixed(one: Drawn, other: Drawn) -> Drawn:
    """The images of two draws together."""
    found, alarms, overlap, regions = (a + b for a, b in zip(one[:4], other[:4]))
    return Drawn(found, alarms, overlap, regions, one.limit)

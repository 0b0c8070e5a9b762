"""Ranking metrics as plain functions of a :class:`Curve`, and how far binning can move them.

Every metric here depends on scores only through their order and ties.  ``*_bound`` functions
return the largest distance that the exact value can have from the value of a curve whose groups
are *bins*: sets of scores that lie next to each other and were counted as if they were equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.special import digamma

RELEASED_STEPS = 200  # thresholds of the released PRO code
RELEASED_LIMIT = 0.3  # its false-positive limit, fixed


@dataclass(frozen=True)
class Curve:
    """Counts of tied (or binned) scores, highest first; K groups.

    ``thresholds`` [K]: a lower bound of each group's scores, descending.
    ``normal``, ``anomalous`` [K]: how many of each the group holds (int64).
    ``overlap`` [K] (pixels only): summed over all regions, the fraction of a region's pixels
    that the group holds; it adds up to ``regions``.
    ``mixed`` [K] (binned curves): whether a group holds different scores; None where no group
    mixes different scores of both kinds.
    """

    thresholds: np.ndarray
    normal: np.ndarray
    anomalous: np.ndarray
    overlap: np.ndarray | None = None
    regions: int = 0
    mixed: np.ndarray | None = None

    @cached_property
    def n_normal(self) -> int:
        return int(self.normal.sum())

    @cached_property
    def n_anomalous(self) -> int:
        return int(self.anomalous.sum())

    # Sums over the groups, which most metrics ask for: found once, not to be changed.
    @cached_property
    def alarms(self) -> np.ndarray:
        """Normal items at or above each threshold: [K + 1], from 0."""
        return _rising(self.normal)

    @cached_property
    def found(self) -> np.ndarray:
        """Anomalous items at or above each threshold: [K + 1], from 0."""
        return _rising(self.anomalous)

    @cached_property
    def hits(self) -> np.ndarray:
        """Which groups hold anomalous items."""
        return np.flatnonzero(self.anomalous > 0)

    @classmethod
    def from_scores(
        cls,
        normal: np.ndarray,
        anomalous: np.ndarray,
        weights: np.ndarray | None = None,
        regions: int = 0,
        cuts: np.ndarray | None = None,
        ordered: bool = False,
    ) -> Curve:
        """Build the exact curve of scores of normal [N] and anomalous [M] items.

        ``weights`` [M]: 1 / area of the region that an anomalous pixel belongs to.  Normal
        scores between two neighbouring anomalous ones form one group: they lie on a straight
        piece of every curve, so no metric changes, and K stays below 2 M + 2.  ``cuts``: further
        values that no group may reach across, for reading the curve at given thresholds.
        ``ordered``: the normal scores rise.
        """
        normal = normal if ordered else np.sort(normal)
        values = np.unique(anomalous if cuts is None else np.concatenate([anomalous, cuts]))
        place = np.searchsorted(values, anomalous)
        counts = np.bincount(place, minlength=len(values))
        share = np.bincount(place, weights=weights, minlength=len(values))
        below = np.searchsorted(normal, values, "left")  # normal scores < value
        upto = below.copy()  # normal scores <= value: few values are those of normal items, too
        if len(normal):
            met = np.flatnonzero(normal[below.clip(max=len(normal) - 1)] == values)
            upto[met] = np.searchsorted(normal, values[met], "right")
        # groups in ascending order: gap 0, value 0, gap 1, value 1, ..., gap M'
        size = 2 * len(values) + 1
        gap_start = np.concatenate([[0], upto])
        gap_end = np.concatenate([below, [len(normal)]])
        negatives = np.empty(size, np.int64)
        negatives[0::2], negatives[1::2] = gap_end - gap_start, upto - below
        positives = np.zeros(size, np.int64)
        positives[1::2] = counts
        overlap = np.zeros(size)
        overlap[1::2] = share
        thresholds = np.empty(size, np.result_type(normal, values))
        if len(normal):  # an empty last gap may start past the end
            thresholds[0::2] = normal[gap_start.clip(max=len(normal) - 1)]
        thresholds[1::2] = values
        keep = np.flatnonzero(negatives + positives)[::-1]
        return cls(
            thresholds[keep],
            negatives[keep],
            positives[keep],
            None if weights is None else overlap[keep],
            regions,
        )

    # points of the curve: one more than groups, the first one above every score
    @cached_property
    def _rate(self) -> np.ndarray:
        return self.alarms / self.n_normal

    @cached_property
    def _cover(self) -> np.ndarray:
        if self.overlap is None or not self.regions:
            raise ValueError("the curve holds no regions")
        return _rising(self.overlap) / self.regions

    def false_positive_rate(self) -> np.ndarray:
        """Share of normal items at or above each threshold: [K + 1], from 0 to 1."""
        return self._rate

    def true_positive_rate(self) -> np.ndarray:
        """Share of anomalous items at or above each threshold: [K + 1], from 0 to 1."""
        return self.found / self.n_anomalous

    def mean_overlap(self) -> np.ndarray:
        """Mean over all regions of the share of the region found: [K + 1], from 0 to 1."""
        return self._cover


def _rising(counts: np.ndarray) -> np.ndarray:
    """Sums of counts [K] from the first on: [K + 1] float64, from 0."""
    # in the same order as numpy's and several times faster; counts of whole numbers stay exact
    sums = torch.from_numpy(np.ascontiguousarray(counts)).cumsum(0).numpy()
    return np.concatenate([[0.0], sums])


# ----------------------------------------------------------------------------------- metrics
def auroc(curve: Curve) -> float:
    """Return the probability that an anomalous item outranks a normal one, ties counting 1/2."""
    found = curve.found
    middle = found[:-1] + found[1:]
    middle /= 2
    pairs = np.dot(curve.normal.astype(np.float64), middle)
    return float(pairs / (curve.n_normal * curve.n_anomalous))


def average_precision(curve: Curve) -> float:
    """Return sum over thresholds of (recall step) x precision, scikit-learn's definition."""
    found, alarms = curve.found[1:], curve.alarms[1:]
    precision = found + alarms
    np.divide(found, precision, out=precision)
    return float(np.dot(curve.anomalous.astype(np.float64), precision) / curve.n_anomalous)


def f1_max(curve: Curve) -> float:
    """Return the largest F1 = 2 TP / (P + TP + FP) over all thresholds."""
    found, alarms = _at_hits(curve)
    return float((2 * found / (curve.n_anomalous + found + alarms)).max(initial=0))


def iou_max(curve: Curve) -> float:
    """Return the largest intersection over union, TP / (P + FP), over all thresholds."""
    found, alarms = _at_hits(curve)
    return float((found / (curve.n_anomalous + alarms)).max(initial=0))


def _at_hits(curve: Curve) -> tuple[np.ndarray, np.ndarray]:
    """The anomalous and normal items at or above the thresholds of groups with anomalous items:
    where a balance of the two can be largest, as normal items alone lower it."""
    return curve.found[1:][curve.hits], curve.alarms[1:][curve.hits]


def aupro(curve: Curve, limit: float = 0.3) -> float:
    """Return the area under mean region overlap over false-positive rate in [0, limit], / limit.

    Points of all distinct thresholds (a pixel is found if its score >= threshold), joined by
    straight lines from (0, 0) and cut off at ``limit`` by interpolation (Bergmann et al. 2021).
    A perfect map gives 1, a constant one ``limit / 2``.
    """
    rate, overlap = _cut(curve.false_positive_rate(), curve.mean_overlap(), limit)
    return _area(rate, overlap) / limit


def aupro_200(curve: Curve, low: np.floating, high: np.floating) -> float | None:
    """Return the approximation of AUPRO that the released repositories publish, or None.

    Thresholds climb from ``low`` (the smallest score of all maps) in steps of a 200th of the
    range, ``high`` excluded; a pixel is found if it lies *above* the threshold; points with a
    false-positive rate below 0.3 are kept and their rates stretched to [0, 1]; no point is added
    at 0.3.  None where fewer than two distinct rates remain.  ``low`` and ``high`` carry the
    precision of the maps: the thresholds are computed in it.  Exact if no group of the curve
    reaches across a threshold; otherwise such a group counts as not above it.
    """
    steps = released_steps(low, high)
    above = np.searchsorted(-curve.thresholds, -steps, "left")  # groups above each step
    rate, overlap = curve.false_positive_rate()[above], curve.mean_overlap()[above]
    keep = rate < RELEASED_LIMIT
    rate, overlap = rate[keep], overlap[keep]
    if len(rate) < 2 or rate.max() == rate.min():
        return None
    rate = (rate - rate.min()) / (rate.max() - rate.min())
    return _area(rate[::-1], overlap[::-1])  # rates fall as thresholds climb


def released_steps(low: np.floating, high: np.floating) -> np.ndarray:
    """Return the thresholds of the released PRO code (in the precision of its arguments)."""
    if not high > low:
        return np.zeros(0, np.asarray(low).dtype)
    return np.arange(low, high, (high - low) / RELEASED_STEPS)


def _area(x: np.ndarray, y: np.ndarray) -> float:
    """Integrate by trapezoids."""
    return float(np.dot(np.diff(x), (y[:-1] + y[1:]) / 2))


def _cut(rate: np.ndarray, value: np.ndarray, limit: float) -> tuple[np.ndarray, np.ndarray]:
    """Keep the points up to ``rate == limit``, the last one interpolated."""
    inside = int(np.searchsorted(rate, limit, "right"))
    kept_rate, kept_value = rate[:inside], value[:inside]
    if inside < len(rate) and kept_rate[-1] < limit:
        share = (limit - kept_rate[-1]) / (rate[inside] - kept_rate[-1])
        end = kept_value[-1] + share * (value[inside] - kept_value[-1])
        kept_rate, kept_value = np.append(kept_rate, limit), np.append(kept_value, end)
    return kept_rate, kept_value


# ------------------------------------------------------------------------------ error bounds
def auroc_bound(curve: Curve) -> float:
    """Return half the share of (normal, anomalous) pairs that share a mixed bin.

    Only such pairs can be ranked wrongly, and each is counted as 1/2 instead of 0, 1/2 or 1.
    """
    if curve.mixed is None:
        return 0.0
    hit = _mixed_hits(curve)
    n, p = curve.normal[hit], curve.anomalous[hit]
    shared = np.dot(n.astype(np.float64), p.astype(np.float64))
    return float(shared / 2 / (curve.n_normal * curve.n_anomalous))


def average_precision_bound(curve: Curve) -> float:
    """Return the largest error of AP over all orders and ties inside the mixed bins.

    With t anomalous and f normal items above a bin of p and n: the bin's i-th anomalous item
    has at least precision (t + i) / (t + i + f + n) and at most (t + p) / (t + p + f).
    """
    if curve.mixed is None:
        return 0.0
    hit = _mixed_hits(curve)
    p, n = curve.anomalous[hit].astype(np.float64), curve.normal[hit].astype(np.float64)
    t, f = curve.found[hit], curve.alarms[hit]  # above the bin
    used = p * (t + p) / (t + p + f + n)
    highest = p * (t + p) / (t + p + f)
    # sum_{i=1..p} (t + i) / (t + i + c) = p - c * (H(t + p + c) - H(t + c)), c = f + n
    c = f + n
    lowest = p - c * (digamma(t + p + c + 1) - digamma(t + c + 1))
    return float(np.maximum(highest - used, used - lowest).sum() / curve.n_anomalous)


def f1_max_bound(curve: Curve) -> float:
    """Return how much larger the exact F1-max can be (it is never smaller).

    Bin borders are thresholds of the exact curve too; inside a mixed bin the best case finds all
    its anomalous items before any normal one.
    """
    if curve.mixed is None:
        return 0.0
    hit = _mixed_hits(curve)
    found, alarms = curve.found[hit + 1], curve.alarms[hit]
    best = 2 * found / (curve.n_anomalous + found + alarms)
    return max(0.0, float(best.max(initial=0)) - f1_max(curve))


def iou_max_bound(curve: Curve) -> float:
    """Return how much larger the exact IoU-max can be (it is never smaller).

    As for F1-max: the best case of a mixed bin finds all its anomalous items first.
    """
    if curve.mixed is None:
        return 0.0
    hit = _mixed_hits(curve)
    best = curve.found[hit + 1] / (curve.n_anomalous + curve.alarms[hit])
    return max(0.0, float(best.max(initial=0)) - iou_max(curve))


def aupro_bound(curve: Curve, limit: float = 0.3) -> float:
    """Return the largest error of AUPRO over all orders inside the mixed bins.

    Inside a bin the exact curve rises monotonically between the same two end points as the
    straight line: the areas differ by at most half the rectangle of the two, and by at most the
    whole rectangle left of ``limit`` in the bin that holds the limit.
    """
    if curve.mixed is None:
        return 0.0
    rate, overlap = curve.false_positive_rate(), curve.mean_overlap()
    inside = int(np.searchsorted(rate[1:], limit, "right"))  # the next bin holds the limit
    bins = np.flatnonzero(curve.mixed[:inside])
    start, rise = rate[bins], overlap[bins + 1] - overlap[bins]
    error = (rise * (rate[bins + 1] - start) / 2).sum()
    if inside < len(curve.mixed) and curve.mixed[inside] and rate[inside] < limit:
        error += (overlap[inside + 1] - overlap[inside]) * (limit - rate[inside])
    return float(error / limit)


def _mixed_hits(curve: Curve) -> np.ndarray:
    """Which groups hold anomalous items among different scores: they alone can be better ordered
    than they were counted."""
    assert curve.mixed is not None
    found: np.ndarray = curve.hits[curve.mixed[curve.hits]]
    return found

"""How sure a figure is: bootstrap intervals, paired tests of two methods, many tests at once.

All work on image scores (one number per image); randomness comes from an explicit seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata

from zsad.errors import RequestError, unknown
from zsad.metrics import spec

ImageMetric = str  # a name of zsad.metrics.spec.resampled
CELLS = 1 << 22  # numbers handled at once: bounds the memory of resampling


@dataclass(frozen=True)
class Interval:
    """``value`` of the metric and the bounds of its ``level`` confidence interval."""

    value: float
    low: float
    high: float
    level: float


@dataclass(frozen=True)
class PairedTest:
    """``difference`` = metric of the first method minus that of the second; two-sided p-value."""

    difference: float
    p_value: float


def image_metric(image_scores: Any, labels: Any, metric: ImageMetric | None = None) -> float:
    """Return an image metric (None: AUROC) of image_scores [N] and labels [N] in {0, 1}.

    Raises :class:`RequestError` unless both classes are present.
    """
    scores, truth = checked(image_scores, labels)
    return float(_of_scores(scores[None], truth, metric)[0])


def bootstrap_ci(
    image_scores: Any,
    labels: Any,
    metric: ImageMetric | None = None,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Return the percentile bootstrap interval of an image metric (None: AUROC) over images.

    image_scores [N] of any scale, labels [N] in {0, 1}.  Images are drawn with replacement
    within each class (stratified), so every resample is defined and keeps the prevalence, on
    which AP depends.  Raises :class:`RequestError` unless both classes are present.
    """
    scores, truth = checked(image_scores, labels)
    rows = _metric(metric)
    order = np.argsort(-scores, kind="stable")
    scores, truth = scores[order], truth[order]
    starts = np.flatnonzero(np.append(True, scores[1:] != scores[:-1]))
    random = np.random.default_rng(seed)
    values = np.empty(resamples)
    for part in _parts(resamples, len(scores)):
        count = part.stop - part.start
        copies = np.zeros((count, len(scores)))
        for kind in (truth, ~truth):
            size = int(kind.sum())
            copies[:, kind] = random.multinomial(size, np.full(size, 1 / size), size=count)
        found = np.add.reduceat(copies * truth, starts, axis=1)
        alarms = np.add.reduceat(copies * ~truth, starts, axis=1)
        values[part] = rows(found, alarms)
    tail = (1 - level) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return Interval(
        float(_of_scores(scores[None], truth, metric)[0]), float(low), float(high), level
    )


def paired_permutation(
    scores_a: Any,
    scores_b: Any,
    labels: Any,
    metric: ImageMetric | None = None,
    permutations: int = 5000,
    seed: int = 0,
) -> PairedTest:
    """Test whether two methods differ on the same images; two-sided.

    scores_a, scores_b [N] of any scale, labels [N].  Under the null hypothesis it does not matter
    which method gave an image its score, so the two are swapped image by image at random.  Scales
    differ between methods: scores become ranks within their method first, which changes no
    ranking metric (Venkatraman and Begg 1996).  p = (1 + hits) / (1 + permutations), never 0.
    """
    a, truth = checked(scores_a, labels)
    b, _ = checked(scores_b, labels)
    a, b = rankdata(a), rankdata(b)
    observed = float(np.subtract(*_of_scores(np.stack([a, b]), truth, metric)))
    random = np.random.default_rng(seed)
    hits = 0
    for part in _parts(permutations, len(a)):
        swap = random.random((part.stop - part.start, len(a))) < 0.5
        first = _of_scores(np.where(swap, b, a), truth, metric)
        second = _of_scores(np.where(swap, a, b), truth, metric)
        hits += int((np.abs(first - second) >= abs(observed) - 1e-12).sum())
    return PairedTest(observed, (1 + hits) / (1 + permutations))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for testing all of them (Holm 1979), in the same order."""
    p = np.asarray(p_values, dtype=np.float64)
    if p.size and not ((p >= 0) & (p <= 1)).all():
        raise RequestError("p-values must lie in [0, 1]")
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p)))).clip(max=1)
    adjusted = np.empty_like(p)
    adjusted[order] = steps
    return [float(v) for v in adjusted]


# ------------------------------------------------------------------- metrics of many rows
def auroc_rows(found: np.ndarray, alarms: np.ndarray) -> np.ndarray:
    """Return AUROC per row of anomalous and normal counts [R, K], groups from the highest."""
    above = np.cumsum(found, axis=1) - found
    pairs = (alarms * (above + found / 2)).sum(1)
    return np.asarray(pairs / (found.sum(1) * alarms.sum(1)))


def ap_rows(found: np.ndarray, alarms: np.ndarray) -> np.ndarray:
    """Return AP per row of anomalous and normal counts [R, K], groups from the highest."""
    hits = np.cumsum(found, axis=1)
    taken = hits + np.cumsum(alarms, axis=1)
    precision = np.divide(hits, taken, out=np.zeros_like(hits), where=taken > 0)
    return np.asarray((found * precision).sum(1) / found.sum(1))


def _metric(name: ImageMetric | None) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Return the function of a metric's name; None: of the first that can be resampled."""
    able = spec.resampled()
    found = next(iter(able.values())) if name is None else able.get(name)
    if found is None:
        raise unknown("image metric", str(name), able)
    rows: Callable[[np.ndarray, np.ndarray], np.ndarray] = spec.resolve(found.rows)
    return rows


def _of_scores(scores: np.ndarray, truth: np.ndarray, metric: ImageMetric | None) -> np.ndarray:
    """Return the metric of each row of scores [R, N] for one truth [N]."""
    order = np.argsort(-scores, axis=1, kind="stable")
    ranked = np.take_along_axis(scores, order, axis=1)
    found = truth[order].astype(np.float64)
    last = np.ones(ranked.shape, dtype=bool)  # the last of a group of ties
    last[:, :-1] = ranked[:, 1:] != ranked[:, :-1]
    # counts gather at the last member of each tie; the other members become empty groups
    return _metric(metric)(_gather(found, last), _gather(1 - found, last))


def _gather(counts: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Move the counts of each tie to its last member: [R, N]."""
    total = np.where(last, np.cumsum(counts, axis=1), 0)
    before = np.maximum.accumulate(total, axis=1)
    shifted = np.concatenate([np.zeros((len(total), 1)), before[:, :-1]], axis=1)
    return np.asarray(np.where(last, total - shifted, 0))


def _parts(rows: int, columns: int) -> list[slice]:
    step = max(1, CELLS // max(1, columns))
    return [slice(start, min(rows, start + step)) for start in range(0, rows, step)]


def checked(image_scores: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return scores [N] and labels [N] as arrays (the labels as truth values).

    Raises :class:`RequestError` unless both classes are present and all scores are finite.
    """
    scores = np.asarray(image_scores, dtype=np.float64)
    truth = np.asarray(labels) > 0
    if scores.ndim != 1 or truth.shape != scores.shape:
        raise RequestError(
            f"image scores {list(scores.shape)} and labels {list(truth.shape)} must be [N]"
        )
    if not np.isfinite(scores).all():
        raise RequestError("image scores hold NaN or infinite values")
    if truth.all() or not truth.any():
        raise RequestError(f"needs normal and anomalous images; all {len(truth)} are of one kind")
    return scores, truth

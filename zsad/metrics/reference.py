"""Slow, obvious versions of the metrics: the ground truth of tests and of ``zsad doctor``.

Written from the definitions, threshold by threshold and region by region, without sharing code
with the fast versions.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
from skimage import measure


def auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Compare every anomalous score with every normal one; a tie counts half."""
    wins = 0.0
    anomalous, normal = scores[labels == 1], scores[labels == 0]
    for score in anomalous:
        wins += (score > normal).sum() + 0.5 * (score == normal).sum()
    return float(wins / (len(anomalous) * len(normal)))


def average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """Add (recall step) x precision over all distinct thresholds, from the highest."""
    total, recall = 0.0, 0.0
    for threshold in np.unique(scores)[::-1]:
        found = scores >= threshold
        hits = (found & (labels == 1)).sum()
        total += (hits / (labels == 1).sum() - recall) * hits / found.sum()
        recall = hits / (labels == 1).sum()
    return float(total)


def f1_max(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the best F1 over all distinct thresholds."""
    best = 0.0
    for threshold in np.unique(scores):
        found = scores >= threshold
        hits = (found & (labels == 1)).sum()
        best = max(best, 2 * hits / (found.sum() + (labels == 1).sum()))
    return float(best)


def iou_max(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the best intersection over union over all distinct thresholds."""
    best = 0.0
    for threshold in np.unique(scores):
        found = scores >= threshold
        hits = (found & (labels == 1)).sum()
        best = max(best, hits / (found | (labels == 1)).sum())
    return float(best)


def aupro(maps: np.ndarray, masks: np.ndarray, limit: float = 0.3) -> float:
    """Return the area under mean overlap over false-positive rate in [0, limit], / limit.

    maps [N, H, W], masks [N, H, W] in {0, 1}.  One point per distinct score (found: score >=
    threshold), from (0, 0); linear interpolation at ``limit``.
    """
    thresholds = np.unique(maps)[::-1]
    rates, overlaps = _pro_points([maps >= t for t in thresholds], masks)
    rates, overlaps = np.append(0.0, rates), np.append(0.0, overlaps)
    area = 0.0
    for k in range(len(rates) - 1):
        left, right = rates[k], rates[k + 1]
        if left >= limit or left == right:
            continue
        end = min(right, limit)
        at_end = overlaps[k] + (overlaps[k + 1] - overlaps[k]) * (end - left) / (right - left)
        area += (end - left) * (overlaps[k] + at_end) / 2
    return float(area / limit)


def aupro_200(maps: np.ndarray, masks: np.ndarray, relabel: bool = False) -> float:
    """Return what the released threshold loop returns (AnomalyCLIP, FAPrompt and FiLo share it).

    200 steps from the smallest score of all maps, the largest excluded; found: score > threshold;
    points below rate 0.3 kept, their rates stretched to [0, 1]; trapezoids.  ``relabel``: find the
    regions again at every threshold, as the released code does (same result, for timing).
    """
    low, high = maps.min(), maps.max()
    steps = np.arange(low, high, (high - low) / 200)
    rates, overlaps = _pro_points((maps > t for t in steps), masks, relabel)
    keep = rates < 0.3
    rates, overlaps = rates[keep], overlaps[keep]
    rates = (rates - rates.min()) / (rates.max() - rates.min())
    area = 0.0
    for k in range(len(rates) - 1):
        area += (rates[k] - rates[k + 1]) * (overlaps[k] + overlaps[k + 1]) / 2
    return float(area)


def aupimo(
    maps: np.ndarray, masks: np.ndarray, low: float = 1e-5, high: float = 1e-4
) -> float | None:
    """Return the mean over anomalous images of :func:`aupimo_per_image`, or None."""
    values = aupimo_per_image(maps, masks, low, high)
    return None if values is None else float(np.mean(values))


def aupimo_per_image(
    maps: np.ndarray, masks: np.ndarray, low: float = 1e-5, high: float = 1e-4
) -> list[float] | None:
    """Return, of every anomalous image, the mean share of its mask that is found, over the
    logarithm of the false-positive rate in [low, high].

    maps [N, H, W], masks [N, H, W] in {0, 1}.  The rate of a threshold is that of each image
    without anomalous pixels (found: score >= threshold), averaged over these images.  Threshold by
    threshold from the highest score of a normal image, each as two points: just above it, and at
    it.  None where the rates cannot be told: no such images, or no rate up to ``low``.
    """
    normal = [m for m, mask in zip(maps, masks) if not mask.any()]
    anomalous = [m[mask > 0] for m, mask in zip(maps, masks) if mask.any()]
    if not normal or not anomalous:
        return None
    lines: list[list[tuple[float, float]]] = [[] for _ in anomalous]
    before = 0.0
    for threshold in np.unique(np.stack(normal))[::-1]:
        rate = float(np.mean([(m >= threshold).mean() for m in normal]))
        for line, scores in zip(lines, anomalous):
            line.append((before, float((scores > threshold).mean())))
            line.append((rate, float((scores >= threshold).mean())))
        before = rate
        if rate > high:
            break
    if lines[0][1][0] > low * (1 + 1e-9):
        return None
    return [_mean_over_log(line[1:], low, high) for line in lines]


def _mean_over_log(line: list[tuple[float, float]], low: float, high: float) -> float:
    """Return the mean height of a line over the logarithm of x, between ``low`` and ``high``."""
    total = 0.0
    for (x0, y0), (x1, y1) in pairwise(line):
        left, right = max(x0, low), min(x1, high)
        if x0 == x1 or left >= right:
            continue
        slope = (y1 - y0) / np.log(x1 / x0)
        at_left, at_right = (y0 + slope * np.log(x / x0) for x in (left, right))
        total += np.log(right / left) * (at_left + at_right) / 2
    return float(total / np.log(high / low))


def regions(masks: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Return (image, pixel coordinates [A, 2]) of every 8-connected region."""
    return [
        (image, region.coords)
        for image, mask in enumerate(masks)
        for region in measure.regionprops(measure.label(mask.astype(np.uint8), connectivity=2))
    ]


def _pro_points(
    found_maps: Iterable[np.ndarray], masks: np.ndarray, relabel: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return false-positive rate and mean region overlap of each binary result."""
    parts = regions(masks)
    normal = masks == 0
    rates, overlaps = [], []
    for found in found_maps:
        parts = regions(masks) if relabel else parts
        shares = [found[image][xy[:, 0], xy[:, 1]].mean() for image, xy in parts]
        overlaps.append(np.mean(shares))
        rates.append((found & normal).sum() / normal.sum())
    return np.array(rates), np.array(overlaps)

"""Points of ROC, precision-recall and PRO curves for reports, from the states of the metrics."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zsad.metrics.base import one_class
from zsad.metrics.category import CategoryMetrics
from zsad.metrics.functional import Curve

POINTS = 200


@dataclass
class CurvePoints:
    """A line to draw: ``x``, ``y`` in [0, 1] and the score ``thresholds`` at each point.

    The threshold above all scores is ``inf``.
    """

    x_name: str
    y_name: str
    x: np.ndarray
    y: np.ndarray
    thresholds: np.ndarray


def roc(curve: Curve, points: int = POINTS) -> CurvePoints:
    """Return true- over false-positive rate, from (0, 0) to (1, 1)."""
    x, y = curve.false_positive_rate(), curve.true_positive_rate()
    return _thin("false-positive rate", "true-positive rate", x, y, _above(curve), points)


def precision_recall(curve: Curve, points: int = POINTS) -> CurvePoints:
    """Return precision over recall, one point per threshold, recall rising."""
    found = curve.found[1:]
    precision = found / (found + curve.alarms[1:])
    recall = found / curve.n_anomalous
    return _thin("recall", "precision", recall, precision, curve.thresholds, points)


def pro(curve: Curve, points: int = POINTS, limit: float = 1.0) -> CurvePoints:
    """Return mean region overlap over false-positive rate up to the first point at ``limit``."""
    x, y = curve.false_positive_rate(), curve.mean_overlap()
    end = min(len(x), int(np.searchsorted(x, limit, "left")) + 1)
    names = "false-positive rate", "mean region overlap"
    return _thin(*names, x[:end], y[:end], _above(curve)[:end], points)


def category_curves(metrics: CategoryMetrics, points: int = POINTS) -> dict[str, CurvePoints]:
    """Return the curves that are defined, by name: ``image_roc``, ``image_pr``, ``pixel_roc``,
    ``pixel_pr``, ``pixel_pro`` (up to the metrics' false-positive limit).

    Of this process' share of the data only: merge states first where several processes ran.
    """
    lines: dict[str, CurvePoints] = {}
    image = metrics.image.curve()
    if not one_class(image, "images"):
        lines["image_roc"] = roc(image, points)
        lines["image_pr"] = precision_recall(image, points)
    if metrics.mapless or int(metrics.pixel.without_mask):
        return lines
    pixel = metrics.pixel.curve()
    if not one_class(pixel, "pixels"):
        lines["pixel_roc"] = roc(pixel, points)
        lines["pixel_pr"] = precision_recall(pixel, points)
        lines["pixel_pro"] = pro(pixel, points, metrics.pixel.fpr_limit)
    return lines


def _above(curve: Curve) -> np.ndarray:
    """Return thresholds [K + 1] that belong to the points of a rising curve."""
    return np.concatenate([[np.inf], curve.thresholds.astype(np.float64)])


def _thin(
    x_name: str, y_name: str, x: np.ndarray, y: np.ndarray, thresholds: np.ndarray, points: int
) -> CurvePoints:
    """Keep at most ``points`` points, evenly spread along the line, both ends among them."""
    if len(x) > points:
        length = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
        wanted = np.linspace(0, length[-1], points)
        chosen = np.unique(np.searchsorted(length, wanted, "left").clip(0, len(x) - 1))
        chosen[0], chosen[-1] = 0, len(x) - 1
        x, y, thresholds = x[chosen], y[chosen], thresholds[chosen]
    return CurvePoints(x_name, y_name, x, y, thresholds)

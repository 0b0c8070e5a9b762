"""Curve points: ends, areas, thinning."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import auc

from zsad.metrics import CategoryMetrics, curves
from zsad.metrics.functional import Curve


def noisy(count: int = 5000) -> Curve:
    random = np.random.default_rng(0)
    return Curve.from_scores(random.normal(size=count), random.normal(size=count) + 1)


def test_roc_by_hand():
    line = curves.roc(Curve.from_scores(np.array([1.0, 3.0]), np.array([2.0, 4.0])))
    assert line.x.tolist() == [0, 0, 0.5, 0.5, 1]
    assert line.y.tolist() == [0, 0.5, 0.5, 1, 1]
    assert line.thresholds.tolist() == [np.inf, 4, 3, 2, 1]


def test_precision_recall_by_hand():
    line = curves.precision_recall(Curve.from_scores(np.array([1.0, 3.0]), np.array([2.0, 4.0])))
    assert line.x.tolist() == [0.5, 0.5, 1, 1]
    assert line.y.tolist() == pytest.approx([1, 0.5, 2 / 3, 0.5])


def test_thinning_keeps_ends_shape_and_area():
    full, thin = curves.roc(noisy(), 10**6), curves.roc(noisy(), 100)
    assert len(full.x) > 5000
    assert len(thin.x) <= 100
    assert (thin.x[0], thin.y[0], thin.x[-1], thin.y[-1]) == (0, 0, 1, 1)
    area = [auc(line.x, line.y) for line in (full, thin)]
    assert area[0] == pytest.approx(area[1], abs=1e-3)
    assert np.isin(thin.thresholds, full.thresholds).all()


@pytest.mark.parametrize("mode", ["binned", "exact"])
def test_curves_of_a_category(mode):
    random = torch.Generator().manual_seed(0)
    metrics = CategoryMetrics(mode)
    assert curves.category_curves(metrics) == {}
    masks = torch.zeros(4, 20, 20, dtype=torch.bool)
    masks[1::2, 3:8, 4:9] = True
    labels = torch.arange(4) % 2
    maps = torch.rand(4, 20, 20, generator=random) + masks
    metrics.update(maps, masks, labels.float(), labels)
    lines = curves.category_curves(metrics, 50)
    assert list(lines) == ["image_roc", "image_pr", "pixel_roc", "pixel_pr", "pixel_pro"]
    assert lines["pixel_pro"].x[-1] >= 0.3
    for line in lines.values():
        assert len(line.x) == len(line.y) == len(line.thresholds) <= 50
        assert (np.diff(line.x) >= 0).all()
    masked = CategoryMetrics(mode)
    masked.update(maps, None, labels.float(), labels)
    assert list(curves.category_curves(masked)) == ["image_roc", "image_pr"]

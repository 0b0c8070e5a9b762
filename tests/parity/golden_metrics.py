"""The metrics that a golden file states for its own maps and scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from torch import Tensor

from zsad.metrics import CategoryMetrics


def assert_golden_metrics(
    arrays: Mapping[str, Any], maps: Tensor, masks: Tensor, scores: Tensor, labels: Tensor
) -> None:
    """Compare all four of ``arrays``; AUPRO is the papers' approximation by 200 thresholds.

    The tolerance is the reference's: few pixels of small images change sides at a rounding.
    """
    metric = CategoryMetrics("exact", aupro_200=True)
    metric.update(maps, masks[:, 0] > 0.5, scores, labels)
    found = metric.compute().metrics
    wanted = dict(zip(arrays["metric_names"].tolist(), arrays["metric_values"]))
    assert sorted(wanted) == ["image_ap", "image_auroc", "pixel_aupro", "pixel_auroc"]
    for name, value in wanted.items():
        ours = found["pixel_aupro_200" if name == "pixel_aupro" else name]
        assert ours == pytest.approx(value, abs=2e-2), name

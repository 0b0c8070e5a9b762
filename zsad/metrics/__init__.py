"""Image-level, pixel-level and region-level metrics: streaming, exact to a stated bound.

==================  ==============================================================================
module              what it holds
==================  ==============================================================================
``spec``            the one list of metrics; imports no torch
``functional``      the metrics as functions of a curve, and the error bounds of binned curves
``histogram``       bins that keep the order of scores of any scale, in fixed memory
``regions``         8-connected regions of a mask
``image, pixel``    torchmetrics ``Metric`` classes
``pimo``            per-image overlap, a metric with states of its own
``single``          one metric as one value, for ``MetricCollection`` and Lightning's ``log``
``category``        all metrics of one category: what the runner uses
``evaluate``        one call for arrays that are already there
``curves``          ROC, precision-recall and PRO points for reports
``statistics``      confidence intervals, paired tests, correction for many tests
``reference``       slow, obvious versions: the ground truth of tests and of ``zsad doctor``
==================  ==============================================================================
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zsad.metrics.category import CategoryMetrics, MetricResult
    from zsad.metrics.single import single_metric

__all__ = ["CategoryMetrics", "MetricResult", "single_metric"]
_PLACES = {"CategoryMetrics": "category", "MetricResult": "category", "single_metric": "single"}


def __getattr__(name: str) -> Any:
    """Import the classes when they are asked for: the list of metrics must not need torch."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)

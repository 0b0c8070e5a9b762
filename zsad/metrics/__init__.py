"""Image-level, pixel-level and region-level metrics: streaming, exact to a stated bound.

====================  ============================================================================
``spec``              the one list of metrics; imports no torch
``functional``        the metrics as functions of a curve, and the error bounds of binned curves
``histogram``         bins that keep the order of scores of any scale, in fixed memory
``regions``           8-connected regions of a mask
``base``              what torchmetrics ``Metric`` classes of images and pixels share
``image``             image-level metrics; ``pixel``: those of pixels and regions, in one pass
``pimo``              per-image overlap, a metric with states of its own
``single``            one metric as one value, for ``MetricCollection`` and Lightning's ``log``
``category``          all metrics of one category: what the runner uses
``evaluate``          one call for arrays that are already there
``curves``            ROC, precision-recall and PRO points for reports
``statistics``        confidence intervals, paired tests, correction for many tests
``intervals``         those of image metrics that have a width at the border, too
``pixel_table``       counts of the pixels of every image over bins of the score; no torch
``image_pixels``      the same from maps, at a bounded size
``pixel_statistics``  intervals and paired tests of pixel metrics, by drawing whole images
``reference``         slow, obvious versions: the ground truth of tests and of ``zsad doctor``
====================  ============================================================================

The names below are imported on first use: the list of metrics must not need torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zsad import names_on_demand

if TYPE_CHECKING:
    from zsad.metrics.category import CategoryMetrics, MetricResult
    from zsad.metrics.single import single_metric

__all__ = ["CategoryMetrics", "MetricResult", "single_metric"]

_PUBLIC = {
    "CategoryMetrics": "zsad.metrics.category",
    "MetricResult": "zsad.metrics.category",
    "single_metric": "zsad.metrics.single",
}

__getattr__ = names_on_demand(__name__, _PUBLIC)

"""Image-level, pixel-level and region-level metrics: streaming, exact to a stated bound.

==================  ==============================================================================
module              what it holds
==================  ==============================================================================
``functional``      the metrics as functions of a curve, and the error bounds of binned curves
``histogram``       bins that keep the order of scores of any scale, in fixed memory
``regions``         8-connected regions of a mask
``image, pixel``    torchmetrics ``Metric`` classes
``category``        all metrics of one category: what the runner uses
``evaluate``        one call for arrays that are already there
``curves``          ROC, precision-recall and PRO points for reports
``stats``           confidence intervals, paired tests, correction for many tests
``reference``       slow, obvious versions: the ground truth of tests and of ``zsad doctor``
==================  ==============================================================================
"""

from zsad import torchvision_compat

torchvision_compat.ensure()  # torchmetrics imports torchvision

from zsad.metrics.category import CategoryMetrics, MetricResult  # noqa: E402

__all__ = ["CategoryMetrics", "MetricResult"]

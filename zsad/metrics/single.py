"""One metric as one value: for torchmetrics' ``MetricCollection`` and Lightning's ``self.log``."""

from __future__ import annotations

from typing import Any

from zsad.errors import unknown
from zsad.metrics import spec
from zsad.metrics.base import RankingMetric
from zsad.metrics.image import ImageRanking
from zsad.metrics.pixel import PixelHistogram, PixelScores
from zsad.metrics.spec import Mode


def single_metric(
    name: str, mode: Mode = "binned", fpr_limit: float = 0.3, **kwargs: Any
) -> RankingMetric:
    """Return the metric ``name`` of :data:`zsad.metrics.spec.METRICS`; ``compute()`` is a scalar.

    Update image metrics with ``image_scores=[B], labels=[B]`` and pixel metrics with
    ``maps=[B, H, W], masks=[B, H, W]`` (bool); a ``MetricCollection`` takes all four as keywords,
    and those that share their states are updated once.  Where the metric is undefined, the value
    is NaN and ``report()`` says why.  Raises :class:`RequestError` for an unknown name.

    >>> from torchmetrics import MetricCollection
    >>> metrics = MetricCollection({name: single_metric(name) for name in spec.names()})
    """
    if name not in spec.METRICS:
        raise unknown("metric", name, spec.METRICS)
    entry = spec.METRICS[name]
    options: dict[str, Any] = {"names": (name,), "single": True, **kwargs}
    if entry.states:
        own: RankingMetric = spec.resolve(entry.states)(mode=mode, **options)
        return own
    if entry.level == "image":
        return ImageRanking(**options)
    form = PixelHistogram if mode == "binned" else PixelScores
    return form(fpr_limit=fpr_limit, **options)

"""What one head made of one category: what was counted, or the error that ended it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from zsad.backbones.batch_size import (
    BatchTooLarge,
    free_cached,
    is_out_of_memory,
)
from zsad.data.loader import ImageBatch
from zsad.metrics import CategoryMetrics, MetricResult
from zsad.metrics.curves import category_curves
from zsad.results.pixels import columns
from zsad.runner.heads import Head
from zsad.scoring import Means
from zsad.types import ImageFeatures

CURVE_POINTS = 100  # of every stored curve


@dataclass
class Outcome:
    """What one head made of one category: a result, or the error that ended it."""

    head: Head
    metrics: CategoryMetrics
    uids: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    defects: list[str] = field(default_factory=list)
    error: Exception | None = None
    result: MetricResult | None = None
    means: Means = field(default_factory=Means)
    carry: dict[str, Any] = field(default_factory=dict)
    references: ImageFeatures | None = None
    stored: list[tuple[ImageFeatures, ImageBatch]] = field(default_factory=list)  # on the host
    skipped: list[str] = field(default_factory=list)  # what cannot be read, one line each
    sees_ignored: bool = False  # whether scores depend on pixels that are ignored

    def conclude(self) -> None:
        """Compute the metrics of what was scored; nothing, where scoring ended with an error."""
        if self.error is None:
            try:
                self.result = self._computed()
            except Exception as error:
                self.error = error

    def _computed(self) -> MetricResult:
        """The metrics' values; tried twice where memory runs out, since nothing changes."""
        try:
            return self.metrics.compute()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        free_cached()  # here, where the frames that hold tensors are gone
        return self.metrics.compute()

    @property
    def starved(self) -> bool:
        """Whether memory ran out in a way that smaller batches may help."""
        error = self.error
        return error is not None and (isinstance(error, BatchTooLarge) or is_out_of_memory(error))

    def pixels(self) -> dict[str, list[Any]]:
        """The pixels of every image in bins, by column of its scores; {} where undefined."""
        table = self.metrics.pixel_table()
        return columns(table) if table is not None and len(table.regions) == len(self.uids) else {}

    def curves(self) -> dict[str, dict[str, Any]]:
        """ROC, precision-recall and PRO curves that are defined, ready for JSON."""
        return curves_of(self.metrics)


def curves_of(metrics: CategoryMetrics) -> dict[str, dict[str, Any]]:
    """The curves of a category that are defined, ready for JSON."""
    return {
        name: {
            "x_name": line.x_name,
            "y_name": line.y_name,
            "x": [round(float(v), 5) for v in line.x],
            "y": [round(float(v), 5) for v in line.y],
        }
        for name, line in category_curves(metrics, CURVE_POINTS).items()
    }

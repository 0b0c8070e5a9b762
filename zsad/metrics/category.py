"""All metrics of one category, from one pass over its batches."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.wrappers.abstract import WrapperMetric

from zsad.errors import RequestError
from zsad.metrics.base import Report
from zsad.metrics.image import ImageRanking
from zsad.metrics.pixel import NAMES as PIXEL_NAMES
from zsad.metrics.pixel import RELEASED, PixelHistogram, PixelScores

Mode = Literal["binned", "exact"]
MODES = ("binned", "exact")


@dataclass
class MetricResult:
    """``metrics``: by the names of ``zsad.types.METRICS``, in [0, 1]; None where undefined, and
    ``undefined`` says why.  ``bounds``: for binned pixel metrics, the largest distance to the
    exact value."""

    metrics: dict[str, float | None]
    undefined: dict[str, str]
    n_normal: int
    n_anomalous: int
    bounds: dict[str, float] = field(default_factory=dict)


class CategoryMetrics(WrapperMetric):
    """The seven metrics of a category (and ``pixel_aupro_200`` on request).

    ``binned`` streams pixels into a histogram of fixed size and reports an error bound;
    ``exact`` keeps every pixel.  Image metrics are exact in both.  Scores and maps may have any
    scale: nothing is clamped, squashed or stretched.  States live where the first batch lives.
    """

    def __init__(
        self,
        mode: Mode = "binned",
        fpr_limit: float = 0.3,
        aupro_200: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if mode not in MODES:
            raise RequestError(f"metric mode must be 'binned' or 'exact', not '{mode}'")
        if not 0 < fpr_limit <= 1:
            raise RequestError(f"fpr_limit must be above 0 and at most 1, not {fpr_limit}")
        form = PixelHistogram if mode == "binned" else PixelScores
        self.image = ImageRanking(**kwargs)
        self.pixel = form(fpr_limit=fpr_limit, aupro_200=aupro_200, **kwargs)
        self.mapless = False

    def update(
        self,
        maps: Tensor | None,
        masks: Tensor | None,
        image_scores: Tensor,
        labels: Tensor,
        has_mask: Tensor | None = None,
    ) -> None:
        """Take a batch: maps [B, H, W], masks [B, H, W], image scores [B], labels [B].

        ``masks`` None: no image of the batch has one.  ``has_mask`` [B]: which images have one
        (default: all, if ``masks`` is given).  A normal image needs none; an anomalous one
        without a mask makes the pixel metrics undefined.  ``maps`` None: so does a method that
        has no maps.  Raises :class:`CellError` on NaN or infinite values, ``ValueError`` on
        shapes that do not fit.
        """
        anomalous = labels.reshape(-1) > 0
        if maps is None:
            self.mapless = True
        else:
            _check_shapes(maps, masks, anomalous)
            if self.pixel.device != maps.device:
                self.to(maps.device)
            if masks is None:
                missing = int(anomalous.sum())
            elif has_mask is None:
                missing = 0
            else:
                missing = int((anomalous & ~has_mask.to(anomalous.device)).sum())
            self.pixel.update(maps, masks, missing)
        self.image.update(image_scores, labels)

    def compute(self) -> MetricResult:
        """Return all metrics, over all processes where several run."""
        image: Report = self.image.compute()
        if self.mapless:
            names = (*PIXEL_NAMES, RELEASED) if self.pixel.aupro_200 else PIXEL_NAMES
            pixel = Report.without(names, "the method gives no anomaly maps")
        else:
            pixel = self.pixel.compute()
        return MetricResult(
            {**image.metrics, **pixel.metrics},
            {**image.undefined, **pixel.undefined},
            image.n_normal,
            image.n_anomalous,
            bounds=pixel.bounds,
        )

    def forward(self, *args: Any, **kwargs: Any) -> None:
        """Update only: metrics of a single batch would mislead."""
        self.update(*args, **kwargs)

    def reset(self) -> None:
        """Forget everything; start the next category."""
        self.mapless = False
        self.image.reset()
        self.pixel.reset()

    def merge_state(self, incoming_state: dict[str, Any] | Metric) -> None:
        """Add everything that another ``CategoryMetrics`` of the same settings has seen."""
        if not isinstance(incoming_state, CategoryMetrics):
            raise ValueError(f"cannot merge {type(incoming_state).__name__} into CategoryMetrics")
        self.mapless |= incoming_state.mapless
        self.image.merge_state(incoming_state.image)
        self.pixel.merge_state(incoming_state.pixel)


def _check_shapes(maps: Tensor, masks: Tensor | None, labels: Tensor) -> None:
    if maps.dim() != 3 or len(maps) != len(labels):
        raise ValueError(f"maps {tuple(maps.shape)} do not fit {len(labels)} labels")
    if masks is not None and masks.shape != maps.shape:
        raise ValueError(f"masks {tuple(masks.shape)} do not fit maps {tuple(maps.shape)}")
    if masks is not None and masks.dtype != torch.bool:
        raise ValueError(f"masks must be boolean, not {masks.dtype}")

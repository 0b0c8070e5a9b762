"""Image-level ranking metrics.  Image scores are few, so they are always exact."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from zsad.errors import CellError
from zsad.metrics import spec
from zsad.metrics.base import MetricReport, RankingMetric, of_curve, one_class
from zsad.metrics.functional import Curve


class ImageRanking(RankingMetric):
    """Metrics of image scores of any scale; all that records always hold, or those of ``names``.

    Undefined (None, with the reason) unless both normal and anomalous images were seen.
    """

    scores: list[Tensor]
    labels: list[Tensor]

    def __init__(self, names: Iterable[str] | None = None, **kwargs: Any) -> None:
        super().__init__(spec.names("image") if names is None else names, **kwargs)
        self.add_list("scores", torch.float64)
        self.add_list("labels", torch.int64)

    def update(self, image_scores: Tensor, labels: Tensor) -> None:
        """Take image scores [B] and labels [B] (0 normal, 1 anomalous).

        Raises :class:`CellError` if a score is NaN or infinite.
        """
        scores = image_scores.detach().to(self.device).to(torch.float64).reshape(-1)
        if not torch.isfinite(scores).all():
            bad = int((~torch.isfinite(scores)).sum())
            raise CellError(f"{bad} of {scores.numel()} image scores are NaN or infinite")
        self.scores.append(scores)
        self.labels.append((labels.reshape(-1) > 0).to(self.device, torch.int64))

    def curve(self) -> Curve:
        """Return the counts of tied scores, highest first."""
        scores, labels = self.joined("scores"), self.joined("labels")
        return Curve.from_scores(scores[labels == 0], scores[labels == 1])

    def _report(self) -> MetricReport:
        curve = self.curve()
        reason = one_class(curve, "images")
        return MetricReport.without(self.names, reason, curve) if reason else of_curve(self, curve)

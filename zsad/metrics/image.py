"""Image-level ranking metrics.  Image scores are few, so they are always exact."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zsad.errors import CellError
from zsad.metrics import functional
from zsad.metrics.base import RankingMetric, Report, one_class
from zsad.metrics.functional import Curve

NAMES = ("image_auroc", "image_ap", "image_f1max")


class ImageRanking(RankingMetric):
    """AUROC, AP and F1-max of image scores of any scale.

    Undefined (None, with the reason) unless both normal and anomalous images were seen.
    """

    scores: list[Tensor]
    labels: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_list("scores", torch.float64)
        self.add_list("labels", torch.int64)

    def update(self, scores: Tensor, labels: Tensor) -> None:
        """Take image scores [B] and labels [B] (0 normal, 1 anomalous).

        Raises :class:`CellError` if a score is NaN or infinite.
        """
        scores = scores.detach().to(self.device, torch.float64).reshape(-1)
        if not torch.isfinite(scores).all():
            bad = int((~torch.isfinite(scores)).sum())
            raise CellError(f"{bad} of {scores.numel()} image scores are NaN or infinite")
        self.scores.append(scores)
        self.labels.append((labels.reshape(-1) > 0).to(self.device, torch.int64))

    def curve(self) -> Curve:
        """Return the counts of tied scores, highest first."""
        scores, labels = self.joined("scores"), self.joined("labels")
        return Curve.from_scores(scores[labels == 0], scores[labels == 1])

    def compute(self) -> Report:
        curve = self.curve()
        reason = one_class(curve, "images")
        if reason:
            return Report.without(NAMES, reason, curve)
        values = (
            functional.auroc(curve),
            functional.average_precision(curve),
            functional.f1_max(curve),
        )
        return Report(
            dict(zip(NAMES, values)),
            {},
            n_normal=curve.n_normal,
            n_anomalous=curve.n_anomalous,
        )

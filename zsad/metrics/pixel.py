"""Pixel-level ranking metrics and region overlap, from one pass over the pixels."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zsad.errors import CellError
from zsad.metrics import functional
from zsad.metrics.base import RankingMetric, Report, one_class
from zsad.metrics.functional import Curve
from zsad.metrics.histogram import ScoreHistogram, empty_histogram, merge_histograms
from zsad.metrics.regions import region_pixels

NAMES = ("pixel_auroc", "pixel_ap", "pixel_f1max", "pixel_aupro")
RELEASED = "pixel_aupro_200"
BINS = 1 << 18


class PixelRanking(RankingMetric):
    """AUROC, AP, F1-max and AUPRO of anomaly maps of any scale.

    Regions are 8-connected.  Undefined (None, with the reason) where an anomalous image has no
    mask, or where pixels of one kind only were seen.
    """

    regions: Tensor
    without_mask: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, fpr_limit: float = 0.3, aupro_200: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.fpr_limit = fpr_limit
        self.aupro_200 = aupro_200
        self.add_state("regions", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("without_mask", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("low", torch.tensor(torch.inf, dtype=torch.float64), dist_reduce_fx="min")
        self.add_state("high", torch.tensor(-torch.inf, dtype=torch.float64), dist_reduce_fx="max")

    def update(self, maps: Tensor, masks: Tensor | None, without_mask: int = 0) -> None:
        """Take anomaly maps [B, H, W] and masks [B, H, W] (None: no anomalous pixel).

        ``without_mask``: how many of the images are anomalous but have no mask; from the first
        one on, pixel metrics are undefined and pixels are no longer counted.
        Raises :class:`CellError` if a map holds NaN or infinities.
        """
        self.without_mask += without_mask
        if int(self.without_mask):
            return
        maps = maps.detach()
        if maps.dtype != torch.float64:
            maps = maps.float()
        if self.aupro_200 and maps.numel():
            low, high = torch.aminmax(maps)
            self.low = torch.minimum(self.low, low.double())
            self.high = torch.maximum(self.high, high.double())
        if masks is None:
            self._take(maps.reshape(-1), None, None)
            return
        places, weights, regions = region_pixels(masks.cpu().numpy())
        self.regions += regions
        device = maps.device
        self._take(
            maps.reshape(-1),
            torch.from_numpy(places).to(device),
            torch.from_numpy(weights).to(device),
        )

    @abstractmethod
    def _take(self, scores: Tensor, index: Tensor | None, weights: Tensor | None) -> None:
        """Count pixels [N]; ``index`` [M] says which are anomalous, ``weights`` [M] how much
        each contributes to the overlap of its region."""

    @abstractmethod
    def curve(self) -> Curve:
        """Return the counts of tied (or binned) pixels, highest first."""

    def released_range(self) -> tuple[np.floating, np.floating]:
        """Return the smallest and the largest score, in the precision of the maps."""
        return np.float32(self.low.item()), np.float32(self.high.item())

    def compute(self) -> Report:
        names = (*NAMES, RELEASED) if self.aupro_200 else NAMES
        missing = int(self.without_mask)
        if missing:
            return Report.without(names, f"{missing} of the anomalous images have no mask")
        curve = self.curve()
        reason = one_class(curve, "pixels")
        if reason:
            return Report.without(names, reason, curve)
        values: dict[str, float | None] = {
            "pixel_auroc": functional.auroc(curve),
            "pixel_ap": functional.average_precision(curve),
            "pixel_f1max": functional.f1_max(curve),
            "pixel_aupro": functional.aupro(curve, self.fpr_limit),
        }
        report = Report(
            values, {}, self._bounds(curve), n_normal=curve.n_normal, n_anomalous=curve.n_anomalous
        )
        if self.aupro_200:
            values[RELEASED] = functional.aupro_200(curve, *self.released_range())
            if values[RELEASED] is None:
                report.undefined[RELEASED] = (
                    "fewer than two of the 200 thresholds differ in false-positive rate below 0.3"
                )
        return report

    def _bounds(self, curve: Curve) -> dict[str, float]:
        return {}


class PixelHistogram(PixelRanking):
    """The streaming form: fixed memory (28 bytes per bin), whatever the number of pixels.

    Every value is the exact metric of scores whose differences inside a bin were forgotten (see
    :mod:`zsad.metrics.histogram`).  Bins keep the order, so only scores that share a bin can be
    confused; the report carries, per metric, the largest distance that the exact value can have
    (:mod:`zsad.metrics.functional`, ``*_bound``).  ``pixel_aupro_200`` reads the histogram at its
    200 thresholds and has no such bound, because the released code stretches the rates; use the
    exact form where it must match to the last digit.
    """

    histogram: Tensor

    def __init__(self, bins: int = BINS, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("histogram", empty_histogram(bins), dist_reduce_fx=merge_histograms)

    def _take(self, scores: Tensor, index: Tensor | None, weights: Tensor | None) -> None:
        histogram = ScoreHistogram(self.histogram)
        scores = scores.float()
        histogram.add(scores)
        if index is not None and weights is not None and index.numel():
            histogram.mark_anomalous(scores[index], weights)

    def curve(self) -> Curve:
        return ScoreHistogram(self.histogram).curve(int(self.regions))

    def _bounds(self, curve: Curve) -> dict[str, float]:
        return {
            "pixel_auroc": functional.auroc_bound(curve),
            "pixel_ap": functional.average_precision_bound(curve),
            "pixel_f1max": functional.f1_max_bound(curve),
            "pixel_aupro": functional.aupro_bound(curve, self.fpr_limit),
        }


class PixelScores(PixelRanking):
    """The exact form: keeps every pixel's score (4 bytes, or 8 where maps are float64)."""

    normal: list[Tensor]
    anomalous: list[Tensor]
    weights: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_list("normal", torch.float32)
        self.add_list("anomalous", torch.float32)
        self.add_list("weights", torch.float64)

    def _take(self, scores: Tensor, index: Tensor | None, weights: Tensor | None) -> None:
        if not bool(torch.isfinite(scores).all()):
            bad = int((~torch.isfinite(scores)).sum())
            raise CellError(f"anomaly maps hold {bad} values that are NaN or infinite")
        if index is None or weights is None:
            self.normal.append(scores.clone())
            return
        normal = torch.ones(scores.shape, dtype=torch.bool, device=scores.device)
        normal[index] = False
        self.normal.append(scores[normal])
        self.anomalous.append(scores[index])
        self.weights.append(weights)

    def released_range(self) -> tuple[np.floating, np.floating]:
        kind = self.joined("normal").dtype.type
        return kind(self.low.item()), kind(self.high.item())

    def curve(self) -> Curve:
        cuts = functional.released_steps(*self.released_range()) if self.aupro_200 else None
        return Curve.from_scores(
            self.joined("normal"),
            self.joined("anomalous"),
            self.joined("weights"),
            int(self.regions),
            cuts,
        )

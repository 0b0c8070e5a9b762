"""Pixel-level ranking metrics and region overlap, from one pass over the pixels."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zsad.errors import CellError, counted
from zsad.metrics import functional, spec
from zsad.metrics.base import MetricReport, RankingMetric, of_curve, one_class
from zsad.metrics.functional import Curve
from zsad.metrics.histogram import ScoreHistogram, empty_histogram, merge_histograms
from zsad.metrics.image_pixels import ImagePixels
from zsad.metrics.regions import BatchRegions

BINS = 1 << 18


class PixelRanking(RankingMetric):
    """Metrics of the pixels of anomaly maps of any scale, pooled over the images; all that records
    always hold, or those of ``names``.

    Regions are 8-connected.  Undefined (None, with the reason) where an anomalous image has no
    mask, or where pixels of one kind only were seen.
    """

    regions: Tensor
    without_mask: Tensor
    low: Tensor
    high: Tensor

    binned = False

    def __init__(
        self, names: Iterable[str] | None = None, fpr_limit: float = 0.3, **kwargs: Any
    ) -> None:
        super().__init__(spec.names("pixel") if names is None else names, **kwargs)
        self.fpr_limit = fpr_limit
        self.images: ImagePixels | None = None  # kept where somebody asks for it
        self.uncounted = False  # whether an image without a mask was seen here
        # The range of the scores costs a pass over them, and only some metrics ask for it.
        self.ranged = any("lowest" in spec.METRICS[name].arguments for name in self.names)
        self.add_state("regions", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("without_mask", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("low", torch.tensor(torch.inf, dtype=torch.float64), dist_reduce_fx="min")
        self.add_state("high", torch.tensor(-torch.inf, dtype=torch.float64), dist_reduce_fx="max")

    def update(
        self,
        maps: Tensor,
        masks: Tensor | None,
        without_mask: int = 0,
        ignored: Tensor | None = None,
        regions: BatchRegions | None = None,
    ) -> None:
        """Take anomaly maps [B, H, W] and masks [B, H, W] (None: no anomalous pixel).

        ``ignored`` [B, H, W]: pixels that are not counted; a region is what is left of it.
        ``regions``: those of the masks, where they were found already; the masks are not read then.

        ``without_mask``: how many of the images are anomalous but have no mask; from the first
        one on, pixel metrics are undefined and pixels are no longer counted.
        Raises :class:`CellError` if a map holds NaN or infinities.
        """
        if without_mask:
            self.without_mask += without_mask
            self.uncounted = True
        if self.uncounted:
            return
        maps = maps.detach()
        if maps.dtype != torch.float64:
            maps = maps.float()
        seen = None if ignored is None else ~ignored.to(maps.device)
        scores = maps.reshape(-1) if seen is None else maps[seen]
        if self.ranged and scores.numel():
            low, high = torch.aminmax(scores)
            self.low = torch.minimum(self.low, low.double())
            self.high = torch.maximum(self.high, high.double())
        if masks is None:
            self._take(scores, None, None)
            if self.images is not None:
                self.images.take(maps, None, None, seen)
            return
        if regions is None:
            regions = BatchRegions(masks.cpu(), None if ignored is None else ignored.cpu())
        self.regions += regions.found.regions
        index, shares = regions.on(maps.device)
        if self.images is not None:
            self.images.take(maps, index, shares, seen)
        if seen is not None:  # places among the pixels that are left
            index = (seen.reshape(-1).cumsum(0) - 1)[index]
        self._take(scores, index, shares)

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self.uncounted = False

    @abstractmethod
    def _take(self, scores: Tensor, index: Tensor | None, weights: Tensor | None) -> None:
        """Count pixels [N]; ``index`` [M] says which are anomalous, ``weights`` [M] how much
        each contributes to the overlap of its region."""

    @abstractmethod
    def curve(self) -> Curve:
        """Return the counts of tied (or binned) pixels, highest first."""

    @property
    def lowest(self) -> np.floating:
        """The smallest score, in the precision of the maps."""
        return self._kind(self.low.item())

    @property
    def highest(self) -> np.floating:
        """The largest score, in the precision of the maps."""
        return self._kind(self.high.item())

    @property
    def _kind(self) -> type[np.floating]:
        return np.float32

    def _report(self) -> MetricReport:
        missing = int(self.without_mask)
        if missing:
            return MetricReport.without(
                self.names, f"{missing} of the anomalous images have no mask"
            )
        curve = self.curve()
        reason = one_class(curve, "pixels")
        if reason:
            return MetricReport.without(self.names, reason, curve)
        return of_curve(self, curve, self.binned)


class PixelHistogram(PixelRanking):
    """The streaming form: fixed memory (28 bytes per bin), whatever the number of pixels.

    Every value is the exact metric of scores whose differences inside a bin were forgotten (see
    :mod:`zsad.metrics.histogram`).  Bins keep the order, so only scores that share a bin can be
    confused; the report carries, per metric, the largest distance that the exact value can have
    (:mod:`zsad.metrics.functional`, ``*_bound``).  AUPRO in 200 steps reads the histogram at its
    200 thresholds and has no such bound, because the released code stretches the rates; use the
    exact form where it must match to the last digit.
    """

    histogram: Tensor
    binned = True

    def __init__(self, bins: int = BINS, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # Of a default torchmetrics keeps a copy, which costs more than all of a small category.
        blank = torch.zeros(0, dtype=torch.int64)
        self.add_state("histogram", blank, dist_reduce_fx=merge_histograms)
        self.bins = bins
        self.histogram = empty_histogram(bins)
        self._filling: ScoreHistogram | None = None

    def reset(self) -> None:
        """Forget everything."""
        device = self.histogram.device
        super().reset()
        self.histogram = empty_histogram(self.bins, device)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_filling": None}  # it looks at the state's own memory

    def _take(self, scores: Tensor, index: Tensor | None, weights: Tensor | None) -> None:
        histogram = self._filling
        if histogram is None or histogram.state is not self.histogram:
            histogram = self._filling = ScoreHistogram(self.histogram)
        scores = scores.float()
        histogram.add(scores)
        if index is not None and weights is not None and index.numel():
            histogram.mark_anomalous(scores[index], weights)

    def curve(self) -> Curve:
        return ScoreHistogram(self.histogram).curve(int(self.regions))


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
        # both ends are NaN where a score is one
        if scores.numel() and not bool(torch.stack(torch.aminmax(scores)).isfinite().all()):
            bad = int((~torch.isfinite(scores)).sum())
            raise CellError(
                f"anomaly maps hold {counted(bad, 'value that is', 'values that are')} NaN or "
                "infinite"
            )
        if index is None or weights is None:
            self.normal.append(scores.clone())
            return
        normal = torch.ones(scores.shape, dtype=torch.bool, device=scores.device)
        normal[index] = False
        if scores.device.type == "cpu":  # numpy picks several times faster
            self.normal.append(torch.from_numpy(scores.numpy()[normal.numpy()]))
        else:
            self.normal.append(scores[normal])
        self.anomalous.append(scores[index])
        self.weights.append(weights)

    @property
    def _kind(self) -> type[np.floating]:
        held = [self.normal] if isinstance(self.normal, Tensor) else self.normal
        empty = torch.cat([part[:0] for part in held] or [torch.zeros(0)])
        kind: type[np.floating] = empty.cpu().numpy().dtype.type
        return kind

    def curve(self) -> Curve:
        cuts = functional.released_steps(self.lowest, self.highest) if self.ranged else None
        normal = self.joined("normal", own=True)
        normal.sort()  # in place: these may be gigabytes
        return Curve.from_scores(
            normal,
            self.joined("anomalous"),
            self.joined("weights"),
            int(self.regions),
            cuts,
            ordered=True,
        )

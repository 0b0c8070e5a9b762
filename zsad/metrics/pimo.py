"""Overlap per image at the few false positives that inspection lines tolerate (AUPIMO).

Bertoldo, Ameln, Vaidya and Akçay, "AUPIMO: Redefining Visual Anomaly Detection Benchmarks with
High Speed and Low Tolerance" (BMVC 2024, arXiv:2401.01984).  The x axis is shared by all images:
the false-positive rate of a threshold, averaged over the *normal images*.  Each anomalous image
has its own curve, the share of its defect that is found, and its value is the mean height of that
curve over log10 of the rate from 1e-5 to 1e-4.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from zsad.errors import CellError, counted
from zsad.metrics.base import MetricReport, RankingMetric
from zsad.metrics.spec import Mode

LOW, HIGH = 1e-5, 1e-4  # of the shared false-positive rate
HIGHEST = 1 << 18  # normal pixels that are kept: 1e-4 of 2.6e9, of 9,700 images of 518 x 518
POINTS = 2048  # scores that are kept of an anomalous image in the binned form
ROUNDING = 1 + 1e-9  # a rate of 1 / 100,000 is one, whatever the sum that gave it


class Steps(NamedTuple):
    """How every image's curve is integrated.  ``thresholds`` [J]: scores of normal pixels at which
    the rate climbs within the range.  ``above``, ``at`` [J]: the weights of the share of a defect
    that scores higher than the threshold, and at least as high; together they add up to 1."""

    thresholds: np.ndarray
    above: np.ndarray
    at: np.ndarray


class PerImageOverlap(RankingMetric):
    """AUPIMO of anomaly maps of any scale: the mean over anomalous images, per-image values kept.

    Points of all distinct thresholds are joined by straight lines over the logarithm of the rate.
    Memory is bounded: of the normal images only the highest 2^18 pixels are kept, more than the
    range reaches into; of each anomalous image ``exact`` keeps the pixels inside its mask and
    ``binned`` 2,048 evenly spread order statistics of them, which moves no share by more than
    1 / 4,096 (the stated bound; no error for smaller defects).

    Undefined (None, with the reason) where an anomalous image has no mask, where no image is
    normal or none has a defect, and where the normal pixels cannot tell the rates of the range
    apart: fewer than 100,000 of them, or too many that share the highest scores.  An anomalous
    image with an empty mask has no value and is left out of the mean.
    """

    areas: list[Tensor]
    kept: list[Tensor]
    points: list[Tensor]
    top: list[Tensor]
    top_shares: list[Tensor]
    floor: Tensor
    normal_images: Tensor
    without_mask: Tensor

    def __init__(self, names: Iterable[str], mode: Mode = "binned", **kwargs: Any) -> None:
        super().__init__(names, **kwargs)
        self.mode = mode
        self.add_list("areas", torch.int64)  # per image: pixels of its defect; 0 of a normal one
        self.add_list("kept", torch.int64)  # per image: how many of ``points`` are its own
        self.add_list("points", torch.float32)  # scores inside masks, image after image
        self.add_list("top", torch.float32)  # the highest scores of the normal images
        self.add_list("top_shares", torch.float64)  # 1 / pixels of the image of each of them
        # Scores up to here were dropped from ``top``.
        self.add_state("floor", torch.tensor(-torch.inf, dtype=torch.float64), dist_reduce_fx="max")
        for name in ("normal_images", "without_mask"):
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(
        self,
        maps: Tensor,
        masks: Tensor | None,
        labels: Tensor | None = None,
        without_mask: int = 0,
        ignored: Tensor | None = None,
    ) -> None:
        """Take anomaly maps [B, H, W], masks [B, H, W] (None: no anomalous pixel), labels [B].

        ``ignored`` [B, H, W]: pixels that are not counted, neither in an image nor in its defect.

        Normal images are those labelled so (without labels: those without anomalous pixels).
        ``without_mask``: how many of the images are anomalous but have no mask; from the first
        one on, the metric is undefined and nothing is kept.
        Raises :class:`CellError` if a map holds NaN or infinities.
        """
        self.without_mask += without_mask
        if int(self.without_mask):
            return
        maps = maps.detach()
        if maps.dtype != torch.float64 or self.mode == "binned":
            maps = maps.float()
        if not bool(torch.isfinite(maps).all()):
            bad = int((~torch.isfinite(maps)).sum())
            raise CellError(
                f"anomaly maps hold {counted(bad, 'value that is', 'values that are')} NaN or "
                "infinite"
            )
        seen = torch.ones_like(maps, dtype=torch.bool)
        if ignored is not None:
            seen = ~ignored.to(maps.device)
        areas = torch.zeros(len(maps), dtype=torch.int64, device=maps.device)
        if masks is not None:
            masks = masks.to(maps.device) & seen
            areas = masks.flatten(1).sum(1)
        normal = areas == 0
        if labels is not None:
            normal &= labels.reshape(-1).to(maps.device) == 0
        own = [self._order(maps[i][masks[i]]) for i in (areas > 0).nonzero()[:, 0].tolist()]  # type: ignore[index]
        kept = torch.zeros_like(areas)
        kept[areas > 0] = torch.tensor([len(o) for o in own], dtype=torch.int64, device=maps.device)
        self.areas.append(areas)
        self.kept.append(kept)
        self.points += own
        self.normal_images += normal.sum()
        pixels = seen[normal].flatten(1).sum(1)  # of each normal image
        shares = (1 / pixels.double()).repeat_interleave(pixels)
        self._keep_highest(maps[normal][seen[normal]], shares)

    def _order(self, scores: Tensor) -> Tensor:
        """Return the scores inside a mask, ascending; in the binned form the middle one of each
        of :data:`POINTS` parts of equal size."""
        ordered = scores.sort().values
        if self.mode == "exact" or len(ordered) <= POINTS:
            return ordered
        middle = torch.arange(POINTS, dtype=torch.float64, device=ordered.device) + 0.5
        return ordered[(middle * (len(ordered) / POINTS)).long()]

    def _keep_highest(self, scores: Tensor, shares: Tensor) -> None:
        """Add pixels [N] of normal images, each with its ``shares`` of an image's pixels, and drop
        what cannot be among the highest."""
        high = scores > self.floor
        self.top.append(scores[high])
        self.top_shares.append(shares[high])
        if sum(map(len, self.top)) <= 2 * HIGHEST:
            return
        every, shares = torch.cat(self.top), torch.cat(self.top_shares)
        highest, places = every.topk(HIGHEST + 1)
        self.floor = torch.maximum(self.floor, highest[-1].double())
        above = highest > self.floor  # all or none of those that share a score
        self.top, self.top_shares = [highest[above]], [shares[places[above]]]

    # -------------------------------------------------------------------------- the values
    def _report(self) -> MetricReport:
        missing = int(self.without_mask)
        if missing:
            return MetricReport.without(
                self.names, f"{missing} of the anomalous images have no mask"
            )
        areas = self.joined("areas")
        if not (areas > 0).any():
            return MetricReport.without(self.names, "no image has anomalous pixels")
        steps = self._steps()
        if isinstance(steps, str):
            return MetricReport.without(self.names, steps)
        values: list[float | None] = [None] * len(areas)
        ends = np.cumsum(self.joined("kept"))
        points = self.joined("points")
        for i in np.flatnonzero(areas):
            own = points[ends[i - 1] if i else 0 : ends[i]]
            below = np.searchsorted(own, steps.thresholds, "left")
            upto = np.searchsorted(own, steps.thresholds, "right")
            found = np.dot(steps.at, len(own) - below) + np.dot(steps.above, len(own) - upto)
            values[i] = float(found / len(own))
        defined = [v for v in values if v is not None]
        (name,) = self.names
        report = MetricReport({name: float(np.mean(defined))}, {}, per_image={name: values})
        if self.mode == "binned":
            thinned = np.count_nonzero(areas > POINTS) / len(defined)
            report.bounds[name] = float(thinned / (2 * POINTS))
        return report

    def _steps(self) -> Steps | str:
        """Return the thresholds of the range with their weights, or why they cannot be told."""
        images = int(self.normal_images)
        if not images:
            return "no normal images, on which its false-positive rate is measured"
        scores, shares = self.joined("top"), self.joined("top_shares")
        usable = scores > float(self.floor)
        thresholds, place = np.unique(-scores[usable], return_inverse=True)  # highest first
        rates = np.cumsum(np.bincount(place, weights=shares[usable])) / images
        if not len(rates) or rates[0] > LOW * ROUNDING:
            share = f"{rates[0]:.1e}" if len(rates) else "too large a share"
            return (
                f"the highest score of the normal images is that of {share} of their pixels, but "
                f"false-positive rates from {LOW:.0e} are to be told apart; it takes at least "
                f"{1 / LOW:,.0f} normal pixels with few ties"
            )
        if rates[-1] * ROUNDING < HIGH:
            return (
                f"the {HIGHEST:,} highest normal pixels do not reach the false-positive rate "
                f"{HIGH:.0e}"
            )
        if not ((rates > LOW) & (rates <= HIGH * ROUNDING)).any():
            return (
                f"no score of the normal images has a false-positive rate between {LOW:.0e} and "
                f"{HIGH:.0e}: too many of their pixels share one score"
            )
        return _integration(-thresholds, np.log(rates))


def _integration(thresholds: np.ndarray, rates: np.ndarray) -> Steps:
    """Return the weights of a straight line between neighbouring (log) ``rates`` [J], cut to the
    range: the part [a, b] of a step of height 1 has the mean height (b + a - 2 start) / 2 width."""
    low, high = np.log(LOW), np.log(HIGH)
    start, end = rates[:-1], rates[1:]
    a, b = np.clip(start, low, high), np.clip(end, low, high)
    whole = (b - a) / (high - low)
    at = whole * (a + b - 2 * start) / (2 * (end - start))
    used = whole > 0
    return Steps(thresholds[1:][used], (whole - at)[used], at[used])

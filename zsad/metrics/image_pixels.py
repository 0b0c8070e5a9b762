"""What intervals and tests of pixel metrics need of every image, at a bounded size.

Pixels of one image depend on each other, so what is drawn again, or swapped between two methods,
are whole images.  That needs the counts of every image's pixels over common bins of the score, and
not the pixels: a few hundred numbers for each image of a category.

While images are seen, each is kept in groups of its own pixels whose ranks from the top lie within
a twentieth of each other, so that the highest scores, on which AP and AUPRO depend, are kept most
finely.  When all are seen, the groups are put into bins that are common to the category.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from zsad.metrics.pixel_table import PixelTable
from zsad.on_device import constant, in_order

RATIO = 1.05  # of the ranks at both ends of a group of an image's pixels
LEVELS = 1 << 16  # of an image's scores from its lowest to its highest: nearer ones are one
TINY = 1e-30  # a step between levels below which all scores are equal
BINS = 48  # by false-positive rate, and as many by anomalous pixels
LOWEST_RATE = 1e-5  # false-positive rate of the first bin


class ImagePixels:
    """Takes anomaly maps image by image.  Memory: at most 5 KiB for an image of 10^6 pixels."""

    def __init__(self) -> None:
        # of every image: scores [G] of its groups, and [G, 3] normal, anomalous and overlap
        self._images: list[tuple[np.ndarray, np.ndarray]] = []

    def __len__(self) -> int:
        return len(self._images)

    def take(
        self,
        maps: Tensor,
        index: Tensor | None,
        weights: Tensor | None,
        seen: Tensor | None = None,
    ) -> None:
        """Take maps [B, H, W]; ``index`` [M]: positions of anomalous pixels in the flattened
        stack, rising, ``weights`` [M]: 1 / area of their regions (both None: no pixel is).
        ``seen`` [B, H, W]: the pixels that count, all anomalous ones of ``index`` among them."""
        rows = maps.flatten(1)
        rows = rows if rows.dtype == torch.float64 else rows.float()
        count, size = rows.shape
        if not count or not size:
            return
        if index is None or weights is None:
            index, weights = _nothing(rows.device)
        if seen is None:
            self._images += _grouped(rows, index, weights)
            return
        # What is left of each image is of another size: not worth a way of its own on a device.
        rows, index, weights, seen = rows.cpu(), index.cpu(), weights.cpu(), seen.flatten(1).cpu()
        for row, own, among in zip(rows, seen, _of_images(index, count, size)):
            left = (own.cumsum(0) - 1)[index[among] % size]  # places among the pixels that are left
            if bool(own.any()):
                self._images += _grouped(row[own][None], left, weights[among])
            else:
                self._images.append((np.zeros(0), np.zeros((0, 3))))

    def extend(self, other: ImagePixels) -> None:
        """Add the images of another collection, after these."""
        self._images += other._images

    def table(self) -> PixelTable | None:
        """The counts over common bins; None without images, or without pixels of both kinds."""
        if not self._images:
            return None
        scores = np.concatenate([k for k, _ in self._images])
        counts = np.concatenate([c for _, c in self._images])
        if not counts[:, 0].any() or not counts[:, 1].any():
            return None
        owner = np.repeat(np.arange(len(self._images)), [len(k) for k, _ in self._images])
        bins = _bins(scores, counts)
        shape = (len(self._images), int(bins.max()) + 1)
        parts = [np.zeros(shape), np.zeros(shape), np.zeros(shape)]
        for part, column in zip(parts, counts.T):
            np.add.at(part, (owner, bins), column)
        normal, anomalous, overlap = parts
        regions = np.rint(overlap.sum(1)).astype(np.int64)
        return PixelTable(normal.astype(np.int64), anomalous.astype(np.int64), overlap, regions)


def _nothing(device: torch.device) -> tuple[Tensor, Tensor]:
    """The places and weights of no pixel."""
    return torch.zeros(0, dtype=torch.int64, device=device), torch.zeros(0, device=device).double()


def _of_images(index: Tensor, count: int, size: int) -> list[slice]:
    """Where the places of each of ``count`` images are in ``index`` (rising, on the CPU)."""
    ends = np.searchsorted(index.numpy(), np.arange(count + 1) * size).tolist()
    return [slice(*both) for both in pairwise(ends)]


class _Levels(NamedTuple):
    """Levels of images, those of the second image after those of the first.

    Of every group, the lowest first: its highest level ``at`` and the pixels ``upto`` it [B, G].
    Of every image: the lowest score and the ``step`` between levels [B], float64.  ``marked`` [M]:
    the levels of anomalous pixels.
    """

    at: Tensor
    upto: Tensor
    low: Tensor
    step: Tensor
    marked: Tensor


def _levels_there(rows: Tensor, index: Tensor) -> _Levels:
    """Count the pixels of maps [B, N] by level on a device, all images at once."""
    count, size = rows.shape
    device = rows.device
    low, high = torch.aminmax(rows, dim=1)
    step = (high.double() - low.double()) / (LEVELS - 1)
    divisor = torch.where(step > TINY, step, torch.inf).to(rows.dtype)  # infinite: all are level 0
    levels = (rows - low[:, None]).div_(divisor[:, None]).to(torch.int32).clamp_(0, LEVELS - 1)
    first = torch.arange(0, count * LEVELS, LEVELS, device=device, dtype=torch.int32)[:, None]
    places = levels.add_(first).reshape(-1)
    one = torch.ones(1, dtype=torch.int32, device=device)
    total = torch.zeros(count * LEVELS, dtype=torch.int32, device=device)
    total.index_add_(0, places, one.expand(places.numel()))
    ends = total.view(count, LEVELS).cumsum(1, dtype=torch.int32)
    ranks = constant(_ranks, size, device=device)
    at = torch.searchsorted(ends, ranks.expand(count, -1).contiguous())
    return _Levels(at + first, ends.gather(1, at), low.double(), step, places[index])


def _levels_here(rows: Tensor, index: Tensor) -> _Levels:
    """The same on the CPU, image by image: its caches hold one."""
    count, size = rows.shape
    ranks = constant(_ranks, size, device=rows.device).numpy()
    at, upto = np.empty((2, count, len(ranks)), np.int64)
    low, step = np.empty((2, count))
    marked = np.empty(len(index), np.int64)
    one = torch.ones(1, dtype=torch.int32).expand(size)
    total = torch.zeros(LEVELS, dtype=torch.int32)
    for i, (row, among) in enumerate(zip(rows, _of_images(index, count, size))):
        low[i], high = (v.item() for v in torch.aminmax(row))
        step[i] = (high - low[i]) / (LEVELS - 1)
        divisor = float(step[i]) if step[i] > TINY else math.inf
        levels = (row - float(low[i])).div_(divisor).to(torch.int32).clamp_(0, LEVELS - 1)
        ends = total.zero_().index_add_(0, levels, one).cumsum(0, dtype=torch.int32).numpy()
        at[i] = np.searchsorted(ends, ranks)
        upto[i] = ends[at[i]]
        marked[among] = levels.numpy()[index.numpy()[among] - i * size] + i * LEVELS
    at += np.arange(count)[:, None] * LEVELS
    told = [torch.from_numpy(part) for part in (at, upto, low, step, marked)]
    return _Levels(*told)


def _grouped(rows: Tensor, index: Tensor, weights: Tensor) -> list[tuple[np.ndarray, np.ndarray]]:
    """The groups of every image of maps [B, N], the highest first: the score of the highest level
    of each [G], and counts [G, 3] of normal and anomalous pixels and overlap.

    The host waits for a device once, for what is small.
    """
    found = (_levels_here if rows.device.type == "cpu" else _levels_there)(rows, index)
    anomalous = torch.zeros(found.at.numel(), dtype=torch.float64, device=rows.device)
    overlap = torch.zeros_like(anomalous)
    if index.numel():
        groups = torch.searchsorted(found.at.reshape(-1), found.marked.to(found.at.dtype))
        anomalous.index_add_(0, groups, torch.ones_like(weights))  # counts: exact in any order
        with in_order(rows.device):
            overlap.index_add_(0, groups, weights)
    parts = (found.at, found.upto, anomalous.view_as(found.at), overlap.view_as(found.at))
    scale = torch.stack([found.low, found.step], 1)
    return _distinct(torch.cat([*(p.double() for p in parts), scale], 1).cpu().numpy())


def _distinct(told: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """The groups of images without those that end at the level of the one before them, the highest
    first.  ``told`` [B, 4 G + 2]: level, pixels up to there, anomalous pixels and overlap of every
    group, the lowest first; the lowest score and the step between levels."""
    at, upto, own, shares = (part.ravel() for part in np.split(told[:, :-2], 4, axis=1))
    new = np.ones((len(told), len(at) // len(told)), bool)
    new[:, 1:] = np.diff(at.reshape(new.shape), axis=1) != 0
    kept, groups = np.flatnonzero(new), new.sum(1)
    starts = np.cumsum(groups) - groups
    whole = np.diff(upto[kept], prepend=0)
    whole[starts] = upto[kept[starts]]
    anomalous, area = (np.add.reduceat(part, kept) for part in (own, shares))
    counts = np.stack([whole - anomalous, anomalous, area], 1)
    low, step = (np.repeat(part, groups) for part in told[:, -2:].T)
    owner = np.repeat(np.arange(len(told)), groups)
    scores = low + step * (at[kept] - owner * LEVELS)
    return [
        (scores[start:end][::-1], counts[start:end][::-1])
        for start, end in zip(starts, starts + groups)
    ]


def _ranks(size: int) -> Tensor:
    """How many pixels of an image of ``size`` are in and below each group, rising, int32 [G]: ranks
    from the top grow by :data:`RATIO`."""
    ranks = np.unique(np.floor(RATIO ** np.arange(math.log(size, RATIO) + 1)) - 1)
    return torch.from_numpy((size - ranks[ranks < size])[::-1].astype(np.int32))


def _bins(scores: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The bin of every group, 0 for the highest scores: by false-positive rate in equal ratios, and
    by equal shares of the anomalous pixels."""
    order = np.argsort(-scores, kind="stable")
    ranked = counts[order]
    rate = (np.cumsum(ranked[:, 0]) - ranked[:, 0]) / ranked[:, 0].sum()
    share = (np.cumsum(ranked[:, 1]) - ranked[:, 1]) / ranked[:, 1].sum()
    ratio = -math.log(LOWEST_RATE) / (BINS - 1)
    of_rate = np.floor(np.log(np.maximum(rate, LOWEST_RATE) / LOWEST_RATE) / ratio)
    both = of_rate * (BINS + 1) + np.floor(share * BINS)  # rises with either
    new = np.append(True, both[1:] != both[:-1])
    same = np.append(False, scores[order][1:] == scores[order][:-1])  # equal scores share a bin
    found = np.cumsum(new & ~same) - 1
    bins = np.empty(len(scores), np.int64)
    bins[order] = found
    return bins

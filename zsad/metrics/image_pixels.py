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
        stack, ``weights`` [M]: 1 / area of their regions (both None: no pixel is).  ``seen``
        [B, H, W]: the pixels that count, all anomalous ones of ``index`` among them."""
        rows = maps.reshape(len(maps), -1)
        size = rows.shape[1]
        if not size:
            return
        rows = rows if rows.dtype == torch.float64 else rows.float()
        if rows.device.type != "cpu":
            if seen is None:
                self._images += _grouped_there(rows, index, weights)
                return
            # What is left of each image is of another size: not worth a way of its own.
            rows, seen = rows.cpu(), seen.cpu()
            index, weights = (None if t is None else t.cpu() for t in (index, weights))
        for image, row in enumerate(rows):
            counted = slice(None) if seen is None else seen[image].reshape(-1)
            low, high = (float(v) for v in torch.aminmax(row[counted]))
            step = (high - low) / (LEVELS - 1)
            places = torch.zeros_like(row, dtype=torch.int32)
            if step > TINY:
                places = ((row - low) / step).to(torch.int32).clamp_(0, LEVELS - 1)
            total = torch.bincount(places[counted], minlength=LEVELS)
            found, overlap = torch.zeros_like(total), torch.zeros_like(total).double()
            if index is not None and weights is not None and index.numel():
                inside = (index >= image * size) & (index < (image + 1) * size)
                at = places[index[inside] - image * size]
                found = torch.bincount(at, minlength=LEVELS)
                overlap = torch.bincount(at, weights[inside].double(), minlength=LEVELS)
            parts = (part.flip(0).cpu().numpy() for part in (total, found, overlap))
            held, counts = _grouped(*parts)
            self._images.append((low + step * (LEVELS - 1 - held), counts))

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


def _grouped_there(
    rows: Tensor, index: Tensor | None, weights: Tensor | None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The groups of every image of maps [B, N] on a device, as :func:`_grouped` makes them and with
    the scores of their levels; the host waits once, for what is small."""
    count, size = rows.shape
    device = rows.device
    low, high = torch.aminmax(rows, dim=1)
    step = (high.double() - low.double()) / (LEVELS - 1)
    places = ((rows - low[:, None]) / step.to(rows.dtype)[:, None]).to(torch.int32)
    places = torch.where(step[:, None] > TINY, places.clamp_(0, LEVELS - 1), 0)
    first = torch.arange(0, count * LEVELS, LEVELS, device=device, dtype=torch.int32)[:, None]
    levels = ((LEVELS - 1 - places) + first).reshape(-1)  # from the top, image after image
    one = torch.ones(1, dtype=torch.int32, device=device)
    total = torch.zeros(count * LEVELS, dtype=torch.int32, device=device)
    total.index_add_(0, levels, one.expand(levels.numel()))
    ends = total.view(count, LEVELS).cumsum(1)
    ranks = constant(_ranks, size, device=device)
    starts = torch.searchsorted(ends, ranks.expand(count, -1).contiguous(), right=True)  # [B, G]
    before = torch.where(starts > 0, ends.gather(1, (starts - 1).clamp(min=0)), 0)
    found = torch.zeros(starts.numel(), dtype=torch.float64, device=device)
    overlap = torch.zeros_like(found)
    if index is not None and weights is not None and index.numel():
        edges = (starts + first).reshape(-1)
        groups = torch.searchsorted(edges, levels[index].to(edges.dtype), right=True) - 1
        found.index_add_(0, groups, torch.ones_like(weights))  # counts: exact in any order
        with in_order(device):
            overlap.index_add_(0, groups, weights)
    parts = (starts, before, found.view_as(starts), overlap.view_as(starts))
    scale = torch.stack([low.double(), step], 1)  # [B, 2]
    told = torch.cat([*(p.double() for p in parts), scale], 1).cpu().numpy()
    images = []
    for line in told:
        at, earlier, own, shares = line[:-2].reshape(4, -1)
        _, kept = np.unique(at, return_index=True)  # ranks of one level
        whole = np.diff(np.append(earlier[kept], size))
        anomalous, area = (np.add.reduceat(part, kept) for part in (own, shares))
        counts = np.stack([whole - anomalous, anomalous, area], 1)
        bottom, height = line[-2:]
        images.append((bottom + height * (LEVELS - 1 - at[kept]), counts))
    return images


def _ranks(size: int) -> Tensor:
    """The ranks at which the groups of an image of ``size`` pixels begin, int64 [G]."""
    ranks = np.unique(np.floor(RATIO ** np.arange(math.log(size, RATIO) + 1)) - 1)
    return torch.from_numpy(ranks[ranks < size].astype(np.int64))


def _grouped(
    total: np.ndarray, found: np.ndarray, overlap: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The groups of one image out of counts by level, the highest first: the first level of each
    [G], and counts [G, 3] of normal and anomalous pixels and overlap."""
    ranks = np.unique(np.floor(RATIO ** np.arange(math.log(total.sum(), RATIO) + 1)) - 1)
    starts = np.unique(np.searchsorted(np.cumsum(total), ranks[ranks < total.sum()], "right"))
    counts = np.stack([total - found, found, overlap], 1)
    return starts, np.add.reduceat(counts, starts, axis=0)


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

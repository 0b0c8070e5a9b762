"""Counts of every image's pixels over bins of the score.  No torch: tables are made of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PixelTable:
    """Counts of N images over K bins of the score, the highest first.

    ``normal``, ``anomalous`` [N, K]: pixels; ``overlap`` [N, K]: sums of 1 / area of the region of
    every anomalous pixel; ``regions`` [N]: regions of the masks.
    """

    normal: np.ndarray
    anomalous: np.ndarray
    overlap: np.ndarray
    regions: np.ndarray


def joined(first: PixelTable, second: PixelTable) -> tuple[PixelTable, PixelTable]:
    """Two tables of the same images over the bins of both, ordered by the share of all pixels that
    lies above: scales of two methods have nothing in common but the ranks of the pixels."""
    tables = first, second
    middle = []
    for table in tables:
        pixels = (table.normal + table.anomalous).sum(0)
        middle.append((np.cumsum(pixels) - pixels / 2) / max(pixels.sum(), 1))
    order = np.argsort(np.concatenate(middle), kind="stable")
    size = len(middle[0])

    def spread(table: PixelTable, offset: int) -> PixelTable:
        def wide(part: np.ndarray) -> np.ndarray:
            all_bins = np.zeros((len(part), len(order)), part.dtype)
            all_bins[:, offset : offset + part.shape[1]] = part
            return all_bins[:, order]

        return PixelTable(
            wide(table.normal), wide(table.anomalous), wide(table.overlap), table.regions
        )

    return spread(first, 0), spread(second, size)

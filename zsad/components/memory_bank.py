"""Memory of normal features: how far a query lies from everything seen in reference images.

Used by few-shot methods.  Rows are unit vectors and the distance is ½(1 - cosine) in [0, 1]
(WinCLIP's reference association; for unit vectors it is a quarter of the squared Euclidean
distance that PatchCore's memory uses, hence the same neighbours).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from zsad.components.windows import EPSILON, join, spread
from zsad.types import ImageFeatures, Tap


class Neighbours(NamedTuple):
    """``distance`` [..., k] in [0, 1], nearest first; ``row`` [..., k] of the bank."""

    distance: Tensor
    row: Tensor


class MemoryBank:
    """Unit features [N, D] of normal images, with nearest-neighbour search.

    ``origin`` [N]: which of the features that the bank was made of each row is.
    """

    def __init__(self, features: Tensor) -> None:
        """``features`` [..., D]; raises ``ValueError`` if there is none."""
        rows = features.reshape(-1, features.shape[-1])
        if not rows.shape[0]:
            raise ValueError("a memory bank needs at least one feature")
        self.features = F.normalize(rows.float(), dim=-1)
        self.origin = torch.arange(len(rows), device=rows.device)

    def __len__(self) -> int:
        return self.features.shape[0]

    def neighbours(self, query: Tensor, k: int = 1, max_elements: int = 1 << 26) -> Neighbours:
        """Find the ``k`` nearest rows of every query.  ``query`` [..., D].

        Queries are cut so that no similarity table exceeds ``max_elements`` numbers.
        """
        rows = F.normalize(query.float(), dim=-1).reshape(-1, query.shape[-1])
        step = max(1, max_elements // len(self))
        best = [
            (part @ self.features.T).topk(min(k, len(self)), dim=-1) for part in rows.split(step)
        ]
        cosine = torch.cat([b.values for b in best])
        index = torch.cat([b.indices for b in best])
        shape = (*query.shape[:-1], cosine.shape[-1])
        return Neighbours(((1 - cosine) / 2).clamp(0, 1).reshape(shape), index.reshape(shape))

    def distance(self, query: Tensor) -> Tensor:
        """Return ½(1 - highest cosine) of every query: [..., D] -> [...] in [0, 1]."""
        return self.neighbours(query).distance[..., 0]

    def coreset(self, size: int, seed: int = 0, project: int = 128) -> MemoryBank:
        """Return a bank of at most ``size`` rows that leaves no row far from the bank.

        Greedy k-centre selection (PatchCore, Algorithm 1): start from a seeded random row and
        add the row that is farthest from those chosen.  Distances are taken in a seeded random
        projection to ``project`` dimensions, 0 = in the features themselves.
        """
        if size < 1:
            raise ValueError(f"coreset size {size} must be at least 1")
        if size >= len(self):
            return self
        generator = torch.Generator().manual_seed(seed)
        rows = self.features
        if 0 < project < rows.shape[1]:
            basis = torch.randn(rows.shape[1], project, generator=generator) / project**0.5
            rows = rows @ basis.to(rows)
        chosen = torch.empty(size, dtype=torch.long, device=rows.device)
        chosen[0] = int(torch.randint(len(self), (1,), generator=generator))
        square = rows.square().sum(-1)
        nearest = torch.full_like(square, torch.inf)  # squared distance to the chosen rows
        for i in range(1, size):
            last = chosen[i - 1 : i]  # [1]: as a number, a device would be waited for
            row = rows.index_select(0, last)[0]
            distance = square + square.index_select(0, last) - 2 * (rows @ row)
            nearest = torch.minimum(nearest, distance)
            nearest.index_fill_(0, last, -1.0)  # never again, whatever rounding says
            chosen[i] = nearest.argmax()
        bank = MemoryBank.__new__(MemoryBank)
        bank.features, bank.origin = self.features[chosen], self.origin[chosen]
        return bank


# Banks by the tensor that they were made of, for as long as it lives.
_BANKS: dict[bool, WeakIdKeyDictionary] = {
    True: WeakIdKeyDictionary(),
    False: WeakIdKeyDictionary(),
}


def bank_of(references: ImageFeatures, tap: Tap, patches: bool = False) -> MemoryBank:
    """Return the bank of one tap of reference images; ``patches``: without class token.

    It is made once for as long as the references live, whichever methods ask for it.
    """
    banks, rows = _BANKS[patches], references[tap]
    if rows not in banks:
        banks[rows] = MemoryBank(references.patches(tap) if patches else rows)
    bank: MemoryBank = banks[rows]
    return bank


def tokens_of(layer: Literal["penultimate", "last"], depth: int) -> Tap:
    """The patch tokens that the memory of :func:`association` holds, of the last block of an
    encoder of ``depth`` blocks or of the one before it (WinCLIP Sec. 4.3)."""
    return Tap("tokens", depth - 1 if layer == "penultimate" else depth)


def association(
    query: ImageFeatures,
    references: ImageFeatures,
    tokens: Tap,
    windows: Mapping[int, Tap],
    floor: float = EPSILON,
) -> Tensor:
    """Distance of every patch to the references: [B, h, w] in [0, 1].

    Mean over one bank of patch ``tokens`` and one bank per window size (``windows``: size -> tap
    [B, M, E]); a window's distance is spread to its patches by the harmonic mean, where it counts
    as ``floor`` at least.  WinCLIP (Jeong et al. 2023) Sec. 4.3, used by ALFA, too.
    """
    bank = bank_of(references, tokens, patches=True)
    maps = [bank.distance(query.patches(tokens)).reshape(-1, *query.grid)]
    for size, tap in windows.items():
        distance = bank_of(references, tap).distance(query[tap])
        maps.append(spread(distance, query.grid, size, eps=floor))
    return join(maps, "mean")

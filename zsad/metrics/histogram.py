"""A histogram of scores of any scale, whose memory is fixed and whose bins keep the order.

The range of the scores need not be known: a bin is an interval of float32 *bit patterns*.
Reading a float's bits as a sign-magnitude integer gives a key that grows with the float.  The
upper 12 bits of the key (sign, exponent, three mantissa bits) name a *block*, an eighth of an
octave; a block gets bins when a score falls into it for the first time.  The bins are shared out
evenly: with n blocks in use each has 2^b of them, b = min(20, floor(log2(bins / n))), and b
shrinks (neighbouring bins are added up) as n grows.

Guarantee: two scores share a bin only if they agree in sign, exponent and the first 3 + b
mantissa bits, hence relatively to 2^-(3 + b).  With the default 2^20 bins that is 2^-11 in the
worst case of all 4,080 finite blocks in use; scores between 0.01 and 1 use 54 blocks: 2^-17.
At b = 20 every float has its own bin.  The final bins depend on the set of scores alone, not on
their order or their division into batches and processes.
"""

from __future__ import annotations

from typing import NoReturn

import numpy as np
import torch
from torch import Tensor

from zsad.errors import CellError
from zsad.metrics.functional import Curve

BLOCKS = 1 << 12
FINE = 20  # key bits below the block
CHUNK = 1 << 20  # scores sorted into bins at once: bounds the memory of an update
HEADER = BLOCKS + 2  # slot of every block, then b, then the number of blocks in use
EDGE = 8  # the first and last 8 blocks hold infinities and NaN


def order_keys(scores: Tensor) -> Tensor:
    """Return int32 keys [N] with the order of float32 scores [N]; -0.0 and 0.0 are equal."""
    bits = (scores + 0.0).view(torch.int32)
    return bits.bitwise_xor_((bits >> 31).bitwise_and_(0x7FFFFFFF))


def key_values(keys: np.ndarray) -> np.ndarray:
    """Return the float32 scores of int32 keys."""
    return (keys ^ ((keys >> 31) & np.int32(0x7FFFFFFF))).view(np.float32)


def empty_histogram(bins: int) -> Tensor:
    """Return the state of an empty histogram: int64 [HEADER + 3 * bins].

    One tensor holds everything (the third part is float64, stored by its bits), so that
    copying, moving and gathering it between processes needs no code of its own.
    """
    if bins < BLOCKS or bins & (bins - 1):
        raise ValueError(f"bins must be a power of two of at least {BLOCKS}, not {bins}")
    state = torch.zeros(HEADER + 3 * bins, dtype=torch.int64)
    state[:BLOCKS] = -1
    state[BLOCKS] = FINE
    return state


def merge_histograms(states: Tensor) -> Tensor:
    """Return the histogram of all scores of histograms [W, HEADER + 3 * bins]."""
    merged = states[0].clone()
    target = ScoreHistogram(merged)
    for other in states[1:]:
        target.merge(ScoreHistogram(other))
    return merged


class ScoreHistogram:
    """Works on a state of :func:`empty_histogram`, in place.

    ``total`` [bins] counts all scores, ``anomalous`` [bins] the anomalous ones among them,
    ``overlap`` [bins] sums the weights of the anomalous ones.
    """

    def __init__(self, state: Tensor) -> None:
        self.state = state
        bins = (state.numel() - HEADER) // 3
        self.bins = bins
        self.slots = state[:BLOCKS]  # -1: the block is not in use
        counts = state[HEADER:]
        self.total, self.anomalous = counts[:bins], counts[bins : 2 * bins]
        self.overlap = counts[2 * bins :].view(torch.float64)
        self.fine, self.used = state[BLOCKS : BLOCKS + 2].tolist()

    # ------------------------------------------------------------------------------ filling
    def add(self, scores: Tensor) -> None:
        """Count scores [N] (float32).  Raises :class:`CellError` on NaN and infinities."""
        for part in scores.split(CHUNK):
            places = self._places(part)
            one = torch.ones(1, dtype=torch.int64, device=part.device).expand(places.numel())
            self.total.index_add_(0, places, one)

    def mark_anomalous(self, scores: Tensor, weights: Tensor) -> None:
        """Say that scores [N], already added, are anomalous, with their weights [N] (float64)."""
        for part, weight in zip(scores.split(CHUNK), weights.split(CHUNK)):
            places = self._places(part)
            one = torch.ones(1, dtype=torch.int64, device=part.device).expand(places.numel())
            self.anomalous.index_add_(0, places, one)
            self.overlap.index_add_(0, places, weight)

    def _places(self, scores: Tensor) -> Tensor:
        """Return the bin of each score [N] (int32), opening blocks where needed."""
        keys = order_keys(scores)
        blocks = (keys >> FINE).add_(BLOCKS // 2)
        slots = self.slots.to(torch.int32)
        places = slots.index_select(0, blocks)
        if scores.numel() and int(places.min()) < 0:
            self._open(blocks[places < 0].unique().to(torch.int64), scores)
            places = self.slots.to(torch.int32).index_select(0, blocks)
        places <<= self.fine
        keys >>= FINE - self.fine
        keys &= (1 << self.fine) - 1
        return places.add_(keys)

    def _open(self, blocks: Tensor, scores: Tensor | None = None) -> None:
        """Give bins to blocks that are not in use yet, halving the resolution as needed."""
        if int(blocks.min()) < EDGE or int(blocks.max()) >= BLOCKS - EDGE:
            _refuse(scores)
        count = self.used + blocks.numel()
        fine = min(FINE, (self.bins // count).bit_length() - 1)
        if fine < self.fine:
            for counts in (self.total, self.anomalous, self.overlap):
                kept = self._coarse(counts, fine)
                counts.zero_()
                counts[: kept.numel()] = kept
        self.slots[blocks] = torch.arange(self.used, count, device=self.slots.device)
        self.fine, self.used = fine, count
        self.state[BLOCKS], self.state[BLOCKS + 1] = fine, count

    def _coarse(self, counts: Tensor, fine: int) -> Tensor:
        """Return the used counts, added up to 2^fine bins per block: [used * 2^fine]."""
        used = counts[: self.used << self.fine]
        return used.view(self.used << fine, 1 << (self.fine - fine)).sum(1)

    def merge(self, other: ScoreHistogram) -> None:
        """Add all scores of another histogram of as many bins."""
        if other.bins != self.bins:
            raise ValueError(f"cannot merge histograms of {self.bins} and {other.bins} bins")
        if not other.used:
            return
        theirs = (other.slots >= 0).nonzero()[:, 0]
        new = theirs[self.slots[theirs] < 0]
        if new.numel():
            self._open(new)
        place = torch.empty(other.used, dtype=torch.int64, device=self.state.device)
        place[other.slots[theirs]] = self.slots[theirs]
        # self is not the finer one now: it has opened at least as many blocks
        for mine, added in (
            (self.total, other.total),
            (self.anomalous, other.anomalous),
            (self.overlap, other.overlap),
        ):
            blocks = other._coarse(added, self.fine).view(other.used, -1)
            mine[: self.used << self.fine].view(self.used, -1).index_add_(0, place, blocks)

    # ------------------------------------------------------------------------------ reading
    @property
    def resolution(self) -> float:
        """Scores of one bin agree relatively to this (0 where every float has its own bin)."""
        return 0.0 if self.fine == FINE else 2.0 ** -(3 + self.fine)

    def curve(self, regions: int) -> Curve:
        """Return the counts per occupied bin, highest first (numpy, on the CPU)."""
        slots = self.slots.cpu().numpy()
        blocks = np.flatnonzero(slots >= 0)[::-1]
        rows = slots[blocks]
        size = self.used << self.fine

        def ordered(counts: Tensor) -> np.ndarray:
            table = counts[:size].cpu().numpy().reshape(self.used, -1)
            return table[rows][:, ::-1].reshape(-1)

        total = ordered(self.total)
        keep = np.flatnonzero(total)
        block, bin_ = keep >> self.fine, (1 << self.fine) - 1 - (keep & ((1 << self.fine) - 1))
        keys = ((blocks[block] - BLOCKS // 2) << FINE) + (bin_ << (FINE - self.fine))
        positive = ordered(self.anomalous)[keep]
        return Curve(
            key_values(keys.astype(np.int32)),
            total[keep] - positive,
            positive,
            ordered(self.overlap)[keep],
            regions,
        )


def _refuse(scores: Tensor | None) -> NoReturn:
    count = 0 if scores is None else int((~torch.isfinite(scores)).sum())
    raise CellError(
        f"anomaly maps hold {count} values that are NaN or infinite in float32; check the method's"
        " scores (and its precision) before they are evaluated"
    )

"""A histogram of scores of any scale, whose memory is fixed and whose bins keep the order.

The range of the scores need not be known: a bin is an interval of float32 *bit patterns*.
Reading a float's bits as a sign-magnitude integer gives a key that grows with the float.  The
upper 12 bits of the key (sign, exponent, three mantissa bits) name a *block*, an eighth of an
octave; a block gets bins when a score falls into it for the first time.  The bins are shared out
evenly: with n blocks in use each has 2^b of them, b = min(20, floor(log2(bins / n))), and b
shrinks (neighbouring bins are added up) as n grows.

Guarantee: two scores share a bin only if they agree in sign, exponent and the first 3 + b
mantissa bits, hence relatively to 2^-(3 + b) (scores nearer to 0 than 2^-126, the subnormal
ones, may share a bin with 0).  With the default 2^20 bins that is 2^-11 in the
worst case of all 4,080 finite blocks in use; scores between 0.01 and 1 use 54 blocks: 2^-17.
At b = 20 every float has its own bin.  The final bins depend on the set of scores alone, not on
their order or their division into batches and processes.  Each bin remembers one score and
whether it ever met a different one, so ties are known to be ties and carry no error.
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
BYTES = 8 + 8 + 8 + 4 + 1  # per bin: three counts, a key, a flag
EDGE = 8  # the first and last 8 blocks hold infinities and NaN


def order_keys(scores: Tensor) -> Tensor:
    """Return int32 keys [N] with the order of float32 scores [N]; -0.0 and 0.0 are equal."""
    bits = (scores + 0.0).view(torch.int32)
    return bits.bitwise_xor_((bits >> 31).bitwise_and_(0x7FFFFFFF))


def key_values(keys: np.ndarray) -> np.ndarray:
    """Return the float32 scores of int32 keys."""
    return (keys ^ ((keys >> 31) & np.int32(0x7FFFFFFF))).view(np.float32)


def empty_histogram(bins: int) -> Tensor:
    """Return the state of an empty histogram: int64 [HEADER + bins * BYTES / 8].

    One tensor holds everything (other types are stored by their bits), so that copying, moving
    and gathering it between processes needs no code of its own.
    """
    if bins < BLOCKS or bins & (bins - 1):
        raise ValueError(f"bins must be a power of two of at least {BLOCKS}, not {bins}")
    state = torch.zeros(HEADER + bins * BYTES // 8, dtype=torch.int64)
    state[:BLOCKS] = -1
    state[BLOCKS] = FINE
    return state


def merge_histograms(states: Tensor) -> Tensor:
    """Return the histogram of all scores of histograms [W, ...] of equal size."""
    merged = states[0].clone()
    target = ScoreHistogram(merged)
    for other in states[1:]:
        target.merge(ScoreHistogram(other))
    return merged


class ScoreHistogram:
    """Works on a state of :func:`empty_histogram`, in place.

    ``total`` [bins] counts all scores, ``anomalous`` [bins] the anomalous ones among them,
    ``overlap`` [bins] sums the weights of the anomalous ones.  ``sample`` [bins] is the key of
    one score of the bin, ``mixed`` [bins] says whether the bin holds different scores.
    """

    def __init__(self, state: Tensor) -> None:
        self.state = state
        bins = (state.numel() - HEADER) * 8 // BYTES
        self.bins = bins
        self.slots = state[:BLOCKS]  # -1: the block is not in use
        sizes = [bins, bins, bins, bins // 2, bins // 8]
        self.total, self.anomalous, overlap, sample, mixed = state[HEADER:].split(sizes)
        self.overlap = overlap.view(torch.float64)
        self.sample = sample.view(torch.int32)
        self.mixed = mixed.view(torch.bool)
        self.fine, self.used = state[BLOCKS : BLOCKS + 2].tolist()

    # ------------------------------------------------------------------------------ filling
    def add(self, scores: Tensor) -> None:
        """Count scores [N] (float32).  Raises :class:`CellError` on NaN and infinities."""
        for part in scores.split(CHUNK):
            keys = order_keys(part)
            places = self._places(keys)
            one = torch.ones(1, dtype=torch.int64, device=part.device).expand(places.numel())
            self._note_ties(places, keys)
            self.total.index_add_(0, places, one)

    def _note_ties(self, places: Tensor, keys: Tensor) -> None:
        """Find bins that meet a second score; cheap once most bins in use are mixed."""
        unsure = self.mixed.index_select(0, places).logical_not_().nonzero()[:, 0]
        if not unsure.numel():
            return
        places, keys = places[unsure], keys[unsure]
        fresh = self.total.index_select(0, places) == 0
        self.sample[places[fresh]] = keys[fresh]
        self.mixed[places[self.sample.index_select(0, places) != keys]] = True

    def mark_anomalous(self, scores: Tensor, weights: Tensor) -> None:
        """Say that scores [N], already added, are anomalous, with their weights [N] (float64)."""
        for part, weight in zip(scores.split(CHUNK), weights.split(CHUNK)):
            places = self._places(order_keys(part))
            one = torch.ones(1, dtype=torch.int64, device=part.device).expand(places.numel())
            self.anomalous.index_add_(0, places, one)
            self.overlap.index_add_(0, places, weight)

    def _places(self, keys: Tensor) -> Tensor:
        """Return the bin of each key [N] (int32), opening blocks where needed."""
        blocks = (keys >> FINE).add_(BLOCKS // 2)
        places = self.slots.to(torch.int32).index_select(0, blocks)
        if keys.numel() and int(places.min()) < 0:
            self._open(blocks[places < 0].unique().to(torch.int64), keys)
            places = self.slots.to(torch.int32).index_select(0, blocks)
        within = (keys >> (FINE - self.fine)).bitwise_and_((1 << self.fine) - 1)
        return places.bitwise_left_shift_(self.fine).add_(within)

    def _open(self, blocks: Tensor, keys: Tensor | None = None) -> None:
        """Give bins to blocks that are not in use yet, halving the resolution as needed."""
        if int(blocks.min()) < EDGE or int(blocks.max()) >= BLOCKS - EDGE:
            _refuse(keys)
        count = self.used + blocks.numel()
        fine = min(FINE, (self.bins // count).bit_length() - 1)
        if fine < self.fine:
            coarse = self._coarse(fine)
            for part, kept in zip(self._parts(), coarse):
                part.zero_()
                part[: kept.numel()] = kept.reshape(-1)
        self.slots[blocks] = torch.arange(self.used, count, device=self.slots.device)
        self.fine, self.used = fine, count
        self.state[BLOCKS], self.state[BLOCKS + 1] = fine, count

    def _parts(self) -> tuple[Tensor, ...]:
        return self.total, self.anomalous, self.overlap, self.sample, self.mixed

    def _coarse(self, fine: int) -> tuple[Tensor, ...]:
        """Return all parts with 2^fine bins per block: each [used, 2^fine]."""
        shape = (self.used, 1 << fine, 1 << (self.fine - fine))
        total, anomalous, overlap, sample, mixed = (
            part[: self.used << self.fine].view(shape) for part in self._parts()
        )
        held = (total > 0).to(torch.int32)
        first = held.argmax(2, keepdim=True)  # an occupied bin, if there is one
        different = (held.sum(2) > 1) | mixed.any(2)
        return (
            total.sum(2),
            anomalous.sum(2),
            overlap.sum(2),
            sample.gather(2, first)[..., 0],
            different,
        )

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
        rows = torch.empty(other.used, dtype=torch.int64, device=self.state.device)
        rows[other.slots[theirs]] = self.slots[theirs]  # their slot -> my slot
        # self is not the finer one now: it has opened at least as many blocks
        added = other._coarse(self.fine)
        shape = (self.used, 1 << self.fine)
        mine = [part[: self.used << self.fine].view(shape) for part in self._parts()]
        held, adding = mine[0][rows] > 0, added[0] > 0
        differ = held & adding & (mine[3][rows] != added[3])
        mine[4][rows] = mine[4][rows] | added[4] | differ
        mine[3][rows] = torch.where(held, mine[3][rows], added[3])
        for part, more in zip(mine[:3], added[:3]):
            part.index_add_(0, rows, more)

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
            table = counts[:size].cpu().numpy().reshape(self.used, 1 << self.fine)
            return table[rows][:, ::-1].reshape(-1)

        total = ordered(self.total)
        keep = np.flatnonzero(total)
        block, bin_ = keep >> self.fine, (1 << self.fine) - 1 - (keep & ((1 << self.fine) - 1))
        edges = ((blocks[block] - BLOCKS // 2) << FINE) + (bin_ << (FINE - self.fine))
        mixed = ordered(self.mixed)[keep]
        keys = np.where(mixed, edges.astype(np.int32), ordered(self.sample)[keep])
        positive = ordered(self.anomalous)[keep]
        return Curve(
            key_values(keys),
            total[keep] - positive,
            positive,
            ordered(self.overlap)[keep],
            regions,
            mixed,
        )


def _refuse(keys: Tensor | None) -> NoReturn:
    count = 0 if keys is None else int((~np.isfinite(key_values(keys.cpu().numpy()))).sum())
    raise CellError(
        f"anomaly maps hold {count} values that are NaN or infinite in float32; check the method's"
        " scores (and its precision) before they are evaluated"
    )

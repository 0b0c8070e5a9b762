"""A histogram of scores of any scale, whose memory is fixed and whose bins keep the order.

The range of the scores need not be known: a bin is an interval of float32 *bit patterns*.
Reading a float's bits as a sign-magnitude integer gives a key that grows with the float.  The
upper 12 bits of the key (sign, exponent, three mantissa bits) name a *block*, an eighth of an
octave; a block gets bins when a score falls into it for the first time.  The bins are shared out
evenly: with n blocks in use each has 2^b of them, b = min(20, floor(log2(bins / n))), and b
shrinks (neighbouring bins are added up) as n grows.

Guarantee: two scores share a bin only if they agree in sign, exponent and the first 3 + b
mantissa bits, hence relatively to 2^-(3 + b) (scores nearer to 0 than 2^-126, the subnormal
ones, may share a bin with 0).  With 2^18 bins that is 2^-9 in the worst case of all 4,080 finite
blocks in use; scores between 0.01 and 1 use 55 blocks: 2^-15; scores within an octave that spans
8 of them: 2^-18.  At b = 20 every float has its own bin.  The bins depend on the set of scores
alone, not on their order or their division into batches and processes.  Each bin remembers one
score and whether it ever met a different one, so ties are known to be ties and carry no error.
"""

from __future__ import annotations

from typing import NoReturn

import numpy as np
import torch
from torch import Tensor

from zsad.errors import CellError, counted
from zsad.metrics.functional import Curve
from zsad.on_device import in_order, uploaded

BLOCKS = 1 << 12
FINE = 20  # key bits below the block
CHUNK = 1 << 18  # scores sorted into bins at once on the CPU: fits its caches
ALL = 1 << 30  # on a device, where every further kernel costs more than memory
HEADER = BLOCKS + 2  # slot of every block, then b, then the number of blocks in use
BYTES = 8 + 8 + 8 + 4  # per bin: three counts and a key
EDGE = 8  # the first and last 8 blocks hold infinities and NaN
FRESH = 0x7FFFFFFF  # no score yet; the key of a NaN, like the next
MIXED = -0x80000000  # different scores


def order_keys(scores: Tensor) -> Tensor:
    """Return int32 keys [N] with the order of float32 scores [N]; -0.0 and 0.0 are equal."""
    bits = (scores + 0.0).view(torch.int32)
    return bits.bitwise_xor_((bits >> 31).bitwise_and_(0x7FFFFFFF))


def key_values(keys: np.ndarray) -> np.ndarray:
    """Return the float32 scores of int32 keys."""
    values: np.ndarray = (keys ^ ((keys >> 31) & np.int32(0x7FFFFFFF))).view(np.float32)
    return values


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
    state[HEADER + 3 * bins :].view(torch.int32).fill_(FRESH)
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
    the bin's only score, or FRESH, or MIXED.  The blocks in use lie in ascending order.

    The header is read once: an object that is kept makes the host wait for a device a single
    time per call of :meth:`add`, to know the range of the scores.
    """

    def __init__(self, state: Tensor) -> None:
        self.state = state
        self.bins = bins = (state.numel() - HEADER) * 8 // BYTES
        self.slots = state[:BLOCKS]  # -1: the block is not in use
        self.total, self.anomalous, overlap, sample = state[HEADER:].split(
            [bins, bins, bins, bins // 2]
        )
        self.overlap = overlap.view(torch.float64)
        self.sample = sample.view(torch.int32)
        self._read_header()

    def _read_header(self) -> None:
        self._note_header(self.state[:HEADER].cpu())

    def _note_header(self, header: Tensor) -> None:
        """Know the header [HEADER] on the host."""
        self.fine, self.used = header[BLOCKS:].tolist()
        self.blocks = (header[:BLOCKS] >= 0).nonzero()[:, 0]  # [used], ascending, on the host
        first, last = (int(self.blocks[i]) for i in (0, -1)) if self.used else (0, -1)
        # blocks in one piece, the usual case, need no table look-up
        self.start = first if last - first + 1 == self.used > 0 else None

    @property
    def _chunk(self) -> int:
        return CHUNK if self.state.device.type == "cpu" else ALL

    # ------------------------------------------------------------------------------ filling
    def add(self, scores: Tensor) -> None:
        """Count scores [N] (float32).  Raises :class:`CellError` on NaN and infinities."""
        for part in scores.split(self._chunk):
            keys = order_keys(part)
            places = self._places(keys)
            self._note_ties(places, keys)
            one = torch.ones(1, dtype=torch.int64, device=part.device).expand(places.numel())
            self.total.index_add_(0, places, one)

    def mark_anomalous(self, scores: Tensor, weights: Tensor) -> None:
        """Say that scores [N], already added, are anomalous, with their weights [N] (float64)."""
        for part, weight in zip(scores.split(self._chunk), weights.split(self._chunk)):
            places = self._places(order_keys(part), added=True)
            one = torch.ones(1, dtype=torch.int64, device=part.device).expand(places.numel())
            self.anomalous.index_add_(0, places, one)
            with in_order(part.device):
                self.overlap.index_add_(0, places, weight)

    def _note_ties(self, places: Tensor, keys: Tensor) -> None:
        """Remember the first score of each bin and which bins meet a second one."""
        if self.state.device.type != "cpu":
            self._join_ties(places, keys)
            return
        known = self.sample.index_select(0, places)
        news = _new_scores(known, keys)
        if not news.numel():
            return
        places, keys, known = places[news], keys[news], known[news]
        first = known == FRESH
        self.sample[places[first]] = keys[first]
        self.sample[places[self.sample.index_select(0, places) != keys]] = MIXED

    def _join_ties(self, places: Tensor, keys: Tensor) -> None:
        """The same where nothing is to be looked at in between: by the extremes of every bin."""
        bins = self.sample[: self.used << self.fine]
        low, high = torch.full_like(bins, FRESH), torch.full_like(bins, MIXED)
        where = places.to(torch.int64)
        low.scatter_reduce_(0, where, keys, "amin")
        high.scatter_reduce_(0, where, keys, "amax")
        seen = torch.where((low == high) | (low == FRESH), low, MIXED)
        bins.copy_(_join_samples(torch.stack([bins, seen]), 0))

    def _places(self, keys: Tensor, added: bool = False) -> Tensor:
        """Return the bin of each key [N] (int32), opening blocks where needed; none is for what
        was ``added`` before."""
        if not keys.numel():
            return keys
        if self.start is not None:
            places: Tensor = keys >> (FINE - self.fine)
            places -= (self.start - BLOCKS // 2) << self.fine
            if added:
                return places
            low, high = torch.stack(torch.aminmax(places)).tolist()
            if low >= 0 and high < self.used << self.fine:
                return places
        blocks = (keys >> FINE).add_(BLOCKS // 2)
        slots = self.slots.to(torch.int32).index_select(0, blocks)
        if not added and int(slots.min()) < 0:
            self._open(self._unopened(blocks), keys)
            slots = self.slots.to(torch.int32).index_select(0, blocks)
        within = (keys >> (FINE - self.fine)).bitwise_and_((1 << self.fine) - 1)
        return slots.bitwise_left_shift_(self.fine).add_(within)

    def _unopened(self, blocks: Tensor) -> Tensor:
        """Return which of blocks [N] are not in use, ascending and on the host."""
        met = torch.zeros(BLOCKS, dtype=torch.bool, device=blocks.device)
        met = met.index_fill_(0, blocks.to(torch.int64), True).cpu()
        met[self.blocks] = False
        return met.nonzero()[:, 0]

    def _open(self, blocks: Tensor, keys: Tensor | None = None) -> None:
        """Give bins to blocks [N] (on the host) that are not in use yet, halving the resolution as
        needed."""
        if int(blocks.min()) < EDGE or int(blocks.max()) >= BLOCKS - EDGE:
            _refuse(keys)
        every = torch.cat([self.blocks, blocks]).unique()
        count = every.numel()
        fine = min(FINE, (self.bins // count).bit_length() - 1)
        if self.used:
            rows = uploaded(torch.searchsorted(every, self.blocks), self.state.device)
            for part, kept in zip(self._parts(), self._coarse(fine)):
                part.fill_(FRESH if part is self.sample else 0)
                part[: count << fine].view(count, 1 << fine).index_copy_(0, rows, kept)
        header = torch.full((HEADER,), -1, dtype=torch.int64)
        header[every] = torch.arange(count)
        header[BLOCKS], header[BLOCKS + 1] = fine, count
        self.state[:HEADER].copy_(uploaded(header, self.state.device))
        self._note_header(header)

    def _parts(self) -> tuple[Tensor, ...]:
        return self.total, self.anomalous, self.overlap, self.sample

    def _table(self, part: Tensor) -> Tensor:
        """Return the bins in use as a view [used, 2^b]."""
        return part[: self.used << self.fine].view(self.used, 1 << self.fine)

    def _coarse(self, fine: int) -> tuple[Tensor, ...]:
        """Return copies of all parts with 2^fine bins per block: each [used, 2^fine]."""
        tables = [
            self._table(part).reshape(self.used, 1 << fine, 1 << (self.fine - fine))
            for part in self._parts()
        ]
        return (*(table.sum(2) for table in tables[:3]), _join_samples(tables[3], 2))

    def merge(self, other: ScoreHistogram) -> None:
        """Add all scores of another histogram of as many bins."""
        if other.bins != self.bins:
            raise ValueError(f"cannot merge histograms of {self.bins} and {other.bins} bins")
        if not other.used:
            return
        new = other.blocks[~torch.isin(other.blocks, self.blocks)]
        if new.numel():
            self._open(new)
        rows = self.slots[uploaded(other.blocks, self.state.device)]
        # self is not the finer one now: it has opened at least as many blocks
        added = other._coarse(self.fine)
        mine = [self._table(part) for part in self._parts()]
        for table, more in zip(mine[:3], added[:3]):
            table[rows] += more
        mine[3][rows] = _join_samples(torch.stack([mine[3][rows], added[3]]), 0)

    # ------------------------------------------------------------------------------ reading
    @property
    def resolution(self) -> float:
        """Scores of one bin agree relatively to this (0 where every float has its own bin)."""
        return 0.0 if self.fine == FINE else 2.0 ** -(3 + self.fine)

    def curve(self, regions: int) -> Curve:
        """Return the counts per occupied bin, highest first (numpy, on the CPU)."""
        total = self._table(self.total).reshape(-1).cpu().numpy()
        keep = np.flatnonzero(total)[::-1]

        def kept(part: Tensor) -> np.ndarray:
            return np.asarray(self._table(part).reshape(-1).cpu().numpy()[keep])

        blocks = self.blocks.numpy()[keep >> self.fine]
        within = keep & ((1 << self.fine) - 1)
        edges = ((blocks - BLOCKS // 2) << FINE) + (within << (FINE - self.fine))
        sample = kept(self.sample)
        mixed = sample == MIXED
        positive = kept(self.anomalous)
        return Curve(
            key_values(np.where(mixed, edges.astype(np.int32), sample)),
            total[keep] - positive,
            positive,
            kept(self.overlap),
            regions,
            mixed,
        )


def _new_scores(known: Tensor, keys: Tensor) -> Tensor:
    """Return where a bin that is not mixed meets a key that it does not know: [M]."""
    if known.device.type == "cpu":  # numpy compares integers several times faster than torch
        old = known.numpy()
        return torch.from_numpy(np.flatnonzero((old != keys.numpy()) & (old != MIXED)))
    return (known != keys).logical_and_(known != MIXED).nonzero()[:, 0]


def _join_samples(samples: Tensor, dim: int) -> Tensor:
    """Return what is known of bins that are added up along ``dim``."""
    low = samples.amin(dim)  # FRESH is the largest key, MIXED the smallest
    high = torch.where(samples == FRESH, MIXED, samples).amax(dim)
    return torch.where((low == high) | (low == FRESH), low, MIXED)


def _refuse(keys: Tensor | None) -> NoReturn:
    count = 0 if keys is None else int((~np.isfinite(key_values(keys.cpu().numpy()))).sum())
    raise CellError(
        f"anomaly maps hold {counted(count, 'value that is', 'values that are')} NaN or "
        "infinite in float32; check the method's"
        " scores (and its precision) before they are evaluated"
    )

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
CHUNK = 1 << 17  # scores sorted into bins at once on the CPU: fits its nearer caches
FEW = 1 << 12  # scores that are looked at first, to know all blocks
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


def empty_histogram(bins: int, device: torch.device | None = None) -> Tensor:
    """Return the state of an empty histogram: int64 [HEADER + bins * BYTES / 8].  ``device``: where
    it is made; None: where tensors are made now.

    One tensor holds everything (other types are stored by their bits), so that copying, moving
    and gathering it between processes needs no code of its own.
    """
    if bins < BLOCKS or bins & (bins - 1):
        raise ValueError(f"bins must be a power of two of at least {BLOCKS}, not {bins}")
    state = torch.zeros(HEADER + bins * BYTES // 8, dtype=torch.int64, device=device)
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
        one = torch.ones(1, dtype=torch.int64, device=scores.device)
        for part in scores.split(self._chunk):
            keys = _keys(part)
            places = self._places(keys, scores)
            self._note_ties(places, keys)
            self.total.index_add_(0, places, one.expand(places.numel()))

    def mark_anomalous(self, scores: Tensor, weights: Tensor) -> None:
        """Say that scores [N], already added, are anomalous, with their weights [N] (float64)."""
        one = torch.ones(1, dtype=torch.int64, device=scores.device)
        for part, weight in zip(scores.split(self._chunk), weights.split(self._chunk)):
            places = self._places(_keys(part))
            self.anomalous.index_add_(0, places, one.expand(places.numel()))
            with in_order(part.device):
                self.overlap.index_add_(0, places, weight)

    def _note_ties(self, places: Tensor, keys: Tensor) -> None:
        """Remember the first score of each bin and which bins meet a second one."""
        if self.state.device.type != "cpu":
            self._join_ties(places, keys)
            return
        # numpy compares integers several times faster than torch, and picks them faster where it is
        # not asked to look for places outside ("wrap"); both look at the same memory
        sample = self.sample.numpy()
        held = self.sample.index_select(0, places).numpy()
        unmixed = np.flatnonzero(held != MIXED)  # the others have nothing to learn
        where = places.numpy().take(unmixed, mode="wrap").astype(np.int64)
        held, met = (a.take(unmixed, mode="wrap") for a in (held, keys.numpy()))
        fresh = held == FRESH
        if fresh.any():  # the rest is told what it holds: cheaper than leaving it out
            told = torch.from_numpy(_where(fresh, met, held))
            self.sample.scatter_(0, torch.from_numpy(where), told)
            held = sample.take(where, mode="wrap")
        sample[where.take(np.flatnonzero(held != met), mode="wrap")] = MIXED

    def _join_ties(self, places: Tensor, keys: Tensor) -> None:
        """The same where nothing is to be looked at in between: by the extremes of every bin."""
        bins = self.sample[: self.used << self.fine]
        low, high = torch.full_like(bins, FRESH), torch.full_like(bins, MIXED)
        where = places.to(torch.int64)
        low.scatter_reduce_(0, where, keys, "amin")
        high.scatter_reduce_(0, where, keys, "amax")
        seen = torch.where((low == high) | (low == FRESH), low, MIXED)
        bins.copy_(_join_samples(bins, seen))

    def _places(self, keys: Tensor, added: Tensor | None = None) -> Tensor:
        """Return the bin of each key [N] (int32).  ``added`` [M]: the scores that are being added,
        all of whose blocks are opened where one is missing; None: these are in already."""
        if not keys.numel():
            return keys
        if self.start is not None:
            places: Tensor = keys >> (FINE - self.fine)
            places -= (self.start - BLOCKS // 2) << self.fine
            if added is None or self._in_use(places):
                return places
        blocks = _blocks(keys)
        slots = self.slots.to(torch.int32).index_select(0, blocks)
        if added is not None and int(slots.min()) < 0:
            self._open(self._unopened(blocks, added), added)
            return self._places(keys)
        within = (keys >> (FINE - self.fine)).bitwise_and_((1 << self.fine) - 1)
        return slots.bitwise_left_shift_(self.fine).add_(within)

    def _in_use(self, places: Tensor) -> bool:
        """Whether all places [N], found by subtraction, are among the bins in use."""
        if places.device.type == "cpu":  # read without a sign, one below 0 is far above the last
            return bool(places.numpy().view(np.uint32).max() < self.used << self.fine)
        low, high = torch.stack(torch.aminmax(places)).tolist()
        return bool(low >= 0 and high < self.used << self.fine)

    def _unopened(self, blocks: Tensor, scores: Tensor) -> Tensor:
        """Return which blocks of scores [M] are not in use, ascending and on the host.  ``blocks``
        [N]: those of the scores that are looked at now, on a device all of them."""
        if blocks.device.type == "cpu":
            met = _met(scores)
        else:
            met = torch.zeros(BLOCKS, dtype=torch.bool, device=blocks.device)
            met = met.index_fill_(0, blocks.to(torch.int64), True).cpu()
        met[self.blocks] = False
        return met.nonzero()[:, 0]

    def _open(self, blocks: Tensor, scores: Tensor | None = None) -> None:
        """Give bins to blocks [N] (on the host) that are not in use yet, halving the resolution as
        needed.  ``scores``: those that are being added."""
        if int(blocks.min()) < EDGE or int(blocks.max()) >= BLOCKS - EDGE:
            _refuse(scores)
        every = torch.cat([self.blocks, blocks]).unique()
        count = every.numel()
        fine = min(FINE, (self.bins // count).bit_length() - 1)
        if self.used:
            self._make_room(torch.searchsorted(every, self.blocks), count, fine)
        header = torch.full((HEADER,), -1, dtype=torch.int64)
        header[every] = torch.arange(count)
        header[BLOCKS], header[BLOCKS + 1] = fine, count
        self.state[:HEADER].copy_(uploaded(header, self.state.device))
        self._note_header(header)

    def _make_room(self, rows: Tensor, count: int, fine: int) -> None:
        """Move the blocks in use to ``rows`` [used] (on the host) of ``count``, with 2^fine bins in
        each, and leave all others blank."""
        stay = 0 if fine < self.fine else int((rows == torch.arange(len(rows))).sum())
        first, end = stay << fine, max(self.used << self.fine, count << fine)
        moved = uploaded(rows[stay:] - stay, self.state.device)
        for part, kept in zip(self._parts(), self._coarse(fine, stay)):
            part[first:end] = FRESH if part is self.sample else 0
            part[first : count << fine].view(-1, 1 << fine).index_copy_(0, moved, kept)

    def _parts(self) -> tuple[Tensor, ...]:
        return self.total, self.anomalous, self.overlap, self.sample

    def _table(self, part: Tensor) -> Tensor:
        """Return the bins in use as a view [used, 2^b]."""
        return part[: self.used << self.fine].view(self.used, 1 << self.fine)

    def _coarse(self, fine: int, start: int = 0) -> tuple[Tensor, ...]:
        """Return copies of all parts, from block number ``start`` on, with 2^fine bins per block:
        each [used - start, 2^fine]."""
        tables = [self._table(part)[start:] for part in self._parts()]
        if fine == self.fine:
            return tuple(table.clone() for table in tables)
        for _ in range(self.fine - fine):
            halves = [(table[:, ::2], table[:, 1::2]) for table in tables]
            tables = [*(one + other for one, other in halves[:3]), _join_samples(*halves[3])]
        return tuple(tables)

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
        mine[3][rows] = _join_samples(mine[3][rows], added[3])

    # ------------------------------------------------------------------------------ reading
    @property
    def resolution(self) -> float:
        """Scores of one bin agree relatively to this (0 where every float has its own bin)."""
        return 0.0 if self.fine == FINE else 2.0 ** -(3 + self.fine)

    def curve(self, regions: int) -> Curve:
        """Return the counts per occupied bin, highest first (numpy, on the CPU)."""
        total, *others = (self._table(part).reshape(-1).cpu().numpy() for part in self._parts())
        keep = np.flatnonzero(total != 0)[::-1].copy()
        total, positive, overlap, sample = (p.take(keep, mode="wrap") for p in (total, *others))
        mixed = sample == MIXED
        return Curve(
            key_values(_where(mixed, self._edges().take(keep, mode="wrap"), sample)),
            total - positive,
            positive,
            overlap,
            regions,
            mixed,
        )

    def _edges(self) -> np.ndarray:
        """Return the smallest key of each bin in use, int32 (numpy)."""
        blocks = (self.blocks.numpy() - BLOCKS // 2).astype(np.int32)
        within = np.arange(1 << self.fine, dtype=np.int32) << (FINE - self.fine)
        edges: np.ndarray = (blocks[:, None] << FINE) + within
        return edges.reshape(-1)


def _keys(scores: Tensor) -> Tensor:
    """Return :func:`order_keys`, to be read only: of scores above 0 they are their own bits."""
    if scores.device.type == "cpu" and scores.numel() and scores.numpy().min() > 0:
        return scores.view(torch.int32)
    return order_keys(scores)


def _blocks(keys: Tensor) -> Tensor:
    """Return the block of each key [N], int32."""
    return (keys >> FINE).add_(BLOCKS // 2)


def _met(scores: Tensor) -> Tensor:
    """Return which blocks scores [N] on the CPU fall into: [BLOCKS].

    A few scores tell most blocks; only what lies outside the longest piece of these is looked up.
    """
    met = np.zeros(BLOCKS, bool)
    met[_blocks(_keys(scores[:: -(-len(scores) // FEW)])).numpy()] = True
    at = np.flatnonzero(met)
    piece = max(np.split(at, np.flatnonzero(np.diff(at) != 1) + 1), key=len)
    piece = piece[: BLOCKS - 1]  # whose keys can be counted in 32 bits
    first, width = np.int32((piece[0] - BLOCKS // 2) << FINE), np.uint32(len(piece) << FINE)
    for part in scores.split(CHUNK):
        keys = _keys(part)
        # without a sign, what lies below the first block is far above the last
        beyond = np.flatnonzero((keys.numpy() - first).view(np.uint32) >= width)
        if len(beyond):
            met[_blocks(keys[torch.from_numpy(beyond)]).numpy()] = True
    return torch.from_numpy(met)


def _where(true: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """``np.where`` of int32 numbers without a branch, which a processor would often guess wrong."""
    found: np.ndarray = ((one ^ other) & -true.astype(np.int32)) ^ other
    return found


def _join_samples(one: Tensor, other: Tensor) -> Tensor:
    """Return what is known of bins that are added up, of samples of one shape."""
    low = torch.minimum(one, other)  # FRESH is the largest key, MIXED the smallest
    new = (one == other) | (torch.maximum(one, other) == FRESH)
    return torch.where(new, low, MIXED)


def _refuse(scores: Tensor | None) -> NoReturn:
    count = 0 if scores is None else int((~torch.isfinite(scores)).sum())
    raise CellError(
        f"anomaly maps hold {counted(count, 'value that is', 'values that are')} NaN or "
        "infinite in float32; check the method's"
        " scores (and its precision) before they are evaluated"
    )

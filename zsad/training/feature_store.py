"""A store for frozen features: every image is encoded once, later epochs read.

Three tiers with a byte budget each: the device, host memory, files on disk that are read by
memory mapping.  A value goes to the first tier with room and stays there.  Epochs read all
images once each, in changing order; then whatever is kept helps equally, and an eviction per
insertion (LRU) would only cause churn.  What finds no room is not kept and is computed again by
the caller.  Tensors come back bit for bit, in the dtype of the forward pass.

Values are grouped in *spaces*: everything that changes a feature (backbone, weights, encoder
variant, preprocessing, precision) is hashed into the space's name, see :func:`space_of`.  When
the budget is spent, whole spaces that nobody holds make room for a new one, the one that has not
been used for longest first.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from zsad import config as cfg
from zsad.io import scratch_folder
from zsad.on_device import gathered
from zsad.types import BackboneInfo, EncoderVariant, ImageFeatures, Tap

log = logging.getLogger(__name__)

Key = tuple[str, str, str]  # space, image digest, part
GIB = 1 << 30
SCRATCH = "zsad-features-"  # folders of the disk tier begin like this


def space_of(info: BackboneInfo, variant: EncoderVariant, precision: str = "fp32") -> str:
    """Name the space of features of one backbone, variant and preprocessing."""
    identity = [
        info.name,
        info.weights_sha256,
        asdict(variant),
        variant.image_size or info.image_size,
        list(info.mean),
        list(info.std),
        info.interpolation,
        info.activation,
        precision,
    ]
    return cfg.digest(identity, 20)


def part_of(tap: Tap) -> str:
    """Name a tap inside a space."""
    return f"{tap.kind}-{tap.layer}-{tap.start}"


class Tier(Protocol):
    """One place for tensors.  ``put`` returns False when there is no room."""

    name: str
    budget: int
    used: int

    def has(self, key: Key) -> bool: ...
    def get(self, key: Key) -> Tensor: ...
    def put(self, key: Key, value: Tensor) -> bool: ...
    def drop(self, space: str) -> None: ...


class MemoryTier:
    """Tensors on a device, or in host memory (``device`` "cpu")."""

    def __init__(self, name: str, budget: int, device: str | torch.device = "cpu") -> None:
        self.name, self.budget, self.device = name, budget, torch.device(device)
        self.used = 0
        self._values: dict[Key, Tensor] = {}

    def has(self, key: Key) -> bool:
        return key in self._values

    def get(self, key: Key) -> Tensor:
        return self._values[key]

    def put(self, key: Key, value: Tensor) -> bool:
        size = value.numel() * value.element_size()
        if self.used + size > self.budget:
            return False
        # A copy of its own: a row of a batch would keep the whole batch alive.
        self._values[key] = value.detach().to(self.device, copy=True).contiguous()
        self.used += size
        return True

    def drop(self, space: str) -> None:
        for key in [k for k in self._values if k[0] == space]:
            value = self._values.pop(key)
            self.used -= value.numel() * value.element_size()


class _Records:
    """Equally shaped tensors in one file: appended by writing, read by memory mapping."""

    def __init__(self, path: Path, like: Tensor) -> None:
        self.path, self.shape, self.dtype = path, like.shape, like.dtype
        self.size = like.numel() * like.element_size()
        self.rows: dict[str, int] = {}
        self._map: mmap.mmap | None = None

    def append(self, digest: str, value: Tensor) -> None:
        """Raises ``OSError`` when the disk is full; the file then ends at a whole record."""
        raw = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        end = len(self.rows) * self.size
        with open(self.path, "r+b" if self.path.exists() else "w+b") as file:
            file.seek(end)
            try:
                file.write(raw)
                file.flush()
            except OSError:
                file.truncate(end)
                raise
        self.rows[digest] = len(self.rows)

    def read(self, digest: str) -> Tensor:
        start = self.rows[digest] * self.size
        if self._map is None or len(self._map) < start + self.size:
            with open(self.path, "rb") as file:
                # Copy-on-write: torch wants a writable buffer; nothing is ever written to it.
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        flat = torch.frombuffer(self._map, dtype=self.dtype, count=self.shape.numel(), offset=start)
        return flat.view(self.shape).clone()


class DiskTier:
    """Tensors in files below ``folder``, one file per space and part."""

    name = "disk"

    def __init__(self, budget: int, folder: Path) -> None:
        self.budget, self.folder = budget, folder
        self.used = 0
        self._files: dict[tuple[str, str], _Records] = {}

    def has(self, key: Key) -> bool:
        records = self._files.get((key[0], key[2]))
        return records is not None and key[1] in records.rows

    def get(self, key: Key) -> Tensor:
        return self._files[key[0], key[2]].read(key[1])

    def put(self, key: Key, value: Tensor) -> bool:
        size = value.numel() * value.element_size()
        if self.used + size > self.budget or not size:
            return False
        space, digest, part = key
        records = self._files.get((space, part))
        if records is None:
            records = _Records(self.folder / f"{space}-{part}.bin", value)
        if records.shape != value.shape or records.dtype != value.dtype:
            return False
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            records.append(digest, value)
        except OSError as error:
            log.warning("feature cache on disk is off (%s); features are recomputed", error)
            self.budget = 0
            return False
        self._files[space, part] = records
        self.used += size
        return True

    def drop(self, space: str) -> None:
        for key in [k for k in self._files if k[0] == space]:
            records = self._files.pop(key)
            self.used -= len(records.rows) * records.size
            records.path.unlink(missing_ok=True)


class FeatureStore:
    """Features by (space, image digest, part), over tiers with byte budgets.

    ``device_bytes`` on ``device``, ``host_bytes`` in memory, ``disk_bytes`` below ``folder``
    (a temporary folder if None).  Not thread-safe.  Use as a context manager, or call
    :meth:`close`: what it wrote to disk is scratch and is removed.
    """

    def __init__(
        self,
        *,
        host_bytes: int = 4 * GIB,
        device_bytes: int = 0,
        disk_bytes: int = 0,
        device: str | torch.device = "cpu",
        folder: Path | None = None,
    ) -> None:
        self._scratch: Path | None = None
        self._open = contextlib.ExitStack()
        if disk_bytes > 0:
            parent = folder or Path(tempfile.gettempdir())
            self._scratch = self._open.enter_context(scratch_folder(parent, SCRATCH))
        self.tiers: list[Tier] = [
            MemoryTier("device", device_bytes, device),
            MemoryTier("host", host_bytes),
            *([DiskTier(disk_bytes, self._scratch)] if self._scratch else []),
        ]
        self.refused = 0  # values that there was no room for, since the store was made
        self._last_used: dict[str, int] = {}
        self._held: frozenset[str] = frozenset()
        self._clock = 0

    # ------------------------------------------------------------------------ one value
    def put(self, space: str, digest: str, part: str, value: Tensor) -> bool:
        """Keep a value; return whether there was room.  A value that is there stays."""
        self._touch(space)
        key = (space, digest, part)
        if self._find(key) is not None:
            return True
        if any(tier.put(key, value) for tier in self.tiers):
            return True
        while (stale := self._stale(space)) is not None:
            self.discard(stale)
            if any(tier.put(key, value) for tier in self.tiers):
                return True
        self.refused += 1
        return False

    def get(self, space: str, digest: str, part: str) -> Tensor | None:
        """Return a value as it was put, on whatever device it lies, or None."""
        self._touch(space)
        key = (space, digest, part)
        tier = self._find(key)
        return None if tier is None else tier.get(key)

    def has(self, space: str, digest: str, parts: Iterable[str]) -> bool:
        """Whether all parts of an image are kept."""
        return all(self._find((space, digest, part)) is not None for part in parts)

    # ---------------------------------------------------------------------- whole batches
    def put_batch(self, space: str, digests: Sequence[str], features: ImageFeatures) -> bool:
        """Keep the rows of a batch of features; return whether all found room."""
        fitted = [
            self.put(space, digest, part_of(tap), value[row])
            for row, digest in enumerate(digests)
            for tap, value in features.data.items()
        ]
        return all(fitted)

    def get_batch(
        self,
        space: str,
        digests: Sequence[str],
        taps: Iterable[Tap],
        grid: tuple[int, int],
        device: str | torch.device = "cpu",
    ) -> ImageFeatures | None:
        """Return the features of all images in order on ``device``, or None if one is missing."""
        data: dict[Tap, Tensor] = {}
        for tap in sorted(taps):
            rows = [self.get(space, digest, part_of(tap)) for digest in digests]
            found = [r for r in rows if r is not None]
            if len(found) != len(rows):
                return None
            data[tap] = gathered(found, torch.device(device))
        return ImageFeatures(grid, data)

    # ----------------------------------------------------------------------------- room
    @property
    def budget(self) -> int:
        """Bytes of all tiers together."""
        return sum(tier.budget for tier in self.tiers)

    @property
    def used(self) -> int:
        """Bytes in use, all tiers together."""
        return sum(tier.used for tier in self.tiers)

    def settle(self, device: torch.device) -> None:
        """Keep on ``device`` from now on what the first tier takes."""
        first = self.tiers[0]
        assert isinstance(first, MemoryTier)
        first.device = device

    def hold(self, spaces: Iterable[str]) -> None:
        """Protect these spaces, and no others, from making room."""
        self._held = frozenset(spaces)

    def discard(self, space: str) -> None:
        """Forget a space."""
        for tier in self.tiers:
            tier.drop(space)
        self._last_used.pop(space, None)

    def close(self) -> None:
        """Forget everything and remove the scratch files."""
        for space in list(self._last_used):
            self.discard(space)
        self._open.close()

    def __enter__(self) -> FeatureStore:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -------------------------------------------------------------------------- internal
    def _find(self, key: Key) -> Tier | None:
        return next((tier for tier in self.tiers if tier.has(key)), None)

    def _touch(self, space: str) -> None:
        self._clock += 1
        self._last_used[space] = self._clock

    def _stale(self, space: str) -> str | None:
        """Return the space that has not been used for longest and is not in use now."""
        others = {s: t for s, t in self._last_used.items() if s != space and s not in self._held}
        return min(others, key=others.__getitem__) if others else None

"""Numbers in a few bits each, for states that have to be small.  No torch.

The numbers of a tensor, in the order of its elements, are cut into groups.  Each group has a scale
in half precision, and each number is a whole multiple of it in ``bits`` bits: ``code - zero``,
where ``zero`` is 2 to the power of ``bits - 1``.  What is stored *is* the state: a code times a
scale is one product in single precision, which every processor rounds alike.

In the file a packed tensor NAME is bytes of codes under NAME, whose bits follow each other, and
scales under ``NAME:scales``; which ones are packed, and how, is JSON in the header.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zsad.errors import DataError, WeightsError
from zsad.io import parse_json
from zsad.io.schema import read

KEY = "zsad.packing"  # of the header
KIND = "scaled-groups-1"
SCALES = ":scales"
GROUP = 64  # numbers that share a scale
FEWEST, MOST = 2, 8  # bits
LARGEST_GROUP = 4096
SHRINK = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)  # of the largest number of a group, when packing

Floats = NDArray[np.float32]
Halves = NDArray[np.float16]
Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class PackedTensor:
    """How one tensor is packed: ``bits`` of a code, numbers in a ``group``, its ``shape``."""

    bits: int
    group: int
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if not FEWEST <= self.bits <= MOST:
            raise ValueError(f"bits={self.bits} must lie in {FEWEST}..{MOST}")
        if not 1 <= self.group <= LARGEST_GROUP:
            raise ValueError(f"group={self.group} must lie in 1..{LARGEST_GROUP}")
        if min(self.shape, default=0) < 0:
            raise ValueError("no side of a shape lies below 0")

    @property
    def count(self) -> int:
        """Numbers of the tensor."""
        return math.prod(self.shape)

    @property
    def code_bytes(self) -> int:
        """Bytes that all codes take."""
        return -(-self.count * self.bits // 8)

    @property
    def scales(self) -> int:
        """How many scales there are."""
        return -(-self.count // self.group)


@dataclass(frozen=True)
class Packing:
    """What the header says: the ``kind`` of packing, and the packed ``tensors`` by name."""

    kind: str = KIND
    tensors: dict[str, PackedTensor] = field(default_factory=dict)

    def text(self) -> str:
        """As JSON."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)


def packing_of(path: Path | str, header: Mapping[str, str]) -> Packing:
    """Which tensors of a file are packed.

    Raises :class:`WeightsError` for a kind that is not known, and for what cannot be read.
    """
    if KEY not in header:
        return Packing()
    try:
        found = parse_json(header[KEY], "JSON")
        kind = found.get("kind") if isinstance(found, dict) else None
        if kind != KIND:
            raise WeightsError(
                f"checkpoint {path}: its tensors are packed as '{kind}', which this version does "
                f"not know (it knows '{KIND}'); use the version of zsad that wrote it"
            )
        return read(Packing, found)
    except (ValueError, DataError) as error:
        raise WeightsError(
            f"checkpoint {path}: how its tensors are packed cannot be read ({error}); the file is "
            "damaged, get it again"
        ) from None


def packed(values: NDArray[np.floating], bits: int, group: int = GROUP) -> tuple[Bytes, Halves]:
    """Codes and scales of numbers of any shape.

    Per group that scale is taken which leaves the smallest squared error.
    Raises ``ValueError`` for a number that is not finite or beyond what half precision scales.
    """
    how = PackedTensor(bits, group, values.shape)
    flat = np.zeros(how.scales * group, np.float32)
    flat[: how.count] = values.reshape(-1)
    rows = flat.reshape(how.scales, group)
    zero = 1 << (bits - 1)
    largest = np.abs(rows).max(axis=1) / (zero - 1)
    with np.errstate(over="ignore"):
        halves = largest.astype(np.float16)
    if not np.isfinite(halves).all():
        raise ValueError("numbers that are not finite, or too large, cannot be packed")
    best = np.full(how.scales, np.inf, np.float32)
    codes = np.full(rows.shape, zero, np.uint8)
    scales = np.zeros(how.scales, np.float16)
    for factor in SHRINK:
        tried = (largest * factor).astype(np.float16)
        step = np.where(tried > 0, tried, 1).astype(np.float32)[:, None]
        whole = np.clip(np.rint(rows / step), 1 - zero, zero - 1) * (tried > 0)[:, None]
        error = np.square(whole * tried.astype(np.float32)[:, None] - rows).sum(axis=1)
        better = error < best
        best = np.where(better, error, best)
        scales = np.where(better, tried, scales)
        codes[better] = (whole[better] + zero).astype(np.uint8)
    each = np.unpackbits(codes.reshape(-1, 1)[: how.count], axis=1, bitorder="little")[:, :bits]
    return np.packbits(each, bitorder="little"), scales


def unpacked(
    path: Path | str, name: str, how: PackedTensor, codes: Bytes, scales: Halves
) -> Floats:
    """The numbers of a packed tensor, in its shape.

    Raises :class:`WeightsError` unless the file holds as many codes and scales as the shape asks.
    """
    for what, found, kind, wanted in (
        ("codes", codes, np.uint8, how.code_bytes),
        ("scales", scales, np.float16, how.scales),
    ):
        if found.dtype != kind or found.shape != (wanted,):
            raise WeightsError(
                f"checkpoint {path}: '{name}' {how.shape} of {how.bits} bits needs {wanted:,} "
                f"{what}, the file holds {found.dtype} {found.shape}; it is damaged, get it again"
            )
    each = np.unpackbits(codes, count=how.count * how.bits, bitorder="little")
    whole = np.packbits(each.reshape(-1, how.bits), axis=1, bitorder="little")[:, 0]
    values = whole.astype(np.float32) - np.float32(1 << (how.bits - 1))
    values *= np.repeat(scales.astype(np.float32), how.group)[: how.count]
    return values.reshape(how.shape)

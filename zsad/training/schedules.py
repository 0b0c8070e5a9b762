"""Which images a training epoch visits, in which batches: pure functions of the seed.  No torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TypeVar

from zsad.errors import RequestError
from zsad.types import Sample

T = TypeVar("T")


def derive(seed: int, *parts: object) -> int:
    """Return a 63-bit seed that depends on ``seed`` and on every part."""
    text = "/".join(str(p) for p in (seed, *parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def shuffled(samples: Sequence[Sample], seed: int, phase: str, epoch: int) -> list[Sample]:
    """Return the samples in an order that depends on names, seed, phase and epoch alone."""

    def rank(sample: Sample) -> str:
        text = f"{seed}/{phase}/{epoch}/{sample.category}/{sample.uid}"
        return hashlib.sha256(text.encode()).hexdigest()

    return sorted(samples, key=rank)


def partner(
    sample: Sample, normals: Mapping[str, Sequence[Sample]], seed: int, phase: str, epoch: int
) -> Sample:
    """Return a normal image of the sample's category, another one where there is one, drawn for
    this epoch: a function of names and seeds alone.

    Raises :class:`RequestError` where there is none.
    """
    known = normals.get(sample.category, ())
    pool = [s for s in known if s.uid != sample.uid] or list(known)
    if not pool:
        raise RequestError(
            f"category '{sample.category}' has no normal image to compare {sample.uid} with; train "
            f"on a dataset that has some"
        )
    return pool[derive(seed, "partner", phase, epoch, sample.category, sample.uid) % len(pool)]


def share(batches: Sequence[T], rank: int, world: int) -> list[T]:
    """Return the batches of one of ``world`` processes; all processes get equally many."""
    each = len(batches) // world
    return list(batches[rank : each * world : world])


def cut(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """Cut items into batches of ``size``; the last may be smaller."""
    return [items[i : i + size] for i in range(0, len(items), size)]

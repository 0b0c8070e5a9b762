"""Bringing values to a device without making the host wait, and keeping those that stay the same.

A copy from ordinary memory to a GPU makes the host wait until the GPU has done all that it was
asked for before; one from pinned memory does not.  No room of zsad is below this one.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import torch
from torch import Tensor

MOST = 256  # constants that are kept

T = TypeVar("T")


def uploaded(values: Tensor, device: torch.device) -> Tensor:
    """``values`` on ``device``; to a CUDA device by way of pinned memory, without a wait."""
    if device.type != "cuda" or values.device.type != "cpu" or not values.dim():
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


class SideStream:
    """Copies to a CUDA device beside what it computes."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device)

    def send(self, pinned: Tensor) -> Sent:
        """Begin to copy; nobody waits."""
        with torch.cuda.stream(self._stream):
            there = pinned.to(self.device, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record(self._stream)
        return Sent(there, arrived)


@dataclass(frozen=True)
class Sent:
    """Values on their way to a device."""

    values: Tensor
    arrived: torch.cuda.Event

    def taken(self) -> Tensor:
        """The values, for what the device computes from now on."""
        here = torch.cuda.current_stream(self.values.device)
        here.wait_event(self.arrived)
        self.values.record_stream(here)  # their memory belongs to the other stream
        return self.values


def gathered(rows: Sequence[Tensor], device: torch.device) -> Tensor:
    """Stack equally shaped tensors on ``device``, wherever each of them lies; those of the CPU go
    up as one."""
    if all(row.device.type == "cpu" for row in rows):
        return uploaded(torch.stack(list(rows)), device)
    return torch.stack([uploaded(row, device) for row in rows])


def constant(
    make: Callable[..., Tensor],
    *args: Hashable,
    device: torch.device,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """``make(*args)`` on ``device`` in ``dtype`` (None: its own); the latest ones are kept.

    Nobody may change what is returned.
    """
    return _constant(make, args, device, dtype)


@lru_cache(maxsize=MOST)
def _constant(
    make: Callable[..., Tensor],
    args: tuple[Any, ...],
    device: torch.device,
    dtype: torch.dtype | None,
) -> Tensor:
    with torch.inference_mode(False), torch.no_grad():
        made = make(*args)
        return uploaded(made if dtype is None else made.to(dtype), device)


def forget_constants() -> None:
    """Keep no constant any longer: what they lie on is given back, or is no more."""
    _constant.cache_clear()


def picked(values: Tensor, rows: slice | list[int]) -> Tensor:
    """``values[rows]``; a list of rows of a tensor on a device costs no wait."""
    if isinstance(rows, slice) or values.device.type == "cpu" or not rows:
        return values[rows]
    if rows == list(range(rows[0], rows[0] + len(rows))):
        return values[rows[0] : rows[0] + len(rows)]
    return values.index_select(0, constant(_numbers, tuple(rows), device=values.device))


def _numbers(numbers: tuple[int, ...]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.int64)


def told(*values: Tensor) -> list[Any]:
    """``[v.tolist() for v in values]``; from a device in one copy, so that the host waits once.

    Whole numbers must be below 2^24 there."""
    if all(v.device.type == "cpu" for v in values):
        return [v.tolist() for v in values]
    joined = torch.cat([v.detach().reshape(-1).float() for v in values]).cpu()
    parts = joined.split([v.numel() for v in values])
    return [p.to(v.dtype).view(v.shape).tolist() for p, v in zip(parts, values)]


def able(values: Tensor) -> Tensor:
    """``values``, on the CPU where they lie on Apple's device: for float64, which it does not have,
    and for operators that torch taught it late or not at all (Cholesky solutions, enlarging with
    antialiasing, sampling with a repeated border)."""
    return values.cpu() if values.device.type == "mps" else values


@contextmanager
def algorithms(*, deterministic: bool | None, fill: bool = True) -> Iterator[None]:
    """Within, torch takes deterministic algorithms where it has some, or need not; None: as before.
    Without ``fill``, memory that nobody has written yet stays as it is, which deterministic
    algorithms fill otherwise.  What was set is restored afterwards.

    These are settings of the process, not of a thread."""
    memory: Any = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled()
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    filled = memory.fill_uninitialized_memory
    if deterministic is not None:
        torch.use_deterministic_algorithms(deterministic, warn_only=True)
    if not fill:
        memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warned)
        memory.fill_uninitialized_memory = filled


def stepwise(
    within: Callable[[], AbstractContextManager[None]], items: Generator[T, None, None]
) -> Iterator[T]:
    """The ``items``, each made ``within()``, which is left while the caller has one."""
    with closing(items):
        while True:
            with within():
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield item


@contextmanager
def in_order(device: torch.device) -> Iterator[None]:
    """Within, sums of floating-point numbers by index are added in one order on a CUDA device.

    Other devices do so by themselves here.  torch's switch for all operators costs much more.
    """
    if device.type != "cuda":
        yield
        return
    with algorithms(deterministic=True):
        yield

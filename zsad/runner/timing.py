"""Where the seconds of a run go, and how much memory it took."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")


class StageTimer:
    """Sums wall-clock seconds by stage name.

    On CUDA the device notes the borders as it comes to them, so that a stage is charged for its own
    kernels and nobody waits for them; the host waits once, when the seconds are read."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._seconds: dict[str, float] = defaultdict(float)
        self._open: list[tuple[torch.cuda.Event, torch.cuda.Event, tuple[str, ...]]] = []

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds by stage, of all that is over."""
        if self._open:
            self._open[-1][1].synchronize()
            for start, end, names in self._open:
                for name in names:
                    self._seconds[name] += start.elapsed_time(end) / 1e3
            self._open.clear()
        return self._seconds

    def _now(self) -> float:
        return time.perf_counter()

    def _border(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    @contextmanager
    def stage(self, *names: str) -> Iterator[None]:
        """Charge the block to every one of ``names``."""
        if self.device.type == "cuda":
            border = self._border()
            try:
                yield
            finally:
                self._open.append((border, self._border(), names))
            return
        start = self._now()
        try:
            yield
        finally:
            spent = self._now() - start
            for name in names:
                self._seconds[name] += spent

    def waiting(self, items: Iterable[T], name: str) -> Iterator[T]:
        """Yield ``items``, charging the time spent waiting for the next one to ``name``."""
        iterator = iter(items)
        while True:
            start = time.perf_counter()
            try:
                item = next(iterator)
            except StopIteration:
                return
            finally:
                self._seconds[name] += time.perf_counter() - start
            yield item

    def since(self, before: dict[str, float]) -> dict[str, float]:
        """Seconds added after ``before`` (a copy of :attr:`seconds`)."""
        return {k: v - before.get(k, 0.0) for k, v in self.seconds.items()}


def peak_memory(device: torch.device) -> dict[str, int]:
    """Peak memory in MiB: of this process (``host``) and, on a GPU, of its tensors (``device``).

    ``host`` is left out where the system does not tell (Windows).
    """
    found: dict[str, int] = {}
    try:
        import resource
    except ImportError:
        pass
    else:
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        found["host"] = round(used / (1 << 20 if sys.platform == "darwin" else 1 << 10))
    if device.type == "cuda":
        found["device"] = round(torch.cuda.max_memory_allocated(device) / (1 << 20))
    return found

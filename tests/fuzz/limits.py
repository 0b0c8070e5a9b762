"""A limit on the time that one case may take."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


class TooSlow(BaseException):
    """Not an ``Exception``: no handler of the code under test may take it for its own."""


@contextlib.contextmanager
def seconds(limit: float, what: str) -> Iterator[None]:
    """Raise :class:`TooSlow`, naming ``what``, after ``limit`` seconds."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise TooSlow(f"{what}: no end after {limit} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

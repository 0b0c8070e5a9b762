"""One thread for the work that needs no encoder: metrics of a batch, records of a category."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch


class Beside:
    """Runs jobs in the order in which they come, beside the caller, on one core.

    At most ``waiting`` jobs wait; one more waits for the first of them.  Jobs must not raise.
    """

    def __init__(self, waiting: int = 16) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="zsad-beside")
        self._jobs: deque[Future[None]] = deque()
        self._waiting = waiting
        # Torch's operators would take all cores here as well, and both threads would wait for
        # each other's.  The number holds for its thread, and for those that start after it was
        # set: therefore it is set again for the caller.
        threads = torch.get_num_threads()
        self._pool.submit(_take_one_core).result()
        torch.set_num_threads(threads)

    def submit(self, job: Callable[[], None]) -> None:
        """Run ``job`` after those before it."""
        while len(self._jobs) > self._waiting:
            self._jobs.popleft().result()
        self._jobs.append(self._pool.submit(job))

    def __enter__(self) -> Beside:
        return self

    def __exit__(self, *exc: object) -> None:
        """Wait for all jobs."""
        self._pool.shutdown(wait=True)
        for job in self._jobs:
            job.result()


def _take_one_core() -> None:
    torch.get_num_threads()  # a thread takes over the process' number when it first asks for it
    torch.set_num_threads(1)

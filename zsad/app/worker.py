"""The one thread that scores, and the one method that it holds."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from zsad.api import load_method
from zsad.app.settings import AppSettings, Choice
from zsad.inference.loaded_method import LoadedMethod

R = TypeVar("R")
Overrides = Mapping[str, Any] | Sequence[str] | None


class Worker:
    """Does one thing after the other; only its own thread touches a method."""

    def __init__(self, settings: AppSettings) -> None:
        self.settings = settings
        self.name = ""  # of the method that is loaded
        self._key: tuple[Choice, str] | None = None
        self._method: LoadedMethod | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="zsad-app")

    def submit(self, work: Callable[[], R]) -> Future[R]:
        """Put work in the queue."""
        return self._thread.submit(work)

    def loaded(self, choice: Choice, overrides: Overrides) -> LoadedMethod:
        """The method of a choice; another one is given up first.  Raises as ``load_method``."""
        key = (choice, repr(overrides))
        if self._method is None or self._key != key:
            self.release()
            self._method = self.fresh(choice, overrides)
            self._key, self.name = key, choice.method
        self._method.known.bank = None
        return self._method

    def fresh(self, choice: Choice, overrides: Overrides) -> LoadedMethod:
        """A method that is not kept."""
        words = self.settings.keywords(choice)
        return load_method(choice.method, overrides=overrides, **words)

    def release(self) -> None:
        """Give the loaded method up."""
        self._method, self._key, self.name = None, None, ""
        gc.collect()

    def close(self) -> None:
        """Let what is being done end, and nothing else begin."""
        self._thread.shutdown(wait=True, cancel_futures=True)

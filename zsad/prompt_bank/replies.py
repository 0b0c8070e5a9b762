"""Bounds on what an endpoint may send, and on how long it may take for it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, TypeVar

from zsad.io.bounds import ANSWER

T = TypeVar("T")

ESCAPED = 6  # bytes of JSON for one byte of an answer, at most: \u0041
AROUND = 64_000  # bytes of a reply besides its answer


class ReplyTooLong(ValueError):
    """A reply of more bytes than its answer may have."""


def http_client() -> Any:
    """An HTTP client that reads no reply beyond the bound of an answer."""
    import openai

    # httpx, or what the openai of this installation has in its place
    roots = [c.__module__.split(".")[0] for c in openai.DefaultHttpxClient.__mro__]
    httpx: Any = import_module(next(name for name in roots if name.startswith("httpx")))

    most = ESCAPED * ANSWER.value() + AROUND

    class Counted(httpx.SyncByteStream):  # type: ignore[misc]
        """A body that ends with an error where it is longer than the bound."""

        def __init__(self, body: Any) -> None:
            self.body = body

        def __iter__(self) -> Iterator[bytes]:
            seen = 0
            for block in self.body:
                seen += len(block)
                if seen > most:
                    raise ReplyTooLong(f"a reply of more than {most:,} bytes; {ANSWER.raised()}")
                yield block

        def close(self) -> None:
            self.body.close()

    def bound(response: Any) -> None:
        coding = response.headers.get("content-encoding", "identity")
        if coding.lower() != "identity":  # a few bytes could unpack to any number
            raise ReplyTooLong(f"a reply that is packed ({coding}), which was not asked for")
        response.stream = Counted(response.stream)

    return openai.DefaultHttpxClient(
        event_hooks={"response": [bound]}, headers={"accept-encoding": "identity"}
    )


def within(seconds: float, call: Callable[[], T]) -> T:
    """Return what ``call`` returns, or raise ``TimeoutError`` after ``seconds``.

    The timeouts of HTTP clients are for each read: a server that sends a byte now and then is
    never too late for them.  A call that is given up ends in the background.
    """
    done: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

    def work() -> None:
        try:
            done.put((call(), None))
        except BaseException as error:  # raised where it is waited for
            done.put((None, error))

    threading.Thread(target=work, daemon=True, name="zsad-ask").start()
    try:
        found, error = done.get(timeout=max(0.0, seconds))
    except queue.Empty:
        raise TimeoutError from None
    if error is not None:
        raise error
    return found  # type: ignore[return-value]

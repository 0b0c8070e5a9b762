"""How much of foreign input is taken in: every bound, and the variable that raises it.

A bound keeps one hostile or broken file from taking the memory or the time of everything else.
Each can be raised (or lowered) by an environment variable, which holds for a whole run.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from zsad.errors import RequestError


@dataclass(frozen=True)
class Bound:
    """``variable``: the environment variable; ``default`` in ``unit``; ``of``: what is bounded."""

    variable: str
    default: int
    unit: str
    of: str

    def value(self) -> int:
        """The bound in force.  Raises :class:`RequestError` for a variable of any other form."""
        text = os.environ.get(self.variable, "").strip().replace("_", "")
        if not text:
            return self.default
        if not (text.isascii() and text.isdigit() and int(text[:19]) > 0 and len(text) < 19):
            raise RequestError(
                f"{self.variable}={text}: not a whole number above 0; give {self.unit}"
            )
        return int(text)

    def raised(self) -> str:
        """How a message says what raises the bound."""
        return f"{self.variable} raises the limit"


PICTURE = Bound("ZSAD_MAX_PIXELS", 80_000_000, "pixels", "width x height of a picture")
BATCH_PIXELS = Bound(
    "ZSAD_MAX_BATCH_PIXELS", 64_000_000, "pixels", "pictures of `zsad predict` decoded at a time"
)
ARCHIVE_FILES = Bound("ZSAD_MAX_ARCHIVE_FILES", 1_000_000, "files", "files in an archive")
ARCHIVE_BYTES = Bound("ZSAD_MAX_ARCHIVE_BYTES", 200 * 2**30, "bytes", "what an archive unpacks to")
ARCHIVE_RATIO = Bound(
    "ZSAD_MAX_ARCHIVE_RATIO", 200, "times", "the same, in sizes of the archive, above 256 MiB"
)
RATIO_FROM = 256 * 2**20  # bytes up to which an archive may unpack to any multiple of its size
ARCHIVE_HEADER = Bound("ZSAD_MAX_ARCHIVE_HEADER", 2**20, "bytes", "what stands before a member")
ARCHIVE_WINDOW = Bound(
    "ZSAD_MAX_ARCHIVE_WINDOW", 2**28, "bytes", "the window of an archive that is packed by LZMA"
)
ANSWER = Bound("ZSAD_MAX_ANSWER", 256_000, "bytes", "the answer of a language model")
ANSWER_DEPTH = Bound("ZSAD_MAX_ANSWER_DEPTH", 50, "levels", "lists in lists in such an answer")

# Bytes of addresses that a command needs, on two cores.  With less, libraries that torch and pandas
# bring along do not fail: they wait for memory for ever, or crash.
FOR_MODELS = 2 * 2**30
FOR_TABLES = 2**30

BOUNDS = (
    *(PICTURE, BATCH_PIXELS, ARCHIVE_FILES, ARCHIVE_BYTES, ARCHIVE_RATIO, ARCHIVE_HEADER),
    *(ARCHIVE_WINDOW, ANSWER, ANSWER_DEPTH),
)


def require_address_space(needed: int) -> None:
    """Raise :class:`RequestError` where ``ulimit -v`` allows less than ``needed`` bytes."""
    try:
        import resource
    except ImportError:  # a system without such limits
        return
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < needed:
        raise RequestError(
            f"too little memory: `ulimit -v` allows {limit // 1024:,} KiB of addresses, and this "
            f"command needs {needed // 1024:,} or more; raise it (`ulimit -v unlimited`)"
        )

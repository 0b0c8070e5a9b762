"""Errors that a user can cause.  Each is one line: what, where, and what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LONGEST = 3000  # characters of a message


class ZsadError(Exception):
    """Base of all errors that the command line prints without a traceback.

    A message is one line, whatever the names and values in it hold.
    """

    exit_code = 2

    def __init__(self, *args: object) -> None:
        super().__init__(*(one_line(a) if isinstance(a, str) else a for a in args))


def shown(text: object) -> str:
    """Return a foreign text as it is shown: what does not print is written out.

    Line ends, terminal codes, marks that turn the direction of writing and bytes that are not
    UTF-8 become ``\\n``, ``\\x1b``, ``\\u202e``, ``\\xe9``.  The one place that does so: whoever
    prints a name, or puts it into a page, calls this, and nothing is escaped twice.
    """
    found = str(text)
    if found.isprintable():
        return found
    return "".join(c if c.isprintable() or c in _BLANKS else _written_out(c) for c in found)


_BLANKS = "\u00a0\u202f\u3000"  # blanks that people type; Python calls them unprintable


def _written_out(c: str) -> str:
    code = ord(c)
    # 0xDC80..: how Python holds a byte of a name that is not UTF-8
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else repr(c)[1:-1]


def shorter(value: object, most: int = 60) -> str:
    """``value`` as text, with its middle left out if it is longer than ``most`` characters."""
    text = str(value)
    return text if len(text) <= most else f"{text[: most - 20]}...{text[-10:]}"


def counted(number: int, thing: str, things: str = "") -> str:
    """``1 cell``, ``2 cells``: the one place that makes a plural.

    ``things``: a plural that is not made by an "s" (``box``, ``boxes``), or one with its verb
    (``mask holds``, ``masks hold``).
    """
    return f"{number:,} {thing if number == 1 else things or f'{thing}s'}"


def few(names: Iterable[str], most: int = 3) -> str:
    """``a, b, c and 4 more``: the first ``most`` names, as they are given, and how many follow."""
    known = list(names)
    more = f" and {len(known) - most:,} more" if len(known) > most else ""
    return ", ".join(known[:most]) + more


def categories(number: int) -> str:
    """``1 category``, ``2 categories``."""
    return counted(number, "category", "categories")


def is_text(text: str) -> bool:
    """Whether a name is text: no byte in it that is not UTF-8, no half character."""
    return not any("\ud800" <= c <= "\udfff" for c in text)


def one_line(text: str) -> str:
    """Return ``text`` as it is :func:`shown`; a very long one loses its middle."""
    text = shown(text)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 500]} ... {text[-500:]}"


class RequestError(ZsadError):
    """The request is wrong; nothing was run (exit code 2)."""


class DataError(ZsadError):
    """A dataset, image, mask or checkpoint file is missing, broken or inconsistent."""


class Withheld(DataError):
    """The system does not give a file that is there (permission, too many open files, a disk that
    fails): what it holds may be whole, and is not to be replaced."""


class WeightsError(ZsadError):
    """Backbone or method weights are missing, unsafe or do not fit."""


class CellError(ZsadError):
    """One cell of a sweep failed; the others go on (exit code 3)."""

    exit_code = 3


_BOOKKEEPING = ("full_key:", "object_type=", "reference_type=")  # of OmegaConf, below its message


def gist(error: BaseException) -> str:
    """Return what an error says as one line: its first line and, of several, the last one.

    Libraries put what they were about first and the cause last; of YAML it is the problem and its
    line.  The class's name stands for an error that says nothing.
    """
    problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
    if problem and mark:
        return f"{problem}, line {mark.line + 1}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(_BOOKKEEPING)] or lines
    if len(lines) < 2:
        return lines[0] if lines else type(error).__name__
    return f"{lines[0]} ... {lines[-1]}"


def reason(error: BaseException) -> str:
    """Return an error as one line: ours as it is, a foreign one with the name of its class."""
    if isinstance(error, ZsadError):
        return gist(error)
    if isinstance(error, MemoryError) and not str(error).strip():
        return "out of memory"
    return f"{type(error).__name__}: {gist(error) if str(error).strip() else 'no message'}"


_NO_MEMORY = (
    *("out of memory", "can't allocate memory", "cannot allocate memory", "defaultcpuallocator"),
    *("bad_alloc", "failed to map segment", "can't start new thread"),
)


def is_out_of_memory(error: BaseException) -> bool:
    """True for the errors by which Python, torch and the system's loader report that no memory
    is left."""
    if isinstance(error, MemoryError):
        return True
    known = isinstance(error, (RuntimeError, ImportError, OSError))
    return known and any(words in str(error).lower() for words in _NO_MEMORY)


def nearest(word: str, known: Iterable[str], cutoff: float = 0.5) -> str:
    """Return ``" (did you mean 'x'?)"`` for the known word closest to ``word``, or ``""``.

    ``cutoff``: how alike they must be, 0..1.
    """
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return f" (did you mean '{match[0]}'?)" if match else ""


def unknown(kind: str, name: str, known: Iterable[str], hint: str = "") -> RequestError:
    """Build the error for an unknown name, with the nearest known one and the known list."""
    names = sorted(known)
    shown = ", ".join(names[:30]) + (", ..." if len(names) > 30 else "")
    tail = f"; {hint}" if hint else ""
    return RequestError(f"unknown {kind} '{name}'{nearest(name, names)}; known: {shown}{tail}")

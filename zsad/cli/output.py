"""The standard streams: what verbs read and print, one JSON document or plain text.

Every other module of this room prints by these functions alone.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from zsad.errors import shown
from zsad.io import dump_json
from zsad.io.environment import concealed

STDOUT = "standard output"
UNREAD = 141  # exit code: the reader went before all was done; what a shell says of SIGPIPE
_reader_gone = False


# ------------------------------------------------------------------------------- streams
def open_streams() -> None:
    """Make the three standard streams fit for any text, whoever started the program.

    A stream that is closed (a daemon's, a job of cron) becomes one that leads nowhere: what is
    asked for is done all the same.  What the encoding of a stream lacks is written out.
    """
    global _reader_gone
    _reader_gone = False
    for name, flags, mode in (
        ("stdin", os.O_RDONLY, "r"),
        ("stdout", os.O_WRONLY, "w"),
        ("stderr", os.O_WRONLY, "w"),
    ):
        stream = getattr(sys, name)
        if stream is None:  # in this order each takes the number that is free for it
            handle = os.open(os.devnull, flags)
            os.set_inheritable(handle, True)
            setattr(sys, name, os.fdopen(handle, mode, encoding="utf-8"))
        elif mode == "w" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def listed() -> list[str]:
    """The lines of standard input that are not blank: names of files, whatever their bytes."""
    raw = getattr(sys.stdin, "buffer", None)
    content = raw.read() if raw is not None else sys.stdin.read().encode("utf-8", "surrogateescape")
    content = content.removeprefix(codecs.BOM_UTF8)
    names = (os.fsdecode(line.rstrip(b"\r")) for line in content.split(b"\n"))
    # Blanks around a name are taken off, unless there is a file that is called so.
    return [n if _exists(n) else n.strip() for n in names if n.strip()]


def _exists(name: str) -> bool:
    try:
        return os.path.lexists(name)
    except ValueError:  # a zero byte
        return False


def reader_gone() -> bool:
    """Whether the reader of standard output has closed it; what is printed then goes nowhere."""
    return _reader_gone


def drop_output() -> None:
    """Let what is still buffered go nowhere: Python would complain when it flushes at its end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def _printing() -> Iterator[None]:
    """Print within; a reader that goes does not end the work that is still to be done."""
    global _reader_gone
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        _reader_gone = True
        drop_output()
    except OSError as error:
        drop_output()
        error.filename = STDOUT
        raise


# -------------------------------------------------------------------------------- results
def say(*lines: object) -> None:
    """Print lines of plain text to standard output, each as it is :func:`shown`."""
    with _printing():
        sys.stdout.write("".join(f"{shown(line)}\n" for line in lines))


def say_document(text: str) -> None:
    """Print a document of many lines that escapes its foreign texts itself."""
    say(*text.split("\n"))


def tell(line: object) -> None:
    """Print a line to standard error, if it can be written."""
    with contextlib.suppress(OSError, ValueError):
        print(shown(concealed(str(line))), file=sys.stderr, flush=True)


def print_json(value: Any, indent: int | None = 2) -> None:
    """Print one JSON document with stable keys, and flush it."""
    text = dump_json(concealed(value), indent)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # an escape of JSON where the stream would write one of its own
        text = "".join(c if c.isascii() else json.dumps(c)[1:-1] for c in text)
    with _printing():
        sys.stdout.write(f"{text}\n")


@contextlib.contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Send what libraries print to standard error: standard output is for results."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def is_terminal() -> bool:
    """Whether somebody watches standard error."""
    return sys.stderr.isatty()


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    title: str = "",
    right: Sequence[int] = (),
) -> None:
    """Print a plain table to standard output.  ``right``: indices of right-aligned columns."""
    if not sys.stdout.isatty():
        _print_aligned(columns, rows, title, right)
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=sys.stdout, highlight=False)
    heading = Text(shown(title)) if title else None
    table = Table(box=SIMPLE_HEAD, title=heading, title_justify="left")
    for i, name in enumerate(columns):
        side: Literal["left", "right"] = "right" if i in right else "left"
        table.add_column(Text(shown(name)), justify=side, overflow="fold")
    for row in rows:
        table.add_row(*(Text(shown(value)) for value in row))
    with _printing():
        console.print(table)


def _print_aligned(
    columns: Sequence[str], rows: Sequence[Sequence[Any]], title: str, right: Sequence[int]
) -> None:
    """One line per row, whatever its width: for pipes and files."""
    lines = [[shown(value) for value in row] for row in (columns, *rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    aligned = [
        [text.rjust(w) if i in right else text.ljust(w) for i, (text, w) in enumerate(both)]
        for both in (list(zip(line, widths)) for line in lines)
    ]
    say(*([title] if title else []), *("  ".join(cells).rstrip() for cells in aligned))


def percent(value: float | None) -> str:
    """A metric as the papers print it: in percent with one decimal, "–" where undefined."""
    return "–" if value is None else f"{100 * value:.1f}"

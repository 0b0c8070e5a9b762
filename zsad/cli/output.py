"""What verbs print: one JSON document, or plain tables."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from zsad.io import dump_json


def print_json(value: Any, indent: int | None = 2) -> None:
    """Print one JSON document with stable keys, and flush it."""
    print(dump_json(value, indent), flush=True)


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
    table = Table(box=SIMPLE_HEAD, title=Text(title) if title else None, title_justify="left")
    for i, name in enumerate(columns):
        table.add_column(Text(name), justify="right" if i in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(value)) for value in row))
    console.print(table)


def _print_aligned(
    columns: Sequence[str], rows: Sequence[Sequence[Any]], title: str, right: Sequence[int]
) -> None:
    """One line per row, whatever its width: for pipes and files."""
    lines = [list(columns), *([str(value) for value in row] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    if title:
        print(title)
    for line in lines:
        cells = [
            text.rjust(w) if i in right else text.ljust(w)
            for i, (text, w) in enumerate(zip(line, widths))
        ]
        print("  ".join(cells).rstrip())


def percent(value: float | None) -> str:
    """A metric as the papers print it: in percent with one decimal, "–" where undefined."""
    return "–" if value is None else f"{100 * value:.1f}"

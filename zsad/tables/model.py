"""What a page of tables consists of, before it is Markdown, LaTeX, CSV or HTML."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Span(NamedTuple):
    """A piece of text.  ``rank``: 1 best (bold), 2 second (underlined), 0 plain."""

    text: str
    rank: int = 0


Spans = tuple[Span, ...]


@dataclass(frozen=True)
class Line:
    """One row.  ``mean``: set apart from the rows above; ``rule``: a rule above it."""

    label: str
    cells: tuple[Spans, ...]
    mean: bool = False
    rule: bool = False


@dataclass(frozen=True)
class Table:
    """A table.  ``groups``: (name, number of columns) above the headings; ``data``: the same
    as plain records for CSV, metrics in percent."""

    name: str
    title: str
    corner: str
    heads: tuple[str, ...]
    lines: tuple[Line, ...]
    groups: tuple[tuple[str, int], ...] = ()
    data: tuple[dict[str, Any], ...] = ()


class Drawing(NamedTuple):
    """A drawing of what a page's tables hold: ``svg`` is a whole element, safe as it is."""

    title: str
    svg: str


@dataclass(frozen=True)
class Page:
    """Tables that belong together, with their footnotes.  ``name`` is a relative file stem;
    ``mark``: what has to be said of the weights behind all figures, for CSV, or "";
    ``drawings``: for HTML alone."""

    name: str
    title: str
    tables: tuple[Table, ...]
    notes: tuple[str, ...] = field(default=())
    mark: str = ""
    drawings: tuple[Drawing, ...] = ()


def signed(value: float | None, digits: int = 1) -> str:
    """A difference with its sign, "–" where there is none; what rounds to nothing is +0.0."""
    return "–" if value is None else f"{round(value, digits) + 0.0:+.{digits}f}"

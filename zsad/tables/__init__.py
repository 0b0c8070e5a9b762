"""Tables out of the results store, as the papers print them.  Reads records, runs nothing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from zsad.io import atomic_write_text
from zsad.store import ResultStore
from zsad.tables.board import Board, boards
from zsad.tables.build import dataset_page, overview
from zsad.tables.formats import FORMATS, markdown
from zsad.tables.model import Page

MOST_FAILURES = 10  # named in a footnote


def pages(results: Path | str) -> list[Page]:
    """All pages: per backbone the overview, then one page per dataset."""
    return [page for board in _boards(results) for page in _pages(board)]


def write(results: Path | str, formats: Iterable[str] = tuple(FORMATS)) -> list[Path]:
    """Write all pages to ``<results>/tables/`` and return the files.

    ``formats``: of md, tex, csv, html.
    """
    folder = Path(results) / "tables"
    formats = list(formats)
    written = []
    for page in pages(results):
        for name in formats:
            path = folder / f"{page.name}.{name}"
            written.append(atomic_write_text(path, FORMATS[name](page)))
    return written


def render(results: Path | str) -> str:
    """The overview of every backbone as Markdown."""
    store = ResultStore(results)
    parts = [markdown(overview(board)) for board in _boards(results)]
    failures = store.failures()
    lines = [
        f"- {f.method} on {f.dataset}/{f.category}, seed {f.seed}: {f.error}" for f in failures
    ]
    if len(lines) > MOST_FAILURES:
        lines[MOST_FAILURES:] = [f"- and {len(lines) - MOST_FAILURES} more"]
    if lines:
        parts.append("Cells without a result:\n\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


def _boards(results: Path | str) -> list[Board]:
    return boards(ResultStore(results).cells())


def _pages(board: Board) -> list[Page]:
    return [overview(board), *(dataset_page(board, row) for row in board.rows)]

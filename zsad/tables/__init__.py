"""Tables out of the results store, as the papers print them.  Reads records, runs nothing.

==================  ==============================================================================
``results_matrix``  records sorted into boards, one for each backbone
``model``           what a page consists of, before it has a format
``by_dataset``      the overview, and a page for each dataset; ``by_defect``: by type of defect
``few_shot``        numbers of shots; ``ablation``: rows of a protocol; ``lines``: what both share
``comparison``      published figures beside measured ones
``statistics``      intervals and paired tests
``cost``            trained values and times
``curves``          curves over a hyper-parameter, as SVG
``dataset_notes``   footnotes on single datasets; ``column_notes``: on columns
``formats``         Markdown, LaTeX, CSV and HTML; ``notebook``: in a notebook, and for pandas
==================  ==============================================================================
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from zsad.errors import shown
from zsad.io import atomic_write_text
from zsad.metrics import spec
from zsad.results.store import ResultStore
from zsad.tables.ablation import ablation_pages
from zsad.tables.by_dataset import dataset_page, overview
from zsad.tables.by_defect import defect_page
from zsad.tables.comparison import beyond_runs, comparison, published_only
from zsad.tables.cost import cost_page
from zsad.tables.few_shot import few_shot_page
from zsad.tables.formats import FORMATS, markdown
from zsad.tables.model import Page
from zsad.tables.notebook import Pages
from zsad.tables.results_matrix import Board, DatasetRow, boards, parted
from zsad.tables.statistics import CI_NOTE, TEST_NOTE, intervals
from zsad.tables.statistics import significance as tests

ALL = "all"  # of ``published``: systems that are not hosted here, too
MOST_FAILURES = 10  # named in a footnote


def pages(
    results: Path | str,
    published: bool | str = False,
    ci: bool = False,
    significance: bool = False,
    cost: bool = False,
) -> Pages:
    """All pages, which a notebook shows and :meth:`Pages.frame` makes a table of pandas of.

    Per backbone the overview, one page per dataset (and one by type of defect), few-shot and
    ablation pages.
    The rows of an ablation have a page of their own and are not columns of the others.
    ``published``: with tables of measured, published and difference (:data:`ALL`: and with what
    papers print of systems that are not hosted here); ``ci``: with bootstrap
    intervals, ``significance``: with paired tests, both on the pages of datasets; ``cost``: with a
    page of parameters and times.
    """
    store = ResultStore(results)
    made: list[Page] = []
    for board in boards(store.cells()):
        main, ablations = parted(board)
        first = len(made)
        if main.columns:
            made.append(_extended(store, main, None, overview(main), published, False, False))
        for row in main.rows:
            page = dataset_page(main, row)
            made.append(_extended(store, main, row, page, published, ci, significance))
            if (defects := defect_page(store, main, row)) is not None:
                made.append(defects)
        shots = few_shot_page(board, bool(published))
        made += [*([shots] if shots else []), *ablation_pages(store, ablations, bool(published))]
        if cost and (costs := cost_page(store, board)) is not None:
            made.append(costs)
        made[first:] = [replace(page, mark=board.banner) for page in made[first:]]
    return Pages(made)


def write(
    results: Path | str,
    formats: Iterable[str] = tuple(FORMATS),
    published: bool | str = False,
    ci: bool = False,
    significance: bool = False,
    cost: bool = False,
) -> list[Path]:
    """Write all pages to ``<results>/tables/`` and return the files.

    ``formats``: of md, tex, csv, html; the other options as :func:`pages`.
    """
    folder = Path(results) / "tables"
    formats = list(formats)
    written = []
    for page in pages(results, published, ci, significance, cost):
        for name in formats:
            path = folder / f"{page.name}.{name}"
            written.append(atomic_write_text(path, FORMATS[name](page)))
    return written


def render(
    results: Path | str,
    published: bool | str = False,
    ci: bool = False,
    significance: bool = False,
    cost: bool = False,
) -> str:
    """The overview of every backbone as Markdown, with the datasets' statistics if asked for."""
    store = ResultStore(results)
    parts = []
    for page in pages(results, published, ci, significance, cost):
        if re.search(r"/(overview|few-shot|cost|ablation-[^/]*)$", page.name):
            parts.append(markdown(page))
            continue
        chosen = tuple(t for t in page.tables if t.name.startswith(("ci", "significance")))
        if chosen:
            kept = tuple(n for n in page.notes if n in (CI_NOTE, TEST_NOTE))
            parts.append(markdown(replace(page, tables=chosen, notes=kept)))
    failures = store.failures()
    lines = [
        shown(f"- {f.method} on {f.dataset}/{f.category}, seed {f.seed}: {f.error}")
        for f in failures
    ]
    if len(lines) > MOST_FAILURES:
        lines[MOST_FAILURES:] = [f"- and {len(lines) - MOST_FAILURES} more"]
    if lines:
        parts.append("Cells without a result:\n\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


def _extended(
    store: ResultStore,
    board: Board,
    row: DatasetRow | None,
    page: Page,
    with_published: bool | str,
    with_ci: bool,
    with_tests: bool,
) -> Page:
    """The page with the tables that are made on request."""
    tables, notes = list(page.tables), list(page.notes)
    if with_published:
        found, remarks = comparison(board, row)
        tables += found
        if with_published == ALL:
            rows = board.rows if row is None else [row]
            only = published_only(rows, every=row is None)
            tables += [only] if only else []
            tables += [beyond_runs()] if row is None else []
        notes += remarks
    if row is not None:
        for make, note in [(intervals, CI_NOTE)] * with_ci + [(tests, TEST_NOTE)] * with_tests:
            made = [
                t
                for metric in (*spec.resampled(), *spec.drawn())
                if (t := make(store, board, row, metric)) is not None
            ]
            tables += made
            notes += [note] if made else []
    return replace(page, tables=tuple(tables), notes=tuple(notes))

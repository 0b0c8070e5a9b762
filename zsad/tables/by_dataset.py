"""Builds pages out of boards: the overview and one page per dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from zsad.errors import counted, few
from zsad.io.names import safe_name
from zsad.metrics import spec
from zsad.results.aggregate import (
    NOT_COMPUTED,
    UNDEFINED,
    Figure,
    of_category,
    over_categories,
    over_datasets,
    ranks,
    undefined_reasons,
)
from zsad.results.identity import limit_of
from zsad.tables.column_notes import NAMED, conditions, seeds_note
from zsad.tables.dataset_notes import other_limit
from zsad.tables.model import Line, Page, Span, Spans, Table
from zsad.tables.results_matrix import (
    Board,
    DatasetRow,
    MatrixColumn,
)

DOMAINS = ("industrial", "medical")
LEGEND = {
    "†": "† in its initial state, not trained",
    "‡": "‡ sees all test images of a category at once",
    "§": "§ sees normal reference images of the category",
}
Figures = Callable[[MatrixColumn, str], Figure]  # (column, metric)


def overview(board: Board) -> Page:
    """Datasets by methods."""
    tables = []
    for name, title, metrics in _kinds(board):
        lines, data = [], []
        for row in board.rows:
            figures = _dataset_figures(board, row)
            label = f"{row.title} ({row.size})"
            lines.append(_line(label, board.columns, metrics, figures))
            data += _data(row.name, board.columns, metrics, figures)
        for label, rows in _means(board.rows):
            figures = _mean_figures(board, rows)
            lines.append(_line(label, board.columns, metrics, figures, mean=True))
            data += _data(label, board.columns, metrics, figures)
        tables.append(_table(board, name, title, "dataset (categories)", lines, data))
    title = f"Zero-shot anomaly detection, backbone {board.heading}"
    return Page(f"{safe_name(board.name)}/overview", title, tuple(tables), notes(board))


def dataset_page(board: Board, row: DatasetRow) -> Page:
    """Categories of one dataset by methods, with the mean."""
    tables = []
    for name, title, metrics in _kinds(board):
        lines, data = [], []
        for category in row.categories:

            def single(column: MatrixColumn, metric: str, category: str = category) -> Figure:
                return of_category(board.of(column.label, row.name), metric, category)

            lines.append(_line(category, board.columns, metrics, single))
            data += _data(category, board.columns, metrics, single)
        figures = _dataset_figures(board, row)
        label = f"mean of {row.size}"
        lines.append(_line(label, board.columns, metrics, figures, mean=True))
        data += _data(label, board.columns, metrics, figures)
        tables.append(_table(board, name, title, "category", lines, data))
    title = f"{row.title}, backbone {board.heading}"
    page = f"{safe_name(board.name)}/{safe_name(row.name)}"
    return Page(page, title, tuple(tables), notes(board, row))


# ------------------------------------------------------------------------------- figures
def _kinds(board: Board) -> list[spec.Grouped]:
    """The tables of which at least one figure is defined (always the first, the image level)."""
    records = [record for cells in board.cells.values() for record in cells.values()]
    held = {metric for record in records for metric in record.metrics}
    defined = {m for record in records for m, v in record.metrics.items() if v is not None}
    first, *others = spec.tables(held)
    return [first, *(table for table in others if defined & set(table.metrics))]


@dataclass(frozen=True)
class Mean:
    """A figure of the overview: ``row`` a dataset's name or the title of a mean over datasets
    (``over_datasets``); ``place``: 1 best, 2 second among what may be ranked together, else 0."""

    row: str
    over_datasets: bool
    column: MatrixColumn
    metric: str
    figure: Figure
    place: int


def overview_figures(board: Board) -> Iterator[Mean]:
    """The figures of the overview, one by one, with their places."""
    rows = [(row.name, False, _dataset_figures(board, row)) for row in board.rows]
    rows += [(title, True, _mean_figures(board, of)) for title, of in _means(board.rows)]
    for name, mean, figures in rows:
        for _, _, metrics in _kinds(board):
            for metric in metrics:
                found = [figures(column, metric) for column in board.columns]
                places = ranks(found, [c.comparable for c in board.columns])
                for column, figure, place in zip(board.columns, found, places):
                    yield Mean(name, mean, column, metric, figure, place)


def _dataset_figures(board: Board, row: DatasetRow) -> Figures:
    def figure(column: MatrixColumn, metric: str) -> Figure:
        return over_categories(board.of(column.label, row.name), metric, row.categories)

    return figure


def _mean_figures(board: Board, rows: Sequence[DatasetRow]) -> Figures:
    def figure(column: MatrixColumn, metric: str) -> Figure:
        found = [_dataset_figures(board, row)(column, metric) for row in rows]
        apart = other_limit(metric, [board.of(column.label, row.name) for row in rows])
        return over_datasets([replace(f, value=None) if x else f for f, x in zip(found, apart)])

    return figure


def _means(rows: Sequence[DatasetRow]) -> list[tuple[str, list[DatasetRow]]]:
    """Labels and members of the mean rows: each domain with several datasets, and all.

    Of a dataset whose files changed between runs, the newest state counts."""
    out = []
    rows = [r for r in rows if r.newest]
    for domain in DOMAINS:
        members = [r for r in rows if r.domain == domain]
        if 1 < len(members) < len(rows):
            out.append((f"{domain} mean of {len(members)}", members))
    if len(rows) > 1:
        out.append((f"mean of {len(rows)}", list(rows)))
    return out


# --------------------------------------------------------------------------------- cells
def _table(
    board: Board, name: str, title: str, corner: str, lines: list[Line], data: list[dict[str, Any]]
) -> Table:
    groups = [(g, len(list(m))) for g, m in groupby(board.columns, key=lambda c: c.group)]
    heads = tuple(c.head for c in board.columns)
    shown = tuple(groups) if len(groups) > 1 else ()
    return Table(name, title, corner, heads, tuple(lines), shown, tuple(data))


def _line(
    label: str,
    columns: Sequence[MatrixColumn],
    metrics: Sequence[str],
    figures: Figures,
    mean: bool = False,
) -> Line:
    found = [[figures(column, metric) for metric in metrics] for column in columns]
    eligible = [c.comparable for c in columns]
    places = [ranks([f[i] for f in found], eligible) for i in range(len(metrics))]
    cells = [_cell(f, [place[j] for place in places]) for j, f in enumerate(found)]
    return Line(label, tuple(cells), mean)


def _cell(figures: Sequence[Figure], places: Sequence[int]) -> Spans:
    """``(74.1, 87.6)``, followed by the counts where something is missing behind a mean."""
    if all(f.value is None for f in figures) and figures[0].of <= 1:
        return (Span(_all_of({f.text for f in figures})),)
    spans = [Span(f.text, place) for f, place in zip(figures, places)]
    out: list[Span] = [] if len(spans) == 1 else [Span("(")]
    for i, span in enumerate(spans):
        out += [Span(", ")] * bool(i) + [span]
    out += [] if len(spans) == 1 else [Span(")")]
    if any(f.count != f.of for f in figures) and figures[0].of > 1:
        counts = ", ".join(dict.fromkeys(str(f.count) for f in figures))
        out.append(Span(f" [{counts} of {figures[0].of}]"))
    return tuple(out)


def _all_of(texts: set[str]) -> str:
    """One word for figures without a value: that they were not computed only if all were not."""
    return texts.pop() if len(texts) == 1 else UNDEFINED


def _data(
    label: str, columns: Sequence[MatrixColumn], metrics: Sequence[str], figures: Figures
) -> list[dict[str, Any]]:
    out = []
    for column in columns:
        for metric in metrics:
            figure = figures(column, metric)
            out.append(
                {
                    "row": label,
                    "method": column.label,
                    "configuration": column.overrides,
                    "metric": metric,
                    "value": None if figure.value is None else round(100 * figure.value, 4),
                    "deviation": None
                    if figure.deviation is None
                    else round(100 * figure.deviation, 4),
                    "count": figure.count,
                    "of": figure.of,
                    **({"partial": True} if figure.partial else {}),
                }
            )
    return out


# --------------------------------------------------------------------------------- notes
def notes(board: Board, row: DatasetRow | None = None) -> tuple[str, ...]:
    """Footnotes: how to read the figures, and everything that limits comparing them.

    ``row``: the one that the page is about; None: all of them."""
    out = [
        *banner(board),
        "Figures in percent; best bold, second underlined, among zero-shot columns with the "
        "same images and the same count behind them; – undefined; [n of m] where a mean lacks "
        "categories or datasets.",
        *not_computed(board),
    ]
    signs = "".join(c.markers for c in board.columns)
    out += [f"{text}." for sign, text in LEGEND.items() if sign in signs]
    out += conditions(board)
    rows = board.rows if row is None else [row]
    out += _image_notes(board, rows)
    out += _rule_notes(board, rows)
    if seeds := seeds_note(board):
        out.append(f"Mean ± standard deviation {seeds}.")
    if row is None and not all(r.newest for r in board.rows):
        shown = ", ".join(r.title for r in board.rows if r.newest and r.title != r.name)
        out.append(
            f"The files of a dataset, or how they are read, differ between runs; means count the "
            f"newest: {shown}."
        )
    out += undefined_notes(board, rows)
    return (*out, *left_out(board, rows))


def left_out(board: Board, rows: Sequence[DatasetRow]) -> list[str]:
    """Which records stand behind no figure, and why."""
    columns = {c.label: c.head for c in board.columns}
    titles = {r.name: r.title for r in rows}
    return [
        f"Left out: {counted(count, 'earlier record')} of {columns[label]} on {titles[name]}, "
        "computed again since with other texts, another training or another version (`zsad "
        "results list`)."
        for (label, name), count in board.left_out.items()
        if name in titles
    ]


def _image_notes(board: Board, rows: Sequence[DatasetRow]) -> list[str]:
    """The sentence about columns that were measured on other images of a category."""
    out = []
    for row in rows:
        for category in row.categories:
            behind: dict[tuple[int, int], list[str]] = {}
            for column in board.columns:
                for (name, _), r in board.of(column.label, row.name).items():
                    heads = behind.setdefault((r.n_normal, r.n_anomalous), [])
                    if name == category and column.head not in heads:
                        heads.append(column.head)
            parts = [f"{sum(n)} behind {', '.join(heads)}" for n, heads in behind.items() if heads]
            if len(parts) > 1:
                where = f"{row.title}, {category}"
                text = f"Different images ({where}: {'; '.join(parts)}) are not ranked together."
                out.append(text)
                break
    return out[:1]


def _rule_notes(board: Board, rows: Sequence[DatasetRow]) -> list[str]:
    """The sentence about columns whose pixels were measured against other masks, or AUPRO of which
    goes up to another rate, on the same dataset."""
    for row in rows:
        held = [r for c in board.columns for r in board.of(c.label, row.name).values()]
        for words, told in (
            ("against masks that were resized otherwise", lambda r: r.info.get("mask_resize")),
            ("of AUPRO up to another false positive rate", limit_of),
        ):
            if len({found for r in held if (found := told(r))}) > 1:
                return [f"Figures {words} ({row.title}) are not ranked together."]
    return []


def undefined_notes(board: Board, rows: Sequence[DatasetRow]) -> list[str]:
    """Why figures are "–" or lack categories: a sentence for each reason; and which categories
    held no picture."""
    found: dict[tuple[str, str], dict[str, None]] = {}  # (level, reason) -> places
    absent: dict[str, None] = {}
    for row in rows:
        records = [r for c in board.columns for r in board.of(c.label, row.name).values()]
        for metric, reasons in undefined_reasons(records).items():
            level = spec.METRICS[metric].level if metric in spec.METRICS else metric
            for reason, categories in reasons.items():
                every = len(categories) == len(row.categories)
                names = [row.title] if every else [f"{row.title}/{c}" for c in categories]
                found.setdefault((level, reason), {}).update(dict.fromkeys(names))
        for record in records:
            missing = record.info.get("missing_categories", ())
            absent.update(dict.fromkeys(f"{row.title}/{c}" for c in missing))
    out = [
        f"– ({level} level) {few(names, NAMED)}: {why}." for (level, why), names in found.items()
    ]
    if absent:
        out.append(f"No pictures, and in no mean: {few(absent, NAMED)}.")
    return out


def not_computed(board: Board) -> list[str]:
    """The sentence about records without a metric that others of the board hold, if there are."""
    labels = {column.label for column in board.columns}
    held = {
        frozenset(record.metrics)
        for (label, _), cells in board.cells.items()
        for record in cells.values()
        if label in labels
    }
    shown = {m for table in spec.tables(set().union(*held)) for m in table.metrics}
    if all(shown <= names for names in held):
        return []
    return [f'"{NOT_COMPUTED}": the records were made without this metric.']


def banner(board: Board) -> list[str]:
    """The sentence about a backbone that no paper used, if it is one."""
    return [f"{board.banner[0].upper()}{board.banner[1:]}."] if board.banner else []

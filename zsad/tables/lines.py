"""Tables whose columns are metrics of several datasets, one table per level: what the few-shot
layout and the ablations have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from zsad.metrics import spec
from zsad.results.aggregate import UNDEFINED, Figure, over_categories, ranks
from zsad.results.published import MEAN, Published
from zsad.tables.comparison import (
    SIGNS,
    Points,
    add_points,
    differing,
    measured_as,
    verdict,
)
from zsad.tables.model import Line, Span, Spans, Table
from zsad.tables.results_matrix import Board, Cells, DatasetRow

PUBLISHED_LINES = (
    "Lines marked (published) are printed in papers: ≈ conditions differ in part, ≠ not comparable."
)
LEVELS: tuple[tuple[spec.Level, str], ...] = (("image", "Image level"), ("pixel", "Pixel level"))


@dataclass(frozen=True)
class Entry:
    """One line of a table, before its figures are filled in.

    ``label`` and ``method`` (empty: no such column) as printed; ``block``: the lines that compete
    for best and second; ``printed``: its name among published figures.
    """

    label: str
    method: str = ""
    block: str = ""
    printed: str = ""


def tables_of(
    board: Board, name: str, corners: Sequence[str], entries: Mapping[Entry, Sequence[Cells]]
) -> tuple[list[Table], list[str]]:
    """One table per level, and notes on what papers print; ``entries``: the records of every line
    by the board's rows."""
    points: Points = {}
    chosen = [i for i in range(len(board.rows)) if any(cells[i] for cells in entries.values())]
    rows = [board.rows[i] for i in chosen]
    tables = []
    for level, heading in LEVELS:
        metrics = spec.few_shot(level)
        where = [(i, board.rows[i], metric) for i in chosen for metric in metrics]
        figures = {
            entry: [over_categories(cells[i], m, row.categories) for i, row, m in where]
            for entry, cells in entries.items()
        }
        if all(f.value is None for line in figures.values() for f in line):
            continue
        places = _places(figures)
        lines: list[Line] = []
        data, before = [], ""
        for entry, line in figures.items():
            spans = [(Span(f.text, place),) for f, place in zip(line, places[entry])]
            lines.append(replace(_line(entry, spans), rule=bool(lines) and entry.block != before))
            before = entry.block
            data += [_data(entry, row, m, f) for (_, row, m), f in zip(where, line)]
            held = [entries[entry][i] for i in chosen]
            if entry.printed and (printed := _printed(entry, rows, held, metrics, points)):
                lines.append(_line(entry, printed, " (published)"))
        heads = (*corners[1:], *(spec.METRICS[m].title for _, _, m in where))
        titles = (f"{row.title} ({row.size})" for row in rows)
        groups = (*(("", 1) for _ in corners[1:]), *((title, len(metrics)) for title in titles))
        tables.append(
            Table(f"{name}-{level}", heading, corners[0], heads, tuple(lines), groups, tuple(data))
        )
    return tables, [PUBLISHED_LINES, *differing(points)] if points else []


def _line(entry: Entry, cells: Sequence[Spans], mark: str = "") -> Line:
    if not entry.method:
        return Line(f"{entry.label}{mark}", tuple(cells))
    return Line(entry.label, ((Span(f"{entry.method}{mark}"),), *cells))


def _places(figures: Mapping[Entry, Sequence[Figure]]) -> dict[Entry, list[int]]:
    """Best (1) and second (2) of every column within the entries of a block."""
    places: dict[Entry, list[int]] = {}
    for block in dict.fromkeys(entry.block for entry in figures):
        members = [entry for entry in figures if entry.block == block]
        columns = zip(*(figures[entry] for entry in members))
        ranked = [ranks(column, [bool(block)] * len(members)) for column in columns]
        places.update({entry: [r[i] for r in ranked] for i, entry in enumerate(members)})
    return places


def _printed(
    entry: Entry,
    rows: Sequence[DatasetRow],
    held: Sequence[Cells],
    metrics: Sequence[str],
    points: Points,
) -> list[Spans] | None:
    """What papers print beside a line's figures, each with the sign of how far conditions agree;
    ``points`` is told in what they do not.  None where nothing is printed."""
    published, any_found = Published.load(), False
    cells: list[Spans] = []
    for row, records in zip(rows, held):
        for metric in metrics:
            text, found = UNDEFINED, None
            first = next(iter(records.values()), None)
            if first is not None:
                found = published.best(entry.printed, row.dataset, MEAN, metric, first.info)
            if first is not None and found is not None:
                own = measured_as(first, metric)
                figure = over_categories(records, own, row.categories)
                of = max(figure.of, row.of)
                agrees = verdict(found, list(records.values()), figure, own, of)
                who = ", ".join(filter(None, (entry.method, entry.label)))
                add_points(points, who, found, agrees)
                text, any_found = f"{found.text}{SIGNS[agrees.degree]}", True
            cells.append((Span(text),))
    return cells if any_found else None


def _data(entry: Entry, row: DatasetRow, metric: str, figure: Figure) -> dict[str, Any]:
    def percent(value: float | None) -> float | None:
        return None if value is None else round(100 * value, 4)

    return {
        "row": entry.label,
        **({"method": entry.method} if entry.method else {}),
        "dataset": row.name,
        "metric": metric,
        "value": percent(figure.value),
        "deviation": percent(figure.deviation),
        "count": figure.count,
        "of": figure.of,
    }

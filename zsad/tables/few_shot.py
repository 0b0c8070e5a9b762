"""Two further layouts: few-shot (shots as rows) and ablations (rows of a protocol)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from zsad.errors import ZsadError
from zsad.io.names import safe_name
from zsad.metrics import spec
from zsad.protocols import load_protocol
from zsad.results.aggregate import Figure, over_categories, ranks
from zsad.results.effect import Place, without_effect
from zsad.results.published import MEAN, Published
from zsad.results.records import CellRecord
from zsad.results.store import ResultStore
from zsad.tables.by_dataset import banner, conditions, not_computed
from zsad.tables.model import Line, Page, Span, Spans, Table
from zsad.tables.results_matrix import GROUP_ORDER, Board, Cells, DatasetRow, MatrixColumn

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


def few_shot_page(board: Board, published: bool = False) -> Page | None:
    """Numbers of shots and methods by datasets; None unless records of several numbers exist.

    The layout of ALFA's Tables 4 and 5: mean ± standard deviation over seeds, image level and
    pixel level; for every number of shots the baselines first.  Every configuration of a method
    has a line of its own.
    """
    shots = {c.label: c.configuration.shots for c in board.columns}
    able = {_method(c) for c in board.columns if shots[c.label]}
    columns = [
        c
        for c in board.columns
        if _method(c) in able and (shots[c.label] or "@" not in c.configuration.method)
    ]
    if len({shots[c.label] for c in columns}) < 2:
        return None

    def place(column: MatrixColumn) -> tuple[int, int, str]:
        return shots[column.label], GROUP_ORDER.get(column.group, 2), _title(column)

    entries: dict[Entry, list[Cells]] = {}
    for column in sorted(columns, key=place):
        setup = f"{shots[column.label]}-shot"
        plain = shots[column.label] and published and not column.overrides
        name = f"{_method(column)}@{setup}" if plain else ""
        entry = Entry(setup, _title(column), setup, name)
        if entry in entries:  # the same under a row's name and under the method's own
            entry = replace(entry, method=f"{_title(column)} ({column.label})")
        entries[entry] = [board.of(column.label, row.name) for row in board.rows]
    title = f"Few-shot anomaly detection, backbone {board.name}"
    labels = {c.label for c in columns}
    seeds = sorted(
        {s for (label, _), held in board.cells.items() if label in labels for _, s in held}
    )
    used = replace(board, columns=columns)
    notes = [
        *banner(board),
        f"Figures in percent; mean ± standard deviation over the seeds {', '.join(map(str, seeds))}"
        "; best bold, second underlined, for each number of shots; – undefined.",
        *not_computed(used),
        *conditions(used),
    ]
    notes += ["Lines marked (published) are printed in the papers."] if published else []
    tables = _tables(board, "few-shot", ("setup", "method"), entries)
    return Page(f"{safe_name(board.name)}/few-shot", title, tuple(tables), tuple(notes))


def _method(column: MatrixColumn) -> str:
    return column.configuration.method.partition("@")[0]


def _title(column: MatrixColumn) -> str:
    """The column's title without its row's label and its number of shots, which the setup says."""
    suffix = column.title[len(column.plain) :].replace(
        f", {column.configuration.shots}-shot", "", 1
    )
    return f"{column.plain.split(':')[0]}{suffix}"


def ablation_pages(store: ResultStore, board: Board, published: bool = False) -> list[Page]:
    """One page per protocol that has rows, its rows in their order by datasets."""
    protocols: dict[str, list[MatrixColumn]] = {}
    for column in board.columns:
        held = next(
            cells for (label, _), cells in board.cells.items() if label == column.label and cells
        )
        if "@" in column.configuration.method:
            info = next(iter(held.values())).info
            protocols.setdefault(str(info.get("protocol") or "rows"), []).append(column)
    pages = []
    for protocol, columns in sorted(protocols.items()):
        order = _row_order(protocol)
        columns.sort(key=lambda c: order.get(c.configuration.method, len(order)))
        entries = {
            Entry(c.head, printed=_printed_name(c) if published else ""): [
                board.of(c.label, row.name) for row in board.rows
            ]
            for c in columns
        }
        tables = _tables(board, "ablation", ("row",), entries)
        title = f"Ablation {protocol}, backbone {board.name}"
        name = f"{safe_name(board.name)}/ablation-{safe_name(protocol)}"
        used = replace(board, columns=columns)
        how = "Figures in percent, in the order of the protocol; – undefined."
        idle = _idle(store, board, columns)
        notes = (*banner(board), how, *idle, *not_computed(used), *conditions(used))
        pages.append(Page(name, title, tuple(tables), notes))
    return pages


def _idle(store: ResultStore, board: Board, columns: Sequence[MatrixColumn]) -> list[str]:
    """A sentence per row whose switch changed nothing."""
    rows: dict[str, dict[Place, CellRecord]] = {}
    for column in columns:
        rows[column.label] = {
            (row.name, category, seed): record
            for row in board.rows
            for (category, seed), record in board.of(column.label, row.name).items()
        }
    heads = {column.label: column.head for column in columns}
    return [
        f"No effect: {heads[label]} changed neither map nor score of any image: equal to "
        f"{heads[other]}."
        for label, other in without_effect(store, rows)
    ]


def _printed_name(column: MatrixColumn) -> str:
    """Its name among published figures; none for a row that was run in another way."""
    one = column.configuration
    return "" if column.overrides or not one.boxes else one.method


def _row_order(protocol: str) -> dict[str, int]:
    try:
        rows = load_protocol(protocol).rows
    except ZsadError:  # a protocol file that is no longer there
        return {}
    return {f"{row.method}@{row.slug}": i for i, row in enumerate(rows)}


def _tables(
    board: Board, name: str, corners: Sequence[str], entries: Mapping[Entry, Sequence[Cells]]
) -> list[Table]:
    """One table per level; ``entries``: the records of every line by the board's rows."""
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
            if entry.printed and (printed := _printed(entry.printed, rows, metrics)):
                lines.append(_line(entry, printed, " (published)"))
        heads = (*corners[1:], *(spec.METRICS[m].title for _, _, m in where))
        titles = (f"{row.title} ({row.size})" for row in rows)
        groups = (*(("", 1) for _ in corners[1:]), *((title, len(metrics)) for title in titles))
        tables.append(
            Table(f"{name}-{level}", heading, corners[0], heads, tuple(lines), groups, tuple(data))
        )
    return tables


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


def _printed(method: str, rows: Sequence[DatasetRow], metrics: Sequence[str]) -> list[Spans] | None:
    published, any_found = Published.load(), False
    cells: list[Spans] = []
    for row in rows:
        for metric in metrics:
            found = published.lookup(method, row.dataset, MEAN, metric)
            any_found = any_found or bool(found)
            spread = f" ± {found[0].std:.1f}" if found and found[0].std is not None else ""
            cells.append((Span(f"{found[0].value:.1f}{spread}" if found else "–"),))
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

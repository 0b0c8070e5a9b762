"""Two further layouts: few-shot (shots as rows) and ablations (rows of a protocol)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from zsad.errors import ZsadError
from zsad.io.names import safe_name
from zsad.metrics import spec
from zsad.protocols import load_protocol
from zsad.results.aggregate import Figure, over_categories, ranks
from zsad.results.published import MEAN, Published
from zsad.results.store import StoredCell
from zsad.tables.by_dataset import banner, conditions, not_computed
from zsad.tables.model import Line, Page, Span, Spans, Table
from zsad.tables.results_matrix import (
    GROUP_ORDER,
    Board,
    Cells,
    DatasetRow,
    backbone_of,
    setting_of,
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


def few_shot_page(
    board: Board, stored: Iterable[StoredCell], published: bool = False
) -> Page | None:
    """Numbers of shots and methods by datasets; None unless records of several numbers exist.

    The layout of ALFA's Tables 4 and 5: mean ± standard deviation over seeds, image level and
    pixel level; for every number of shots the baselines first.
    """
    groups: dict[tuple[int, str, str], list[StoredCell]] = {}
    titles: dict[str, tuple[int, str]] = {}
    for cell in stored:
        record = cell.record
        if not _on(board, cell):
            continue
        method = record.method.partition("@")[0]
        shots = int(record.info.get("shots") or 0)
        title = str(record.info.get("title") or method).split(":")[0]
        titles[method] = (GROUP_ORDER.get(str(record.info.get("group")), 2), title)
        if shots or "@" not in record.method:
            groups.setdefault((shots, method, record.dataset), []).append(cell)
    able = {method for shots, method, _ in groups if shots}
    found = {(s, m) for s, m, _ in groups if m in able}
    if len({shots for shots, _ in found}) < 2:
        return None
    entries: dict[Entry, list[Cells]] = {}
    for shots, method in sorted(found, key=lambda line: (line[0], titles[line[1]])):
        name = f"{method}@{shots}-shot" if shots and published else ""
        setup = f"{shots}-shot"
        entries[Entry(setup, titles[method][1], setup, name)] = [
            _newest(groups.get((shots, method, row.name), ())) for row in board.rows
        ]
    title = f"Few-shot anomaly detection, backbone {board.name}"
    seeds = sorted({c.record.seed for members in groups.values() for c in members})
    labels = {cell.record.method for members in groups.values() for cell in members}
    used = replace(board, columns=[c for c in board.columns if c.label in labels])
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


def ablation_pages(board: Board, published: bool = False) -> list[Page]:
    """One page per protocol that has rows, its rows in their order by datasets."""
    protocols: dict[str, dict[str, str]] = {}
    for (label, _), members in board.cells.items():
        record = next(iter(members.values()))
        if "@" in label:
            title = str(record.info.get("title") or label)
            protocols.setdefault(str(record.info.get("protocol") or "rows"), {})[label] = title
    pages = []
    for protocol, titles in sorted(protocols.items()):
        order = _row_order(protocol)
        entries = {
            Entry(titles[m], printed=m if published else ""): [
                board.of(m, row.name) for row in board.rows
            ]
            for m in sorted(titles, key=lambda m: (order.get(m, len(order)), m))
        }
        tables = _tables(board, "ablation", ("row",), entries)
        title = f"Ablation {protocol}, backbone {board.name}"
        name = f"{safe_name(board.name)}/ablation-{safe_name(protocol)}"
        used = replace(board, columns=[c for c in board.columns if c.label in titles])
        how = "Figures in percent, in the order of the protocol; – undefined."
        notes = (*banner(board), how, *not_computed(used), *conditions(used))
        pages.append(Page(name, title, tuple(tables), notes))
    return pages


def _row_order(protocol: str) -> dict[str, int]:
    try:
        rows = load_protocol(protocol).rows
    except ZsadError:  # a protocol file that is no longer there
        return {}
    return {f"{row.method}@{row.slug}": i for i, row in enumerate(rows)}


def _on(board: Board, cell: StoredCell) -> bool:
    name, weights = backbone_of(cell.record)
    return name == board.backbone and board.weights in ("", weights)


def _newest(stored: Sequence[StoredCell]) -> Cells:
    """The records that share the newest record's settings, by (category, seed)."""
    if not stored:
        return {}
    ordered = sorted(stored, key=lambda c: c.written)
    setting = setting_of(ordered[-1].record)
    kept = [c.record for c in ordered if setting_of(c.record) == setting]
    return {(r.category, r.seed): r for r in kept}


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
        titles = (f"{row.title} ({len(row.categories)})" for row in rows)
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
            found = published.lookup(method, row.name, MEAN, metric)
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

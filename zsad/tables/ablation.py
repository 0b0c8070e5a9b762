"""The layout of ablations: the rows of a protocol, datasets as columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from zsad.errors import ZsadError
from zsad.io.names import safe_name
from zsad.protocols import load_protocol
from zsad.results.effect import Place, without_effect
from zsad.results.records import CellRecord
from zsad.results.store import ResultStore
from zsad.tables.by_dataset import banner, not_computed, undefined_notes
from zsad.tables.column_notes import conditions
from zsad.tables.curves import drawings
from zsad.tables.lines import Entry, tables_of
from zsad.tables.model import Page
from zsad.tables.results_matrix import Board, MatrixColumn


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
        tables, beside = tables_of(board, "ablation", ("row",), entries)
        title = f"Ablation {protocol}, backbone {board.heading}"
        name = f"{safe_name(board.name)}/ablation-{safe_name(protocol)}"
        used = replace(board, columns=columns)
        how = "Figures in percent, in the order of the protocol; – undefined."
        idle = _idle(store, board, columns)
        said = (*not_computed(used), *conditions(used), *undefined_notes(used, used.rows))
        notes = (*banner(board), how, *idle, *said, *beside)
        drawn = tuple(drawings(board, columns))
        pages.append(Page(name, title, tuple(tables), notes, drawings=drawn))
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
    return {row.stored: i for i, row in enumerate(rows)}

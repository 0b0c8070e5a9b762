"""The layout of ablations: the rows of a protocol, datasets as columns."""

from __future__ import annotations

from dataclasses import replace

from zsad.errors import ZsadError
from zsad.protocols import load_protocol
from zsad.results.store import safe_name
from zsad.tables.by_dataset import banner, conditions, not_computed
from zsad.tables.lines import Entry, tables_of
from zsad.tables.model import Page
from zsad.tables.results_matrix import Board


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
        tables = tables_of(board, "ablation", ("row",), entries)
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

"""What methods cost: trained values, seconds per training batch, milliseconds per image.

All of it is read from what runs stored, with the processor and the engine that it was measured on.
Times of two machines have nothing in common, and a paper's are of its GPU: nothing here is ranked,
and nothing is set beside a printed time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from zsad.checkpoints.account import CheckpointMeta, account_of, numbers_of
from zsad.errors import ZsadError, counted
from zsad.io.names import safe_name
from zsad.results.records import CellRecord
from zsad.results.store import ResultStore
from zsad.tables.by_dataset import banner
from zsad.tables.model import Line, Page, Span, Table
from zsad.tables.results_matrix import Board, MatrixColumn

HEADS = (
    *("trained values", "training, s per batch", "trained on", "encoder, ms per image"),
    *("method, ms per image", "processor", "engine"),
)
NOTES = (
    "Times are those of this folder's runs. The encoder's pass is shared by all methods of a run "
    "and named whole for each; the method's own time is its head, its map and its boxes. Times "
    "on several processors or engines stand apart.",
    "Not ranked: load, batches and pictures differ from run to run. Papers print times of their "
    "own GPUs, which these are never compared with.",
)
OWN = ("head", "map", "boxes", "views")  # stages of a method, beside the encoder's


def cost_page(store: ResultStore, board: Board) -> Page | None:
    """The costs of a board's columns; None where no record holds a time."""
    lines, data = [], []
    for column in board.columns:
        records = [
            record
            for (label, _), cells in board.cells.items()
            if label == column.label
            for record in cells.values()
        ]
        for where, of in _apart(records).items():
            line, entry = _line(store, column, where, of)
            lines.append(line)
            data.append(entry)
    if not lines:
        return None
    table = Table("cost", "Parameters and times", "method", HEADS, tuple(lines), (), tuple(data))
    name = f"{safe_name(board.name)}/cost"
    title = f"Cost, backbone {board.heading}"
    return replace(Page(name, title, (table,), (*banner(board), *NOTES)), mark=board.banner)


def _apart(records: Sequence[CellRecord]) -> dict[tuple[str, str], list[CellRecord]]:
    """Records with a time by the processor and engine that it was measured on."""
    found: dict[tuple[str, str], list[CellRecord]] = {}
    for record in records:
        engine = record.info.get("engine")
        held = engine if isinstance(engine, dict) else {}
        name = f"{held.get('name', '')} {held.get('version', '')}".strip()
        name += f"; head: {held['head']}" if held.get("head") else ""
        if record.seconds.get("encode") is not None and record.n_normal + record.n_anomalous:
            where = str(held.get("processor") or "not recorded"), name or "not recorded"
            found.setdefault(where, []).append(record)
    return found


def _line(
    store: ResultStore,
    column: MatrixColumn,
    where: tuple[str, str],
    records: Sequence[CellRecord],
) -> tuple[Line, dict[str, Any]]:
    images = sum(r.n_normal + r.n_anomalous for r in records)
    encoder = 1000 * math.fsum(r.seconds["encode"] for r in records) / images
    own = 1000 * math.fsum(r.seconds.get(s, 0.0) for r in records for s in OWN) / images
    values, meta = _trained(store, records)
    cost = meta.cost if meta else {}
    per_batch = cost["seconds"] / cost["batches"] if cost.get("batches") else None
    on = f"{cost['processor']}, {counted(cost['threads'], 'thread')}" if cost else "–"
    texts = (
        "0" if not records[0].info.get("trained") else f"{values:,}" if values else "–",
        "–" if per_batch is None else _rounded(per_batch),
        on,
        _rounded(encoder),
        _rounded(own),
        *where,
    )
    entry = {
        "method": column.label,
        "trained_values": values if records[0].info.get("trained") else 0,
        "seconds_per_batch": per_batch,
        "trained_on": on,
        "encoder_ms": round(encoder, 3),
        "method_ms": round(own, 3),
        "images": images,
        "processor": where[0],
        "engine": where[1],
    }
    return Line(column.head, tuple((Span(text),) for text in texts)), entry


def _rounded(value: float) -> str:
    """Three digits that count, without an exponent: 1,120."""
    return f"{float(f'{value:.3g}'):,g}"


def _trained(
    store: ResultStore, records: Sequence[CellRecord]
) -> tuple[int | None, CheckpointMeta | None]:
    """How many numbers the state of a record holds, and its account, where the folder has it."""
    for record in records:
        found = record.info.get("trained_on")
        name = str(found.get("checkpoint") or "") if isinstance(found, dict) else ""
        path = _state(store.root, str(record.info.get("method") or ""), name)
        if path is not None:
            try:
                return numbers_of(path), account_of(path)
            except ZsadError:  # damaged: the others may tell
                continue
    return None, None


def _state(root: Path, method: str, name: str) -> Path | None:
    path = root / "checkpoints" / method / name
    return path if method and name and path.is_file() else None

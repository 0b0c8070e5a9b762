"""Figures per type of defect: which kinds a method finds, and which it misses."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from zsad.errors import ZsadError
from zsad.io.names import safe_name
from zsad.metrics.spec import METRICS, resampled
from zsad.results.aggregate import UNDEFINED, Figure, images_of, is_partial, mean, ranks
from zsad.results.image_scores import scores_of
from zsad.results.store import ResultStore
from zsad.tables.by_dataset import banner
from zsad.tables.column_notes import conditions
from zsad.tables.model import Line, Page, Span, Spans, Table
from zsad.tables.results_matrix import Board, DatasetRow, MatrixColumn

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

NOTE = (
    "Figures in percent: the images of one type of defect against all normal images of the "
    "category, mean over seeds; – where no normal image, or none of the type, was scored; best "
    "bold, second underlined, among zero-shot columns with the same images. Masks are not parted "
    "by type, so there are no pixel-level figures."
)

Kind = tuple[str, str]  # category, type of defect


def defect_page(store: ResultStore, board: Board, row: DatasetRow) -> Page | None:
    """Types of defects by methods; None where no category of the dataset has several types.

    Made of the stored scores of images: nothing is computed again.
    """
    frames = {c.label: _frames(store, board, c, row) for c in board.columns}
    kinds: dict[Kind, None] = {}
    for category in row.categories:
        held = [f for found in frames.values() for f in found.get(category, ())]
        names = sorted({str(d) for f in held for d in f.loc[f["label"] == 1, "defect"] if d})
        if len(names) > 1:
            kinds.update(dict.fromkeys((category, name) for name in names))
    if not kinds:
        return None
    tables = tuple(_table(board, row, frames, list(kinds), metric) for metric in resampled())
    name = f"{safe_name(board.name)}/{safe_name(row.name)}-defects"
    title = f"{row.title} by type of defect, backbone {board.heading}"
    return Page(name, title, tables, (*banner(board), NOTE, *conditions(board)))


def _frames(
    store: ResultStore, board: Board, column: MatrixColumn, row: DatasetRow
) -> dict[str, list[pd.DataFrame]]:
    """The stored scores of a column by category, one table per seed."""
    found: dict[str, list[pd.DataFrame]] = {}
    for (category, _), record in board.of(column.label, row.name).items():
        try:
            frame = scores_of(store, record)
        except ZsadError as error:  # a broken file costs its own figures only
            log.warning("%s", error)
            continue
        if frame is not None:
            found.setdefault(category, []).append(frame)
    return found


def _table(
    board: Board,
    row: DatasetRow,
    frames: dict[str, dict[str, list[pd.DataFrame]]],
    kinds: list[Kind],
    metric: str,
) -> Table:
    lines, data = [], []
    for category, defect in kinds:
        figures, most = [], 0
        for column in board.columns:
            held = board.of(column.label, row.name)
            records = [r for (name, _), r in held.items() if name == category]
            value, count = _figure(frames[column.label].get(category, []), defect, metric)
            most = max(most, count)
            partial = any(map(is_partial, records))
            figures.append(
                Figure(
                    *(value, None, int(value is not None), 1),
                    images=images_of(records, metric),
                    partial=partial,
                )
            )
            data.append(
                {
                    "row": category,
                    "defect": defect,
                    "method": column.label,
                    "configuration": column.overrides,
                    "metric": metric,
                    "value": None if value is None else round(100 * value, 4),
                    "images": count,
                    "partial": partial,
                }
            )
        places = ranks(figures, [c.comparable for c in board.columns])
        cells: tuple[Spans, ...] = tuple(
            (Span(f.text if f.value is not None else UNDEFINED, place),)
            for f, place in zip(figures, places)
        )
        lines.append(Line(f"{category}, {defect} ({most})", cells))
    heads = tuple(c.head for c in board.columns)
    title = f"{METRICS[metric].full_title} by type of defect"
    return Table(
        f"defects-{metric}",
        title,
        "category, defect (images)",
        heads,
        tuple(lines),
        (),
        tuple(data),
    )


def _figure(frames: list[pd.DataFrame], defect: str, metric: str) -> tuple[float | None, int]:
    """The mean over seeds, None where a class is missing, and the number of defective images."""
    from zsad.metrics.statistics import image_metric

    values, count = [], 0
    for frame in frames:
        part = frame[(frame["label"] == 0) | (frame["defect"] == defect)]
        count = int((part["label"] == 1).sum())
        if part["label"].nunique() == 2:
            values.append(image_metric(part["score"], part["label"], metric))
    return mean(values), count

"""Gathers what the report shows, as plain JSON-ready values.  Reads the store, runs nothing."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from zsad.errors import ZsadError
from zsad.metrics.spec import METRICS, glossary
from zsad.report import gallery, pictures
from zsad.report.pictures import PictureShelf
from zsad.results import examples
from zsad.results.examples import CellExamples
from zsad.results.image_scores import scores_of
from zsad.results.records import CellRecord
from zsad.results.store import ResultStore, key_of
from zsad.tables.by_dataset import overview_figures
from zsad.tables.comparison import comparison
from zsad.tables.results_matrix import Board, DatasetRow, boards, parted

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

MOST_BINS = 24  # of the score histograms


def collect(store: ResultStore, most: int = pictures.MOST) -> dict[str, Any]:
    """Everything that the page draws: one board per backbone, and the pictures by name.

    ``most``: example pictures in all; where that is less than four per cell, every cell keeps
    equally many (at least one, unless ``most`` is 0), and ``per_cell`` says how many.
    ``metrics`` and ``levels``: title and level of every metric that the page can show, by name.
    """
    found = boards(store.cells())
    cells = sum(len(records) for board in found for records in board.cells.values())
    full = len(examples.KINDS)
    per_cell = full if cells * full <= most else max(min(1, most), most // max(cells, 1))
    shelf = PictureShelf()
    records = (r for board in found for held in board.cells.values() for r in held.values())
    shown = glossary({metric for record in records for metric in record.metrics})
    made = [_board(store, board, per_cell, shelf, most) for board in found]
    return {
        "boards": made,
        "metrics": {m.name: m.full_title for m in shown},
        "levels": {m.name: m.level for m in shown},
        "pictures": shelf.uris,
        "per_cell": None if per_cell >= full else per_cell,
    }


def _board(
    store: ResultStore, board: Board, per_cell: int, shelf: PictureShelf, most: int
) -> dict[str, Any]:
    comparable = _comparable_by_category(board)
    listed = _listed(store, board, most)
    cells = [
        _cell(store, record, (column.label, row.name), comparable, per_cell, shelf, listed)
        for column in board.columns
        for row in board.rows
        for record in board.of(column.label, row.name).values()
    ]
    return {
        "backbone": board.heading,
        "banner": board.banner,
        "methods": [
            {
                "label": c.label,
                "title": c.head,
                "ablation": c.ablation,
                "without": _without(board, c.label),
            }
            for c in board.columns
        ],
        "datasets": [
            {"name": r.name, "title": r.title, "categories": list(r.categories)} for r in board.rows
        ],
        "cells": cells,
        "categories": [entry for entry in listed.values() if entry["uids"]],
        "means": _means(board),
        "published": _published(board),
    }


def _without(board: Board, label: str) -> list[str]:
    """The metrics that no record of a column holds, be it undefined: they were not computed."""
    records = [r for (own, _), cells in board.cells.items() if own == label for r in cells.values()]
    return [m for m in METRICS if all(m not in r.metrics for r in records)]


def _listed(store: ResultStore, board: Board, most: int) -> dict[tuple[str, str], dict[str, Any]]:
    """The pictures of every category by (dataset, category): names, labels, types of defects, and
    the sheet of small pictures.  Of a large category the first
    :data:`zsad.report.gallery.MOST_LISTED` are listed."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for column in board.columns:
        for row in board.rows:
            for record in board.of(column.label, row.name).values():
                place = row.name, record.category
                if place in found or (table := _table(store, record)) is None:
                    continue
                rows = table.head(gallery.MOST_LISTED)
                found[place] = {
                    "dataset": row.name,
                    "category": record.category,
                    "uids": [str(uid) for uid in rows["uid"]],
                    "labels": [int(label) for label in rows["label"]],
                    "defects": [str(defect or "") for defect in rows["defect"]],
                    "left_out": len(table) - len(rows),
                }
    each = min(most, gallery.MOST_PICTURES) // max(1, len(found))
    for (dataset, category), entry in found.items():
        entry["pictures"] = gallery.of_category(store, dataset, category, entry["uids"], each)
    return found


# ------------------------------------------------------------------------------- figures
def _means(board: Board) -> list[dict[str, Any]]:
    """Means over the categories of a dataset, and over datasets: the figures of the overview.

    ``text`` and ``place`` are those of the tables: as printed, and 1 for the best of those that may
    be ranked together.  Rows of ablations compete with each other only.
    """
    titles = {row.name: row.title for row in board.rows}
    return [
        {
            "row": m.row,
            "title": titles.get(m.row, m.row),
            "mean": m.over_datasets,
            "method": m.column.label,
            "metric": m.metric,
            "value": round(100 * m.figure.value, 4),
            "text": m.figure.text,
            "place": m.place,
            "count": m.figure.count,
            "of": m.figure.of,
        }
        for part in parted(board)
        if part.columns
        for m in overview_figures(part)
        if m.figure.value is not None
    ]


def _published(board: Board) -> list[dict[str, Any]]:
    """Published figures of what was measured, by dataset, with how comparable they are."""
    tables, _ = comparison(board)
    heads = {c.label: c.head for c in board.columns}
    return [
        {**entry, "title": heads[entry["method"]]}
        for table in tables
        for entry in table.data
        if entry["published"] is not None and entry["value"] is not None
    ]


def _comparable_by_category(board: Board) -> dict[tuple[str, str, str], dict[str, float]]:
    """Published figures in 0..1 by (method, dataset, category), then metric; those made under
    other conditions in a way that forbids comparing are left out."""
    found: dict[tuple[str, str, str], dict[str, float]] = {}
    for row in board.rows:
        for entry in _category_entries(board, row):
            if entry["published"] is not None and entry["protocol"] in ("yes", "partly"):
                place = entry["method"], row.name, entry["row"]
                found.setdefault(place, {})[entry["metric"]] = entry["published"] / 100
    return found


def _category_entries(board: Board, row: DatasetRow) -> Sequence[dict[str, Any]]:
    tables, _ = comparison(board, row)
    return [entry for table in tables for entry in table.data if entry["row"] in row.categories]


# --------------------------------------------------------------------------------- cells
def _cell(
    store: ResultStore,
    record: CellRecord,
    place: tuple[str, str],
    published: dict[tuple[str, str, str], dict[str, float]],
    per_cell: int,
    shelf: PictureShelf,
    listed: dict[tuple[str, str], dict[str, Any]],
) -> dict[str, Any]:
    key = key_of(record)
    try:
        found = examples.load(store.root, key) or CellExamples([])
    except ZsadError as error:
        log.warning("%s", error)
        found = CellExamples([])
    table = _table(store, record)
    values, labels = _scores(table)
    about = listed.get((place[1], record.category))
    compared: dict[str, Any] = {"scores": [], "maps": None}
    if about is not None and table is not None:
        uids, tiles = about["uids"], about["pictures"]["tiles"]
        shown = {uid for uid, tile in zip(uids, tiles) if tile >= 0}
        scores = dict(zip(map(str, table["uid"]), values.tolist()))
        compared = gallery.of_cell(found, uids, scores, shown)
    low, high = pictures.colour_range(found.examples)
    return {
        "method": place[0],
        "dataset": place[1],
        "category": record.category,
        "seed": record.seed,
        "metrics": record.metrics,
        "undefined": record.undefined,
        "published": published.get((*place, record.category), {}),
        "normal": record.n_normal,
        "anomalous": record.n_anomalous,
        "ms": milliseconds(record),
        **compared,
        "histogram": histogram(values, labels),
        "curves": found.curves,
        "examples": [
            pictures.as_data(e, low, high, values[labels != e.label], shelf)
            for e in pictures.choose(found.examples, per_cell)
        ],
    }


def _table(store: ResultStore, record: CellRecord) -> pd.DataFrame | None:
    """The image scores of a cell; None where none can be read."""
    try:
        return scores_of(store, record)
    except ZsadError as error:
        log.warning("%s", error)
        return None


def _scores(table: pd.DataFrame | None) -> tuple[np.ndarray, np.ndarray]:
    """Image scores and labels; empty without a table."""
    if table is None:
        return np.empty(0), np.empty(0, dtype=int)
    return table["score"].to_numpy(dtype=float), table["label"].to_numpy()


STAGES = ("encode", "head", "map")  # of a picture, whatever is asked of the result


def milliseconds(record: CellRecord) -> float | None:
    """Milliseconds per image that a method took: the encoder, which methods share, counted whole,
    its own score and map; without decoding, metrics and training.  None where none was noted."""
    images = record.n_normal + record.n_anomalous
    spent = sum(record.seconds.get(stage, 0.0) for stage in STAGES)
    return round(1000 * spent / images, 3) if images and spent else None


def histogram(values: np.ndarray, labels: np.ndarray) -> dict[str, Any] | None:
    """Image scores of normal and anomalous images in common bins; None without scores.

    The number of bins grows with the square root of the number of images.
    """
    if not len(values):
        return None
    low, high = float(values.min()), float(values.max())
    bins = min(MOST_BINS, max(6, 2 * math.isqrt(len(values))))
    edges = np.linspace(low, high if high > low else low + 1, bins + 1)
    return {
        "low": float(edges[0]),
        "high": float(edges[-1]),
        "normal": np.histogram(values[labels == 0], edges)[0].tolist(),
        "anomalous": np.histogram(values[labels == 1], edges)[0].tolist(),
    }

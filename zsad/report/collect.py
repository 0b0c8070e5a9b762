"""Gathers what the report shows, as plain JSON-ready values.  Reads the store, runs nothing."""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from zsad import examples, overlay
from zsad.errors import ZsadError
from zsad.examples import CellExamples, Example
from zsad.store import ResultStore, key_of
from zsad.tables.board import Board, boards
from zsad.types import CellRecord

log = logging.getLogger(__name__)

BINS = 24  # of the score histograms
OUTLINE = (255, 255, 255)
ORDER = {kind: i for i, kind in enumerate(examples.KINDS)}


def collect(store: ResultStore) -> list[dict[str, Any]]:
    """One entry per backbone: its cells with curves, histograms and example pictures."""
    return [_board(store, board) for board in boards(store.cells())]


def _board(store: ResultStore, board: Board) -> dict[str, Any]:
    cells = [
        _cell(store, record)
        for column in board.columns
        for row in board.rows
        for record in board.of(column.label, row.name).values()
    ]
    return {
        "backbone": board.backbone,
        "banner": board.banner,
        "methods": [{"label": c.label, "title": c.head} for c in board.columns],
        "datasets": [
            {"name": r.name, "title": r.title, "categories": list(r.categories)} for r in board.rows
        ],
        "cells": cells,
    }


def _cell(store: ResultStore, record: CellRecord) -> dict[str, Any]:
    key = key_of(record)
    try:
        found = examples.load(store.root, key) or CellExamples([])
    except ZsadError as error:
        log.warning("%s", error)
        found = CellExamples([])
    shown = sorted(found.examples, key=lambda e: (ORDER.get(e.kind, 9), e.uid))
    low, high = _range(shown)
    return {
        "method": record.method,
        "dataset": record.dataset,
        "category": record.category,
        "seed": record.seed,
        "metrics": record.metrics,
        "undefined": record.undefined,
        "normal": record.n_normal,
        "anomalous": record.n_anomalous,
        "histogram": _histogram(store, record),
        "curves": found.curves,
        "examples": [_example(e, low, high) for e in shown],
    }


def _histogram(store: ResultStore, record: CellRecord) -> dict[str, Any] | None:
    """Image scores of normal and anomalous images in common bins."""
    table = store.scores(key_of(record))
    if table is None or not len(table):
        return None
    values = table["score"].to_numpy(dtype=float)
    labels = table["label"].to_numpy()
    low, high = float(values.min()), float(values.max())
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    return {
        "low": float(edges[0]),
        "high": float(edges[-1]),
        "normal": np.histogram(values[labels == 0], edges)[0].tolist(),
        "anomalous": np.histogram(values[labels == 1], edges)[0].tolist(),
    }


def _range(shown: Sequence[Example]) -> tuple[float, float]:
    """One colour range for all pictures of a cell, so that they can be compared."""
    if not shown:
        return 0.0, 1.0
    low = min(float(e.map.min()) for e in shown)
    high = max(float(e.map.max()) for e in shown)
    return low, high if high > low else low + 1.0


def _example(example: Example, low: float, high: float) -> dict[str, Any]:
    picture = Image.open(io.BytesIO(example.jpeg)).convert("RGB")
    heat = overlay.overlay(picture, example.map, low, high)
    if example.mask is not None and example.mask.any():
        heat = outlined(heat, example.mask)
    return {
        "uid": example.uid,
        "kind": example.kind,
        "label": example.label,
        "defect": example.defect,
        "score": example.score,
        "picture": _data_uri(example.jpeg),
        "heat": _data_uri(_jpeg(heat)),
        "explanations": [
            {
                "text": e.text,
                "similarity": e.similarity,
                "label": e.label,
                "source": e.source,
                "note": e.note,
            }
            for e in example.explanations
        ],
    }


def outlined(picture: Image.Image, mask: np.ndarray) -> Image.Image:
    """Draw the border of a mask [H, W] on a picture of that size: white beside black, two
    pixels wide, so that it shows on any colour."""
    from scipy.ndimage import binary_dilation

    pixels = np.asarray(picture.convert("RGB")).copy()
    outer = binary_dilation(mask) & ~mask
    far = binary_dilation(mask, iterations=2) & ~mask & ~outer
    pixels[far] = (0, 0, 0)
    pixels[outer] = OUTLINE
    return Image.fromarray(pixels)


def _jpeg(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _data_uri(jpeg: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")

"""Footnotes on columns: their configuration, the settings of their runs, what they learned from."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from zsad.errors import counted, few
from zsad.results.aggregate import PARTIAL, is_partial
from zsad.results.identity import imported
from zsad.results.records import CellRecord
from zsad.tables.dataset_notes import dataset_notes, limit_note
from zsad.tables.results_matrix import Board, trained_on_of

MASK_RULES = {"whole": "bilinear, and marked only where wholly so"}
NAMES = {"spoken": "categories in spoken words", "released": "categories called by their folders"}
SPOKEN = "spoken"
NAMED = 8  # datasets or categories that a note names


def conditions(board: Board) -> list[str]:
    """Configuration, settings and training data of the board's columns, one sentence each."""
    return [
        *_configuration_notes(board),
        *_setting_notes(board),
        *_training_notes(board),
        *_imported_notes(board),
        *_partial_notes(board),
        *dataset_notes(board),
    ]


def _imported_notes(board: Board) -> list[str]:
    """Where the columns come from that another program made."""
    found: dict[str, None] = {}
    for column in board.columns:
        for (label, _), cells in board.cells.items():
            for record in cells.values() if label == column.label else ():
                if held := imported(record):
                    said = str(held.get("provenance") or "").rstrip(".") or "provenance not stated"
                    words = f"{held.get('maps')}, image score: {held.get('image_score')}"
                    found[f"{column.head}: {said}; {words}; metrics by zsad."] = None
    return list(found)


def _partial_notes(board: Board) -> list[str]:
    """What was left out of records that are made with ``data.skip_broken``, or imported in part."""
    left = {
        text
        for (label, _), cells in board.cells.items()
        for record in cells.values()
        if label in {c.label for c in board.columns} and is_partial(record)
        for text in record.info["skipped"]
    }
    if not left:
        return []
    return [
        f"{PARTIAL} scored without images that cannot be read or were not given ({len(left)} of "
        "the datasets here): neither ranked nor compared."
    ]


def _configuration_notes(board: Board) -> list[str]:
    """What each column was told beyond its method's preset, and which one lacked its boxes."""
    # A heading that shows all of them needs no footnote.
    out = [
        f"{c.head}: {c.overrides}."
        for c in board.columns
        if f", {c.overrides}]" not in c.title and f"[{c.overrides}]" not in c.title and c.overrides
    ]
    bare = dict.fromkeys(c.plain for c in board.columns if not c.configuration.boxes)
    if bare:
        out.append(f"Without the detector's boxes that the method asks for: {', '.join(bare)}.")
    for column in board.columns:
        some: dict[str, None] = {}
        for row in board.rows:
            for (category, _), record in board.of(column.label, row.name).items():
                held = record.info.get("boxes") or {}
                if lacking := held.get("answered") and held.get("unanswered"):
                    total = lacking + held["answered"]
                    some[f"{row.title}/{category} ({lacking} of {counted(total, 'image')})"] = None
        if some:
            out.append(f"{column.title} had no boxes on {few(some, NAMED)}.")
    return out


def _setting_notes(board: Board) -> list[str]:
    out = [
        _by_column(board, told, say)
        for told, say in (
            (_told("image_size"), lambda v: f"images at {v} px"),
            (_told("limit"), _limited),
            (_told("precision"), lambda v: f"precision {v}"),
            (_told("mask_resize"), lambda v: f"masks resized {MASK_RULES.get(v, v)}"),
        )
    ]
    if any(r.info.get("names", SPOKEN) != SPOKEN for r in _records(board)):
        out.append(_by_column(board, _told("names", SPOKEN), lambda v: NAMES.get(v, str(v))))
    out.append(limit_note(board))
    return [f"{text[0].upper()}{text[1:]}." for text in out if text]


def _told(key: str, usual: Any = None) -> Callable[[CellRecord], Any]:
    """What a record says of a setting; ``usual``: where it says nothing."""
    return lambda record: record.info.get(key, usual)


def _limited(limit: Any) -> str:
    return f"at most {counted(limit, 'image')} per category" if limit else "all images"


def _records(board: Board) -> Iterable[CellRecord]:
    """The records of the board's columns."""
    labels = {column.label for column in board.columns}
    return (r for (label, _), held in board.cells.items() if label in labels for r in held.values())


def _by_column(board: Board, told: Callable[[CellRecord], Any], say: Callable[[Any], str]) -> str:
    """One statement where all columns agree, else one per column; a column whose datasets differ
    has each value with the datasets that it holds for."""
    found: dict[str, str] = {}
    for column in board.columns:
        on: dict[Any, dict[str, None]] = {}  # value -> titles of datasets
        for row in board.rows:
            for record in board.of(column.label, row.name).values():
                if (value := told(record)) is not None:
                    on.setdefault(value, {})[row.title] = None
        values = sorted(on, key=str)
        if len(values) == 1:
            found[column.title] = say(values[0])
        elif values:
            found[column.title] = ", ".join(f"{say(v)} on {few(on[v], NAMED)}" for v in values)
    if len(set(found.values())) == 1:
        return next(iter(found.values()))
    return "; ".join(f"{title}: {text}" for title, text in found.items())


def seeds_note(board: Board) -> str:
    """Which seeds figures are means over, and which columns have fewer of them; "" for one seed.

    A method that learns nothing and refers to nothing has one seed, whose figures are those of
    all."""
    every = sorted({record.seed for record in _records(board)})
    if len(every) < 2:
        return ""
    fewer = []
    for column in board.columns:
        on: dict[tuple[int, ...], list[str]] = {}  # seeds -> titles of datasets
        for row in board.rows:
            held = board.of(column.label, row.name)
            seeds = tuple(sorted({r.seed for r in held.values() if _seeded(r)}))
            if seeds and len(seeds) < len(every):
                on.setdefault(seeds, []).append(row.title)
        measured = [row for row in board.rows if board.of(column.label, row.name)]
        for seeds, titles in on.items():
            where = f" on {few(titles, NAMED)}" if len(titles) < len(measured) else ""
            fewer.append(f"{column.title}{where} (seed {', '.join(map(str, seeds))})")
    text = f"over the seeds {', '.join(map(str, every))}"
    return f"{text}; over fewer: {', '.join(fewer)}" if fewer else text


def _seeded(record: CellRecord) -> bool:
    return bool(record.info.get("trained") or record.info.get("shots"))


def _training_notes(board: Board) -> list[str]:
    out = []
    for column in board.columns:
        sources: dict[str, list[str]] = {}
        for row in board.rows:
            for name in {trained_on_of(r) for r in board.of(column.label, row.name).values()}:
                if name:
                    sources.setdefault(name, []).append(row.name)
        if sources:
            parts = [f"{name} (for {', '.join(on)})" for name, on in sources.items()]
            text = next(iter(sources)) if len(sources) == 1 else "; ".join(parts)
            out.append(f"{column.title} was trained on {text}.")
    return out

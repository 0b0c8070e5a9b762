"""The layout of the few-shot tables: numbers of shots and methods, datasets as columns."""

from __future__ import annotations

import sys
from dataclasses import replace

from zsad.config.method_config import ALL_SHOTS, shots_in_words
from zsad.io.names import safe_name
from zsad.tables.by_dataset import banner, not_computed, undefined_notes
from zsad.tables.column_notes import conditions, seeds_note
from zsad.tables.lines import Entry, tables_of
from zsad.tables.model import Page
from zsad.tables.results_matrix import GROUP_ORDER, Board, Cells, MatrixColumn


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
        count = shots[column.label]
        return (
            sys.maxsize if count == ALL_SHOTS else count,
            GROUP_ORDER.get(column.group, 2),
            _title(column),
        )

    entries: dict[Entry, list[Cells]] = {}
    for column in sorted(columns, key=place):
        setup = shots_in_words(shots[column.label])
        plain = shots[column.label] and published and not column.overrides
        name = f"{_method(column)}@{setup}" if plain else ""
        entry = Entry(setup, _title(column), setup, name)
        if entry in entries:  # the same under a row's name and under the method's own
            entry = replace(entry, method=f"{_title(column)} ({column.label})")
        entries[entry] = [board.of(column.label, row.name) for row in board.rows]
    title = f"Few-shot anomaly detection, backbone {board.heading}"
    used = replace(board, columns=columns)
    notes = [
        *banner(board),
        "Figures in percent; best bold, second underlined, for each number of shots; – undefined.",
        *([f"Mean ± standard deviation {seeds}."] if (seeds := seeds_note(used)) else []),
        *not_computed(used),
        *conditions(used),
        *undefined_notes(used, used.rows),
    ]
    tables, beside = tables_of(board, "few-shot", ("setup", "method"), entries)
    notes += beside
    return Page(f"{safe_name(board.name)}/few-shot", title, tuple(tables), tuple(notes))


def _method(column: MatrixColumn) -> str:
    return column.configuration.method.partition("@")[0]


def _title(column: MatrixColumn) -> str:
    """The column's title without its row's label and its number of shots, which the setup says."""
    suffix = column.title[len(column.plain) :].replace(
        f", {shots_in_words(column.configuration.shots)}", "", 1
    )
    return f"{column.plain.split(':')[0]}{suffix}"

"""The page of all tables and figures: true, whole, and every command of it plans."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import zsad
from docs import tables_and_figures
from docs.tables_and_figures import Entry
from zsad.cli import options
from zsad.cli.main import parse
from zsad.results.published import Published
from zsad.runner.options import BenchOptions
from zsad.runner.request import build_request

ENTRIES = [
    pytest.param(name, entry, id=f"{name} {entry.what}")
    for name, (_, entries) in tables_and_figures.papers().items()
    for entry in entries
]
# What the papers have: (tables, figures).
WHOLE = {"FiLo": (14, 11), "FAPrompt": (18, 19), "ALFA": (7, 6), "KAnoCLIP": (3, 2)}


def numbers(what: str) -> set[tuple[str, int]]:
    """``Figures 3, 11`` or ``Tables 9 to 16`` as (kind, number)."""
    kind = what.split()[0].rstrip("s")
    found = [int(n) for n in re.findall(r"\d+", what)]
    if " to " in what:
        found = list(range(found[0], found[1] + 1))
    return {(kind, n) for n in found}


def test_the_page_is_what_the_list_and_the_protocols_say() -> None:
    text = tables_and_figures.PAGE.read_text(encoding="utf-8")
    assert text == tables_and_figures.page(), "run `python -m docs.tables_and_figures`"


def test_every_table_and_figure_has_one_entry() -> None:
    for name, (_, entries) in tables_and_figures.papers().items():
        listed = [n for entry in entries for n in numbers(entry.what)]
        tables, figures = WHOLE[name]
        wanted = [("Table", n + 1) for n in range(tables)]
        wanted += [("Figure", n + 1) for n in range(figures)]
        assert sorted(listed) == sorted(wanted), name
    printed = {(r.paper, r.table) for r in Published.load().references if r.paper in WHOLE}
    assert all(0 < table <= WHOLE[paper][0] for paper, table in printed)


@pytest.mark.parametrize(("paper", "entry"), ENTRIES)
def test_an_entry_has_a_command_or_a_reason(paper: str, entry: Entry) -> None:
    assert bool(entry.line) != bool(entry.reason)
    if entry.protocol:
        args = parse(shlex.split(entry.line.replace("DATA", "."))[1:])
        request = build_request(**options.given(BenchOptions, args))
        found = {column.label for column in request.columns}
        rows = tables_and_figures.chosen(request.protocol, entry.rows)
        if entry.rows:
            assert found == {row.stored for row in rows}
        # A table with printed figures: the rows that are set beside them are among those run.
        for kind, number in numbers(entry.what):
            printed = {
                r.methods
                for r in Published.load().references
                if kind == "Table" and r.paper == paper and r.table == number
                if r.protocol == entry.protocol and not r.shots and r.methods
            }
            assert all(found & set(names) for names in printed), (entry.what, printed)
    elif entry.command:
        parse(shlex.split(entry.command)[1:])


@pytest.mark.slow
def test_every_protocol_plans_on_miniatures_and_says_its_rows(
    miniatures: Path, tmp_path: Path
) -> None:
    """Backbone, size, preset and training set of every row, for all entries together."""
    for name in sorted({entry.protocol for (_, entry) in (p.values for p in ENTRIES)} - {""}):
        document = zsad.bench(
            protocol=name, data_root=miniatures, results=tmp_path, dry_run=True, limit=2
        )
        for row in document["rows"]:
            assert row["backbone"]
            assert row["image_size"] in (224, 240, 336, 518)
            assert row["preset"]
            trained = row["does"] != "training-free"
            assert bool(row["trained_on"]) == trained, row

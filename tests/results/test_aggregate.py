"""One mean: console, JSON, tables and report print the same figure, whatever is missing."""

from __future__ import annotations

import csv
import io
import re
import tempfile
from contextlib import redirect_stdout
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from zsad import tables
from zsad.cli.bench import print_summary
from zsad.metrics import spec
from zsad.report.page_data import collect
from zsad.results.aggregate import NOT_COMPUTED
from zsad.results.document import summary
from zsad.results.records import CellRecord
from zsad.results.store import ResultStore

METRIC = spec.headline()[0]
DATASET = "mine"
Cells = dict[tuple[str, int], float | str | None]  # "absent": the record lacks the metric
MISSING = "absent"


def record(method: str, category: str, seed: int, value: float | str | None) -> CellRecord:
    metrics: dict[str, float | None] = dict.fromkeys(spec.names(), 0.5)
    if value == MISSING:
        del metrics[METRIC.name]
    else:
        metrics[METRIC.name] = value  # type: ignore[assignment]
    undefined = {METRIC.name: "one class only"} if value is None else {}
    info = {"backbone": "vit-l-14-336", "title": method, "group": "baselines"}
    return CellRecord(method, DATASET, category, seed, "f", metrics, undefined, 1, 1, {}, info)


def console(records: list[CellRecord]) -> dict[str, str]:
    """What ``zsad bench`` prints of the metric, by method."""
    document: dict[str, Any] = {
        "summary": summary(records),
        "cells": [],
        "counters": {},
        "failed": [],
        "results_dir": "",
    }
    printed = io.StringIO()
    with redirect_stdout(printed):
        print_summary(document)
    table = printed.getvalue().splitlines()[: 1 + len(document["summary"])]  # sentences follow it
    heads, *lines = [re.split(r" {2,}", x.strip()) for x in table]
    return {line[0]: line[heads.index(METRIC.full_title)] for line in lines}


def in_table(store: ResultStore) -> dict[str, dict[str, Any]]:
    """The entries of the overview's CSV file, by method."""
    page = next(p for p in tables.pages(store.root) if p.name.endswith("overview"))
    rows = csv.DictReader(io.StringIO(tables.FORMATS["csv"](page)))
    return {r["method"]: r for r in rows if r["metric"] == METRIC.name and r["row"] == DATASET}


def in_report(store: ResultStore) -> dict[str, dict[str, Any]]:
    means = collect(store)["boards"][0]["means"]
    return {m["method"]: m for m in means if m["metric"] == METRIC.name and m["row"] == DATASET}


def written(folder: str, methods: dict[str, Cells]) -> tuple[ResultStore, list[CellRecord]]:
    store = ResultStore(folder)
    records = [record(m, c, s, v) for m, cells in methods.items() for (c, s), v in cells.items()]
    for made in records:
        store.put(made)
    return store, records


def test_a_seed_that_lacks_a_category_leaves_it_out_everywhere() -> None:
    cells: Cells = {("a", 0): 0.9, ("b", 0): 0.5, ("a", 1): 0.9, ("b", 1): None}
    with tempfile.TemporaryDirectory() as folder:
        store, records = written(folder, {"clip": cells})
        (line,) = summary(records)
        assert (line["metrics"][METRIC.name], line["counts"][METRIC.name]) == (0.9, 1)  # not 0.767
        assert (line["categories"], line["seeds"]) == (2, [0, 1])
        assert console(records) == {"clip": "90.0 [1 of 2]"}
        entry = in_table(store)["clip"]
        assert (entry["value"], entry["count"], entry["of"]) == ("90.0", "1", "2")
        shown = in_report(store)["clip"]
        assert (shown["value"], shown["count"], shown["of"]) == (90.0, 1, 2)


def test_what_was_not_computed_is_not_undefined() -> None:
    with tempfile.TemporaryDirectory() as folder:
        methods: dict[str, Cells] = {"clip": {("a", 0): MISSING}, "winclip": {("a", 0): None}}
        store, records = written(folder, methods)
        assert console(records) == {"clip": NOT_COMPUTED, "winclip": "–"}
        (line,) = (x for x in summary(records) if x["method"] == "clip")
        assert METRIC.name not in line["metrics"]
        text = tables.render(store.root)
        assert re.search(rf"\({NOT_COMPUTED}, \*\*50.0\*\*\) +\| \(–, ", text)
        assert '"not computed": the records were made without this metric.' in text
        without = {m["label"]: m["without"] for m in collect(store)["boards"][0]["methods"]}
        optional = [m.name for m in spec.METRICS.values() if m.optional]
        assert without == {"clip": [METRIC.name, *optional], "winclip": optional}


VALUES = st.one_of(st.none(), st.just(MISSING), st.floats(0, 1))
CELLS = st.dictionaries(
    st.tuples(st.sampled_from("abc"), st.sampled_from([0, 1, 2])), VALUES, min_size=1
)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.sampled_from(["alfa", "clip"]), CELLS, min_size=1))
def test_all_four_places_agree_for_every_pattern(methods: dict[str, Cells]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store, records = written(folder, methods)
        shown, table, report = console(records), in_table(store), in_report(store)
        for line in summary(records):
            method, value = line["method"], line["metrics"].get(METRIC.name)
            entry = table[method]
            if value is None:
                absent = all(v == MISSING for v in methods[method].values())
                assert shown[method].split(" [")[0] == (NOT_COMPUTED if absent else "–")
                assert entry["value"] == ""
                assert method not in report
                continue
            assert float(entry["value"]) == report[method]["value"] == round(100 * value, 4)
            count, of = line["counts"][METRIC.name], line["categories"]
            assert (int(entry["count"]), int(entry["of"])) == (count, of)
            missing = f" [{count} of {of}]" if count != of else ""
            assert shown[method] == f"{100 * value:.1f}{missing}"

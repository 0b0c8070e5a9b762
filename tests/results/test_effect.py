"""Ablation rows whose switch changed nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.tables.test_tables import record
from zsad.results.effect import without_effect
from zsad.results.records import CellRecord
from zsad.results.store import ResultStore


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"config": {"boxes": True}}, [("m@b", "m@a")]),
        ({"config": {"boxes": True}, "auroc": 0.6}, []),  # a metric of the maps differs
        ({"config": {"boxes": True}, "score": 0.8}, []),  # a score does
        ({"config": {"boxes": True}, "method": "n@b"}, []),  # another method's row
        ({"config": {"boxes": False}}, []),  # one experiment under two labels
        ({"config": {"boxes": False, "preset": "other"}}, []),
    ],
)
def test_equal_rows_of_different_configs(
    tmp_path: Path, changed: dict[str, Any], found: list[tuple[str, str]]
) -> None:
    store = ResultStore(tmp_path)
    rows: dict[str, dict[tuple[str, str, int], CellRecord]] = {}
    plain = {"method": "m@a", "config": {"boxes": False}, "auroc": 0.5, "score": 0.9}
    for one in (plain, {**plain, "method": "m@b", **changed}):
        made = record(one["method"], auroc=one["auroc"], config=one["config"])
        columns = {"uid": ["a", "b"], "label": [0, 1], "defect": ["", "x"], "path": ["a", "b"]}
        store.put(made, {**columns, "score": [0.1, one["score"]]})
        rows[made.method] = {("mine", "a", 0): made}
    assert without_effect(store, rows) == found

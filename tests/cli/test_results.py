"""``zsad results``: everything that a folder holds is listed, and goes only on request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.report.conftest import put
from tests.tables.test_columns import winclip
from zsad.cli.main import main
from zsad.results import examples
from zsad.results.records import CellKey
from zsad.results.store import ResultStore, key_of


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    """A default run, an overridden one that set it aside, and a cell that failed."""
    store = ResultStore(tmp_path)
    store.put(winclip(0.9))
    store.put(winclip(0.6, temperature=0.5))
    store.fail(CellKey("alfa", "mine", "a", 0, "x"), "a.png: cannot be opened")
    return store


def listed(store: ResultStore, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["results", "list", "--results", str(store.root), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_what_was_set_aside_is_listed(
    store: ResultStore, capsys: pytest.CaptureFixture[str]
) -> None:
    found = listed(store, capsys)["results"]
    assert [(r["title"], r["records"], r["set_aside"]) for r in found] == [
        ("WinCLIP", 1, 1),
        ("WinCLIP [temperature=0.5]", 1, 0),
    ]
    assert main(["results", "list", "--results", str(store.root)]) == 0
    text = capsys.readouterr().out
    assert "WinCLIP [temperature=0.5]" in text
    assert "alfa on mine/a, seed 0: a.png: cannot be opened" in text


def test_an_entry_is_shown_with_its_files(
    store: ResultStore, capsys: pytest.CaptureFixture[str]
) -> None:
    name = listed(store, capsys)["results"][1]["id"]
    assert main(["results", "show", name, "--results", str(store.root)]) == 0
    text = capsys.readouterr().out
    assert "temperature: 0.5" in text
    assert "cells/winclip/mine/0/a.json" in text


def test_only_what_is_named_is_removed(
    store: ResultStore, capsys: pytest.CaptureFixture[str]
) -> None:
    aside, newest = listed(store, capsys)["results"]
    assert main(["results", "remove", newest["id"], "--results", str(store.root)]) == 0
    assert [r["id"] for r in listed(store, capsys)["results"]] == [aside["id"]]
    (cell,) = store.cells()
    assert store.has(key_of(cell.record))  # what was set aside is still found
    assert main(["results", "remove", "failures", "--results", str(store.root)]) == 0
    assert listed(store, capsys)["failures"] == []
    assert [r["id"] for r in listed(store, capsys)["results"]] == [aside["id"]]


def test_scores_and_pictures_go_with_the_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ResultStore(tmp_path)
    key = put(store, "clip", "plain", 0.5)
    (entry,) = listed(store, capsys)["results"]
    assert main(["results", "remove", entry["id"], "--results", str(tmp_path)]) == 0
    assert not examples.path_of(tmp_path, key).exists()
    assert not list((tmp_path / "scores").rglob("*.parquet"))
    assert not store.has(key)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["remove", "nothing"], "no results with the id 'nothing'"),
        (["remove"], "needs an ID of `zsad results list`"),
        (["list", "abc"], "takes no 'abc'"),
    ],
)
def test_a_wrong_request_removes_nothing(
    store: ResultStore, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["results", *words, "--results", str(store.root)]) == 2
    assert message in capsys.readouterr().err
    assert len(list(store.cells())) == 2

"""Files that change between runs are noticed, whatever their size says."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.runner.conftest import write_dataset
from zsad.data import provenance
from zsad.data.folder_dataset import folder_spec
from zsad.data.index import DatasetIndex, load_index


@pytest.fixture
def things(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "things", count=2)


def index_of(folder: Path) -> DatasetIndex:
    return load_index(folder_spec(folder))


def noted(things: Path, results: Path) -> DatasetIndex:
    index = index_of(things)
    for category in index.categories:
        members = [s for s in index.samples if s.category == category and s.split == "test"]
        provenance.note(results, index, category, members)
    return index


def fingerprint(things: Path, results: Path) -> str:
    return provenance.checked(results, index_of(things)).fingerprint


def change(path: Path) -> bytes:
    """Turn over one bit, at another time; return what was there."""
    before = path.read_bytes()
    path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    later(path)
    return before


def later(path: Path) -> None:
    time = path.stat().st_mtime_ns + 1_000_000_000
    os.utime(path, ns=(time, time))


@pytest.mark.parametrize("name", ["bolt/test/spot/001.png", "bolt/ground_truth/spot/001_mask.png"])
def test_a_changed_bit_changes_the_fingerprint(
    things: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    results = tmp_path / "results"
    index = noted(things, results)
    assert fingerprint(things, results) == index.fingerprint
    before = change(things / name)
    assert index_of(things).fingerprint == index.fingerprint  # sizes do not tell
    changed = fingerprint(things, results)
    assert changed != index.fingerprint
    assert name in caplog.text
    caplog.clear()
    assert fingerprint(things, results) == changed
    assert caplog.text == ""  # said once
    (things / name).write_bytes(before)
    later(things / name)
    assert fingerprint(things, results) == index.fingerprint
    assert caplog.text == ""


def test_another_time_alone_changes_nothing(things: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    index = noted(things, results)
    for path in things.rglob("*.png"):
        later(path)
    assert fingerprint(things, results) == index.fingerprint


def test_the_folder_of_the_data_may_move(things: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    index = noted(things, results)
    other = tmp_path / "elsewhere" / "things"
    shutil.copytree(things, other, copy_function=shutil.copy)
    index_there = index_of(other)
    assert provenance.checked(results, index_there).fingerprint == index.fingerprint
    change(other / "cloth/test/good/000.png")
    assert provenance.checked(results, index_there).fingerprint != index.fingerprint


def test_what_results_do_not_depend_on_may_change(things: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    index = noted(things, results)
    change(things / "bolt/train/good/000.png")
    assert fingerprint(things, results) == index.fingerprint
    assert fingerprint(things, tmp_path / "other results") == index.fingerprint


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"a": 1}', '{"a": [1, 2, 3]}', '{"a": "bcde"}']
)
def test_a_broken_account_is_begun_anew(things: Path, tmp_path: Path, content: str) -> None:
    results = tmp_path / "results"
    index = noted(things, results)
    for path in (results / "inputs").rglob("*.json"):
        path.write_text(content)
    assert fingerprint(things, results) == index.fingerprint
    noted(things, results)
    change(things / "bolt/test/good/000.png")
    assert fingerprint(things, results) != index.fingerprint


def test_absent_files_are_left_out(things: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    index = noted(things, results)
    (things / "bolt/test/good/000.png").unlink()
    assert provenance.checked(results, index).fingerprint == index.fingerprint
    samples = [s for s in index.samples if s.category == "bolt"]
    provenance.note(results, index, "bolt", samples)


def test_where_nothing_can_be_written_a_warning_says_so(
    things: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "results").write_text("a file")
    noted(things, tmp_path / "results")
    assert "cannot be written" in caplog.text

"""The results store: nothing is lost, nothing is half, broken files stop nobody."""

from __future__ import annotations

import dataclasses
import json
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zsad.errors import CellError, DataError
from zsad.results import store as store_module
from zsad.results.records import CellKey, CellRecord
from zsad.results.store import ResultStore, key_of, safe_name

ROOT = Path(__file__).resolve().parents[2]


def record(fingerprint: str = "f1", category: str = "bottle", **changes: object) -> CellRecord:
    base = CellRecord(
        method="winclip",
        dataset="mvtec",
        category=category,
        seed=0,
        fingerprint=fingerprint,
        metrics={"image_auroc": 0.91, "pixel_aupro": None},
        undefined={"pixel_aupro": "no masks"},
        n_normal=20,
        n_anomalous=63,
        seconds={"encode": 1.5},
        info={"backbone": "zsad-tiny"},
    )
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def scores(value: float = 0.3) -> dict[str, list[object]]:
    return {
        "uid": ["test/good/000", "test/broken/000"],
        "label": [0, 1],
        "defect": ["", "broken"],
        "score": [0.1, value],
        "path": ["bottle/test/good/000.png", None],
    }


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    return ResultStore(tmp_path / "results")


def test_what_is_put_comes_back(store: ResultStore) -> None:
    path = store.put(record(), scores())
    assert path == store.root / "cells/winclip/mvtec/0/bottle.json"
    key = key_of(record())
    assert store.has(key)
    assert store.get(key) == record()
    assert list(store.records()) == [record()]
    frame = store.scores(key)
    assert frame is not None
    assert frame["score"].tolist() == [0.1, 0.3]
    assert (store.root / "scores/winclip/mvtec/0/bottle.parquet").is_file()


def test_another_fingerprint_is_another_cell(store: ResultStore) -> None:
    store.put(record("f1"), scores(0.1))
    assert not store.has(dataclasses.replace(key_of(record()), fingerprint="f2"))
    with pytest.raises(DataError, match="no record with fingerprint f2"):
        store.get(key_of(record("f2")))


def test_a_new_fingerprint_keeps_the_earlier_record(store: ResultStore) -> None:
    store.put(record("f1"), scores(0.1))
    store.put(record("f2"), scores(0.2))
    assert [r.fingerprint for r in store.records()] == ["f2"]
    assert [(c.record.fingerprint, c.current) for c in store.cells()] == [
        ("f2", True),
        ("f1", False),
    ]
    for name, value in (("f1", 0.1), ("f2", 0.2)):
        assert store.has(key_of(record(name)))
        frame = store.scores(key_of(record(name)))
        assert frame is not None
        assert frame["score"][1] == value


def test_promote_makes_an_earlier_record_the_newest(store: ResultStore) -> None:
    store.put(record("f1"), scores(0.1))
    store.put(record("f2"))
    store.promote(key_of(record("f1")))
    store.promote(key_of(record("absent")))
    assert [r.fingerprint for r in store.records()] == ["f1"]
    assert store.has(key_of(record("f2")))
    frame = store.scores(key_of(record("f1")))
    assert frame is not None
    assert frame["score"][1] == 0.1
    assert store.scores(key_of(record("f2"))) is None


def test_putting_again_replaces_scores_too(store: ResultStore) -> None:
    store.put(record(), scores(0.1))
    store.put(record())
    assert store.scores(key_of(record())) is None
    assert len(list(store.cells())) == 1


def test_scores_of_more_images_than_the_cell_has_are_not_read(store: ResultStore) -> None:
    """A file of some hundred bytes can hold equal rows for all memory."""
    store.put(record(), scores())
    (path,) = store.root.glob("scores/**/*.parquet")
    frame = pd.read_parquet(path)
    pd.concat([frame] * 2000).to_parquet(path, index=False)
    with pytest.raises(DataError, match=r"\.parquet: cannot be read \([\d,]+ rows for [\d,]+ im"):
        store.scores(key_of(record()))


def test_nan_is_written_as_null_with_a_reason(store: ResultStore) -> None:
    path = store.put(record(metrics={"image_auroc": float("nan"), "image_ap": 1.0}, undefined={}))
    raw = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(name))
    assert raw["metrics"] == {"image_auroc": None, "image_ap": 1.0}
    assert store.get(key_of(record())).undefined == {
        "image_auroc": "the value is not a finite number"
    }


def test_a_record_of_another_cell_is_not_served(store: ResultStore) -> None:
    """Copied to another method's place, or changed by hand: it stood in that method's row."""
    path = store.put(record())
    path.write_text(json.dumps({**json.loads(path.read_text()), "method": "another"}))
    assert not store.has(key_of(record()))
    store.put(record())
    assert store.get(key_of(record())).method == record().method
    assert len(list(store.cells())) == 1


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"metrics": {"image_auroc": 91.8}}, "image_auroc 91.8 does not lie in 0..1"),
        ({"metrics": {"image_auroc": -0.2}}, "image_auroc -0.2 does not lie in 0..1"),
        ({"n_normal": -3}, "a number of images is negative"),
    ],
)
def test_figures_that_cannot_be_are_no_record(
    store: ResultStore, caplog: pytest.LogCaptureFixture, changed: dict[str, object], said: str
) -> None:
    """A percentage that was written in by hand was printed as 9180.0."""
    path = store.put(record())
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
    assert not list(store.records())
    assert said in caplog.text


def test_broken_files_are_named_and_skipped(
    store: ResultStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.put(record(category="good"))
    half = store.put(record(category="half"))
    half.write_text(half.read_text()[:40])
    lacking = store.put(record(category="lacking"))
    lacking.write_text('{"method": "winclip"}')
    other = store.put(record(category="other"))
    other.write_text("[1, 2]")
    with caplog.at_level(logging.WARNING):
        assert [r.category for r in store.records()] == ["good"]
    assert store.broken() == [half, lacking, other]
    for path in (half, lacking, other):
        assert str(path) in caplog.text
    assert not store.has(key_of(record(category="half")))
    store.put(record(category="half"))  # computed again
    assert store.has(key_of(record(category="half")))


def test_a_broken_newest_file_does_not_hide_the_earlier_record(store: ResultStore) -> None:
    store.put(record("f1"))
    store.put(record("f2")).write_text("{")
    assert store.has(key_of(record("f1")))
    store.put(record("f3"))
    assert sorted(c.record.fingerprint for c in store.cells()) == ["f1", "f3"]


def test_a_record_that_the_system_withholds_is_not_replaced(
    store: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too many open files, a disk that fails for a while: what is there may be whole."""
    path = store.put(record("f1"), scores())
    store.write_manifest({"id": "a"})
    before = path.read_bytes(), (store.root / "manifest.json").read_bytes()
    reading = Path.read_text

    def withheld(self: Path, *args: object, **kwargs: object) -> str:
        if self.suffix == ".json":
            raise OSError(24, "Too many open files", str(self))
        return reading(self, *args, **kwargs)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", withheld)
        message = "Too many open files\\); it is not replaced, fix this first"
        with pytest.raises(CellError, match=message):
            store.put(record("f2"), scores())
        with pytest.raises(CellError, match=message):
            store.write_manifest({"id": "b"})
    assert (path.read_bytes(), (store.root / "manifest.json").read_bytes()) == before


def test_scores_for_which_no_memory_is_left_are_not_called_broken(
    store: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(record(), scores())

    def exhausted(path: Path) -> pd.DataFrame:
        raise MemoryError("malloc of size 3584 failed")

    monkeypatch.setattr(pd, "read_parquet", exhausted)
    with pytest.raises(MemoryError):
        store.scores(key_of(record()))


def test_a_name_that_the_file_system_takes_for_another_costs_its_cell(store: ResultStore) -> None:
    """``Bottle`` and ``bottle`` are one file on Windows and macOS: here the other's record lies in
    its place."""
    path = store.put(record("f1"), scores())
    other = path.with_name("Bottle.json")
    path.rename(other)
    with pytest.raises(CellError, match="is the record of winclip, mvtec, bottle, whose name"):
        store.put(record("f2", "Bottle"), scores())
    assert json.loads(other.read_text())["category"] == "bottle"


def test_failures_are_remembered_until_the_cell_succeeds(store: ResultStore) -> None:
    key = key_of(record())
    store.fail(key, DataError("bottle/000.png: cannot be opened"))
    store.fail(dataclasses.replace(key, category="cable"), "out of memory", "OutOfMemoryError")
    found = store.failures()
    assert [(f.category, f.kind) for f in found] == [
        ("bottle", "DataError"),
        ("cable", "OutOfMemoryError"),
    ]
    assert found[0].error == "bottle/000.png: cannot be opened"
    store.put(record())
    assert [f.category for f in store.failures()] == ["cable"]
    store.clear_failure(dataclasses.replace(key, category="cable"))
    assert store.failures() == []


def test_a_full_disk_fails_the_cell_and_leaves_the_store_whole(
    store: ResultStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store.put(record("f1"), scores(0.1))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CellError, match=r"bottle\.json: cannot be written \(No space left"):
        store.put(record("f2"), scores(0.2))
    store.fail(key_of(record("f2")), "No space left on device")
    assert "cannot be written" in caplog.text
    monkeypatch.undo()
    assert store.get(key_of(record("f1"))) == record("f1")
    assert not store.has(key_of(record("f2")))
    assert store.broken() == []


def test_scores_with_wrong_columns_or_absolute_paths_are_refused(store: ResultStore) -> None:
    with pytest.raises(ValueError, match="lack the columns defect, path"):
        store.put(record(), pd.DataFrame({"uid": [], "label": [], "score": []}))
    with pytest.raises(ValueError, match="relative to the dataset"):
        store.put(record(), {**scores(), "path": ["/data/x.png", None]})
    assert not store.has(key_of(record()))


def test_manifest_merges_runs_by_id(store: ResultStore) -> None:
    assert store.manifest() == {"format": 1, "runs": []}
    store.write_manifest({"id": "a", "device": "cpu"})
    store.write_manifest({"id": "b", "device": "cuda"})
    store.write_manifest({"id": "a", "device": "cpu", "finished": True})
    assert store.manifest()["runs"] == [
        {"id": "a", "device": "cpu", "finished": True},
        {"id": "b", "device": "cuda"},
    ]


@pytest.mark.parametrize(
    "name", ["a/b", "..", ".hidden", "filo[no boxes]", "a@b", "ü", "x\\y", "A%2F"]
)
def test_any_name_is_one_safe_path_component(store: ResultStore, name: str) -> None:
    path = store.put(record("f0", method=name, dataset=name, category=name), scores())
    path = store.put(record("f1", method=name, dataset=name, category=name), scores())
    assert path.relative_to(store.root).parts[0] == "cells"
    assert len(path.relative_to(store.root).parts) == 5
    assert [r.category for r in store.records()] == [name]


@given(st.lists(st.text(min_size=1), unique=True))
def test_different_names_have_different_paths(names: list[str]) -> None:
    safe = [safe_name(n) for n in names]
    assert len(set(safe)) == len(safe)
    assert all("/" not in s and "\\" not in s and s not in ("", ".", "..") for s in safe)


def _put_many(root: str, worker: int) -> None:
    store = ResultStore(root)
    for i in range(12):
        store.put(record(f"f{worker}-{i}"), scores(worker + i / 100))
        store.write_manifest({"id": f"{worker}-{i}"})


def test_two_processes_at_once_lose_nothing(store: ResultStore) -> None:
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=_put_many, args=(str(store.root), w)) for w in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [w.exitcode for w in workers] == [0, 0]
    assert len(list(store.cells())) == 24
    assert len(list(store.records())) == 1
    assert len(store.manifest()["runs"]) == 24
    for worker in range(2):
        for i in range(12):
            frame = store.scores(key_of(record(f"f{worker}-{i}")))
            assert frame is not None
            assert frame["score"][1] == worker + i / 100


@pytest.mark.fault
def test_a_kill_at_any_moment_leaves_whole_records(store: ResultStore) -> None:
    code = (
        "import sys; from tests.results.test_store import *\n"
        f"store = ResultStore({str(store.root)!r})\n"
        "print('go', flush=True); i = 0\n"
        "while True:\n"
        "    store.put(record(f'f{i % 3}', category=f'c{i % 5}'), scores(i)); i += 1\n"
    )
    for delay in (0.02, 0.05, 0.11):
        process = subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "go\n"
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert store.broken() == []
        for cell in store.cells():
            key = key_of(cell.record)
            assert store.has(key)
            frame = store.scores(key)
            assert frame is None or len(frame) == 2
    store.put(record("f9", category="c0"))  # the lock died with its owner
    assert not list(store.root.glob("cells/*/*/*/.c0.json.*.tmp"))


def test_an_empty_or_absent_folder_is_an_empty_store(store: ResultStore) -> None:
    assert list(store.cells()) == []
    assert store.failures() == []
    assert not store.has(CellKey("m", "d", "c", 0, "f"))


def test_names_may_not_be_empty() -> None:
    with pytest.raises(ValueError, match="needs a name"):
        store_module.safe_name("")

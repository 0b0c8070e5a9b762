"""A disk that is full or may not be written: one line, and whatever was stored is whole."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fault.place import Place, assert_same, document, leftovers, numbers, written
from tests.fault.process import Done, FileSizeLimit, obey_permissions, zsad

pytestmark = pytest.mark.fault

ROOT = Path(__file__).resolve().parents[2]


def complaints(done: Done) -> list[str]:
    return [line for line in done.err.splitlines() if line.startswith("zsad: error:")]


# ---------------------------------------------------------------------------------- full disks
@pytest.mark.slow
def test_a_sweep_on_a_full_disk_goes_on_when_there_is_room(
    place: Place, whole: Done, tmp_path: Path
) -> None:
    full = zsad(*place.bench(tmp_path), setup=FileSizeLimit(1500))
    assert full.code == 3
    failed = document(full)["failed"]
    assert all("cannot be written (File too large)" in f["error"] for f in failed)
    assert {"file": "manifest.json"} in [f["cell"] for f in failed]
    assert len(failed) > 1
    assert leftovers(tmp_path) == []
    again = zsad(*place.bench(tmp_path))
    assert again.code == 0
    assert_same(numbers(again), numbers(whole))


def test_output_that_cannot_be_written_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "zsad", "list", "methods", "--json"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr == (
        "zsad: error: standard output: No space left on device; "
        "fix this, then run the same command again\n"
    )


def test_a_training_on_a_full_disk_goes_on_when_there_is_room(place: Place, tmp_path: Path) -> None:
    full = zsad(*place.train(tmp_path, "--seeds", "0"), setup=FileSizeLimit(4000))
    assert full.code == 3
    (failure,) = document(full)["failed"]
    assert "safetensors: cannot be written (File too large)" in failure["error"]
    assert "resume.pt: cannot be written" in full.err  # a warning: training needs no disk
    again = zsad(*place.train(tmp_path, "--seeds", "0"))
    assert again.code == 0
    assert len(written(tmp_path, "checkpoints/*/*.safetensors")) == 1
    assert leftovers(tmp_path) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with room for almost nothing."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("file systems may not be mounted here; limits on files cover the same")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_file_system_without_room(place: Place, whole: Done, small_disk: Path) -> None:
    full = zsad(*place.bench(small_disk))
    assert full.code == 3
    failed = document(full)["failed"]
    assert any("No space left on device" in f["error"] for f in failed)
    subprocess.run(["mount", "-o", "remount,size=32m", str(small_disk)], check=True)
    again = zsad(*place.bench(small_disk))
    assert again.code == 0
    assert_same(numbers(again), numbers(whole))
    subprocess.run(["mount", "-o", "remount,size=4k", str(small_disk)], check=False)
    (small_disk / "rest").write_bytes(b"")
    for verb in ("tables", "report"):
        done = zsad(verb, "--results", str(small_disk), setup=FileSizeLimit(100))
        assert done.code == 2
        assert len(complaints(done)) == 1


# ----------------------------------------------------------------- folders that are not writable
@pytest.mark.parametrize("verb", ["bench", "train"])
def test_a_read_only_results_folder_is_refused_before_any_work(
    place: Place, tmp_path: Path, verb: str
) -> None:
    results = tmp_path / "results"
    results.mkdir()
    results.chmod(0o555)
    done = zsad(*getattr(place, verb)(results), setup=obey_permissions)
    assert done.code == 2
    assert complaints(done) == [
        f"zsad: error: --results {results}: cannot be written (Permission denied); "
        "give another folder"
    ]


def test_a_read_only_corner_of_the_results_costs_its_cells(place: Place, tmp_path: Path) -> None:
    (tmp_path / "cells" / "clip").mkdir(parents=True)
    (tmp_path / "cells" / "clip").chmod(0o555)
    done = zsad(*place.bench(tmp_path), setup=obey_permissions)
    assert done.code == 3
    assert {c["method"] for c in document(done)["cells"]} == {"winclip"}
    assert {f["cell"]["method"] for f in document(done)["failed"]} == {"clip"}
    assert all("Permission denied" in f["error"] for f in document(done)["failed"])


def test_a_dataset_that_may_not_be_written_is_enough(own_place: Place, tmp_path: Path) -> None:
    for folder in (own_place.root, *own_place.root.rglob("*")):
        folder.chmod(0o555 if folder.is_dir() else 0o444)
    done = zsad(*own_place.bench(tmp_path / "results"), setup=obey_permissions)
    own_place.root.chmod(0o755)
    assert done.code == 0


def test_results_below_a_file(place: Place, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    done = zsad(*place.bench(tmp_path / "file" / "results"))
    assert done.code == 2
    assert len(complaints(done)) == 1
    assert "file/results: cannot be written" in done.err

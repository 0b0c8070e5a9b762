"""A disk that is full or may not be written: one line, and whatever was stored is whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


@pytest.mark.parametrize("existing", [True, False])
def test_a_read_only_output_folder_is_refused_before_any_work(
    place: Place, tmp_path: Path, existing: bool
) -> None:
    tmp_path.chmod(0o555)
    out = tmp_path if existing else tmp_path / "new"
    done = zsad(*place.predict(out), setup=obey_permissions)
    tmp_path.chmod(0o755)
    assert (done.code, done.out) == (2, "")
    assert complaints(done) == [
        f"zsad: error: --out {out}: cannot be written (Permission denied); give another folder"
    ]


def test_predictions_on_a_full_disk_are_one_line(place: Place, tmp_path: Path) -> None:
    done = zsad(*place.predict(tmp_path / "out"), setup=FileSizeLimit(300))
    assert done.code == 2
    assert len(complaints(done)) == 1
    assert "000.heat.webp: cannot be written (File too large)" in done.err
    assert [p for p in (tmp_path / "out").rglob("*") if p.is_file()] == []


def test_a_log_that_cannot_be_written_ends_no_training(place: Place, small_disk: Path) -> None:
    """Lightning lets a logger end a training: on a full disk it is left out, and what fails is
    the checkpoint, by name."""
    (small_disk / "rest").write_bytes(b"0" * 60_000)
    done = zsad(*place.train(small_disk / "results", "--seeds", "0"))
    assert done.code == 3
    (failure,) = document(done)["failed"]
    assert ".safetensors: cannot be written (No space left on device)" in failure["error"]


def test_read_only_file_systems_are_one_line(place: Place, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    results = small_disk / "results"
    assert zsad(*place.bench(results)).code == 0
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    words = [
        *(place.bench(results), place.train(results), place.predict(small_disk / "out")),
        *(["tables", "--results", str(results)], ["report", "--results", str(results)]),
    ]
    for argv in words:
        done = zsad(*argv)
        assert (done.code, len(complaints(done))) == (2, 1), argv
        assert "Read-only file system" in done.err
    for argv in (place.bench(results, "--dry-run"), ["results", "list", "--results", str(results)]):
        assert zsad(*argv).code == 0, argv


# ------------------------------------------------------------------ what others do meanwhile
def test_files_that_are_links_are_not_written_through(place: Place, tmp_path: Path) -> None:
    """In a folder that several people share, nobody makes us write to a file of his choice."""
    results, victim = tmp_path / "results", tmp_path / "victim"
    cell = "cells/clip/faulty/0/bolt.json"
    names = ("run.log", "manifest.json", cell)
    for name in names:
        (results / name).parent.mkdir(parents=True, exist_ok=True)
        victim.with_name(f"victim-{Path(name).name}").write_text("precious")
        (results / name).symlink_to(victim.with_name(f"victim-{Path(name).name}"))
    assert zsad(*place.bench(results, methods="clip")).code == 0
    for name in names:
        assert victim.with_name(f"victim-{Path(name).name}").read_text() == "precious"
    assert not (results / cell).is_symlink()
    (results / ".lock").symlink_to(victim)
    done = zsad(*place.bench(results, methods="clip"))
    assert (done.code, victim.exists()) == (2, False)
    assert len(complaints(done)) == 1


@dataclass(frozen=True)
class Vanishing:
    """Somebody moves ``path`` away in the moment that the folder ``when`` is made."""

    path: Path
    when: Path

    def __call__(self) -> None:
        def look(event: str, args: tuple[Any, ...]) -> None:
            if event == "os.mkdir" and str(args[0]) == str(self.when) and self.path.exists():
                os.rename(self.path, f"{self.path}.gone")

        sys.addaudithook(look)


def test_a_picture_that_vanishes_meanwhile_costs_itself(own_place: Place, tmp_path: Path) -> None:
    gone = own_place.images / "bolt" / "test" / "good" / "002.png"
    words = own_place.predict(tmp_path / "out")
    done = zsad(*words, setup=Vanishing(gone, tmp_path / "out"))
    assert done.code == 3
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert [r["path"] for r in lines if "error" in r] == [str(gone)]
    assert "no such file" in next(r["error"] for r in lines if "error" in r)
    assert len(lines) == 8


def test_an_image_that_vanishes_meanwhile_costs_its_category(
    own_place: Place, tmp_path: Path
) -> None:
    gone = own_place.images / "cloth" / "test" / "good" / "002.png"
    results = tmp_path / "results"
    setup = Vanishing(gone, results / "inputs")  # all images are known by now
    done = zsad(*own_place.bench(results, methods="clip"), setup=setup)
    assert done.code == 3
    assert [c["category"] for c in document(done)["cells"]] == ["bolt"]
    (failure,) = document(done)["failed"]
    assert f"{gone}: no such file" in failure["error"]

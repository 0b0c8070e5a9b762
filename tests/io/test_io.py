"""Atomic writes, locks and stable JSON."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zsad import io
from zsad.errors import DataError, RequestError


def test_atomic_write_makes_folders_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = io.atomic_write_text(tmp_path / "a" / "b.txt", "größe")
    assert path.read_bytes() == "größe".encode()
    assert os.listdir(path.parent) == ["b.txt"]


def test_a_folder_to_write_in_is_made_and_left_empty(tmp_path: Path) -> None:
    io.require_writable(tmp_path / "a" / "b", "--out a/b")
    assert os.listdir(tmp_path / "a" / "b") == []


@pytest.mark.parametrize("name, why", [("file/below", "Not a directory"), ("a\0b", "null")])
def test_a_folder_that_nothing_can_be_written_in_is_refused(
    tmp_path: Path, name: str, why: str
) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(
        RequestError, match=rf"^--out x: cannot be written \(.*{why}.*\); give another folder$"
    ):
        io.require_writable(tmp_path / name, "--out x")


def test_atomic_write_keeps_the_old_content_when_the_disk_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = io.atomic_write_text(tmp_path / "x", "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        io.atomic_write_text(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["x"]


def test_written_files_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        path = io.atomic_write_text(tmp_path / "x", "")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640


def test_json_is_stable_and_has_no_nan() -> None:
    value = {"b": float("nan"), "a": [np.float32(0.5), np.int64(3), float("inf")], "p": Path("x/y")}
    assert io.dump_json(value, indent=None) == '{"a": [0.5, 3, null], "b": null, "p": "x/y"}'


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_dumped_json_is_strict_and_loses_only_numbers_that_are_not_finite(value: object) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(name)

    loaded = json.loads(io.dump_json(value), parse_constant=refuse)
    assert loaded == io.finite(value)


def test_objects_are_not_turned_into_text() -> None:
    with pytest.raises(TypeError, match="object cannot be written as JSON"):
        io.dump_json({"x": object()})


def test_read_json_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    path.write_text('{"a": 1,\n"b": }')
    with pytest.raises(DataError, match=r"broken\.json, line 2: not valid JSON"):
        io.read_json(path)
    with pytest.raises(DataError, match=r"absent\.json: no such file"):
        io.read_json(tmp_path / "absent.json")


def test_sha256_of_a_known_text(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")  # the example of FIPS 180-2
    assert io.sha256_file(tmp_path / "abc") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


def _count_up(path: str, times: int) -> None:
    for _ in range(times):
        with io.file_lock(Path(path) / "lock"):
            counter = Path(path) / "counter"
            value = int(counter.read_text())
            time.sleep(0.001)  # an unlocked reader would see the same value
            counter.write_text(str(value + 1))


@pytest.mark.parametrize("kind", [filelock.FileLock, filelock.SoftFileLock])
def test_lock_excludes_other_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[filelock.BaseFileLock]
) -> None:
    monkeypatch.setattr(io, "FileLock", kind)  # soft: where a system has no locks of its own
    (tmp_path / "counter").write_text("0")
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=_count_up, args=(str(tmp_path), 20)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert [w.exitcode for w in workers] == [0, 0, 0]
    assert (tmp_path / "counter").read_text() == "60"
    assert os.listdir(tmp_path) == ["counter"]


def test_a_held_lock_is_an_error_after_the_timeout(tmp_path: Path) -> None:
    with (
        io.file_lock(tmp_path / "lock"),
        pytest.raises(DataError, match="locked by another process"),
        io.file_lock(tmp_path / "lock", timeout=0.05),
    ):
        pass


@pytest.mark.parametrize("open_files", [True, False], ids=["posix", "windows"])
def test_the_file_goes_with_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_files: bool
) -> None:
    monkeypatch.setattr(io, "REMOVES_OPEN_FILES", open_files)
    if not open_files:
        _refuse_to_remove_open_files(monkeypatch)
    with io.file_lock(tmp_path / "lock"):
        assert (tmp_path / "lock").is_file()
    assert os.listdir(tmp_path) == []


def _refuse_to_remove_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``Path.unlink`` refuse what this process has open, as Windows does."""
    unlink = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        handles = (f"/proc/self/fd/{n}" for n in os.listdir("/proc/self/fd"))
        if path.exists() and any(os.path.exists(h) and path.samefile(h) for h in handles):
            raise PermissionError(13, "it is open", str(path))
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_on_windows_a_leftover_is_closed_before_it_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "left").touch()
    _refuse_to_remove_open_files(monkeypatch)
    io.remove_leftover(tmp_path / "left")
    assert os.listdir(tmp_path) == ["left"]  # nothing but the right order of things removes it
    monkeypatch.setattr(io, "REMOVES_OPEN_FILES", False)
    with io.file_lock(tmp_path / "lock"):
        io.remove_leftover(tmp_path / "lock")
        assert (tmp_path / "lock").exists()  # it is held
    io.remove_leftover(tmp_path / "left")
    assert os.listdir(tmp_path) == []


def test_a_scratch_folder_where_folders_cannot_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def refuse(path: Any, flags: int, *more: Any, **further: Any) -> int:
        if os.path.isdir(path) and not further:  # `shutil.rmtree` gives dir_fd
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, flags, *more, **further)

    monkeypatch.setattr(os, "open", refuse)
    with io.scratch_folder(tmp_path, "scratch-") as first:
        with io.scratch_folder(tmp_path, "scratch-") as second:
            assert sorted(tmp_path.iterdir()) == sorted([first, second])
        assert list(tmp_path.iterdir()) == [first]
    assert list(tmp_path.iterdir()) == []


def _hold(path: str, ready: Any) -> None:
    with io.file_lock(path):
        ready.set()
        time.sleep(60)


@pytest.mark.parametrize("kind", [filelock.FileLock, filelock.SoftFileLock])
def test_the_lock_of_a_killed_process_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[filelock.BaseFileLock]
) -> None:
    monkeypatch.setattr(io, "FileLock", kind)
    fork = multiprocessing.get_context("fork")
    ready = fork.Event()
    holder = fork.Process(target=_hold, args=(str(tmp_path / "lock"), ready))
    holder.start()
    assert ready.wait(30)
    with pytest.raises(DataError, match="locked by"), io.file_lock(tmp_path / "lock", timeout=0.05):
        pass
    holder.kill()
    holder.join()
    with io.file_lock(tmp_path / "lock", timeout=10):
        pass
    assert os.listdir(tmp_path) == []


def _die_while_writing(path: str, ready: Any) -> None:
    def never_done(_: int) -> None:
        ready.set()
        time.sleep(60)

    os.fsync = never_done  # in this process alone
    io.atomic_write_text(path, "never in its place")


def test_what_a_killed_writer_left_goes_and_what_a_living_one_writes_stays(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    path = tmp_path / "record.json"
    ready = fork.Event()
    writer = fork.Process(target=_die_while_writing, args=(str(path), ready))
    writer.start()
    assert ready.wait(30)
    (temporary,) = tmp_path.glob(".record.json.*.tmp")
    io.atomic_write_text(path, "other")
    assert temporary.exists()  # its writer lives
    writer.kill()
    writer.join()
    io.atomic_write_text(path, "third")
    assert os.listdir(tmp_path) == ["record.json"]


def _die_in_a_scratch_folder(parent: str, ready: Any) -> None:
    with io.scratch_folder(parent, "scratch-") as folder:
        (folder / "inside").write_text("much")
        ready.set()
        time.sleep(60)


def test_a_scratch_folder_whose_empty_parent_another_process_removes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two trainings at once: the one that is done removes the empty cache of both."""
    parent, kept, rounds = tmp_path / "cache", tempfile.mkdtemp, []

    def others_remove_it(**how: Any) -> str:
        if len(rounds) < 3:
            rounds.append(how)
            parent.rmdir()
        return kept(**how)

    monkeypatch.setattr(tempfile, "mkdtemp", others_remove_it)
    with io.scratch_folder(parent, "scratch-") as folder:
        assert folder.is_dir()
    assert len(rounds) == 3
    assert list(parent.iterdir()) == []


def test_scratch_folders_go_with_their_process_or_with_the_next_one(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    ready = fork.Event()
    process = fork.Process(target=_die_in_a_scratch_folder, args=(str(tmp_path), ready))
    process.start()
    assert ready.wait(30)
    (foreign,) = tmp_path.iterdir()
    with io.scratch_folder(tmp_path, "scratch-") as own:
        assert sorted(tmp_path.iterdir()) == sorted([own, foreign])
    assert list(tmp_path.iterdir()) == [foreign]
    process.kill()
    process.join()
    with io.scratch_folder(tmp_path, "scratch-") as own:
        assert list(tmp_path.iterdir()) == [own]
        own.rename(tmp_path / "kept")
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]


@pytest.mark.parametrize(
    "text",
    [
        "1e999",
        "[-1e400]",
        "9" * 5000,
        "[" * 100_000,
        "[" * 400 + "]" * 400,
        '{"a": nul}',
        "\ud800",
        "",
    ],
)
def test_json_without_end_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "odd.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(DataError, match=r"odd\.json") as caught:
        io.read_json(path)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="this system stops no processes")
def test_a_stopped_holder_is_waited_for_once(tmp_path: Path) -> None:
    """A process that is stopped while it holds a lock ends no command, and costs its wait once."""
    path = tmp_path / ".lock"
    reader, writer = os.pipe()
    holder = os.fork()
    if holder == 0:
        with io.file_lock(path):
            os.write(writer, b"held")
            os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    assert os.read(reader, 4) == b"held"
    try:
        for most in (1.0, 600.0):
            begun = time.monotonic()
            with pytest.raises(DataError, match="a stopped one"), io.file_lock(path, most):
                pass
            assert time.monotonic() - begun < 300  # the second wait is one second, not ten minutes
    finally:
        os.kill(holder, signal.SIGCONT)
        os.waitpid(holder, 0)
    with io.file_lock(path):
        pass
    assert not path.exists()


def test_what_is_being_written_is_never_taken_for_a_leftover(tmp_path: Path) -> None:
    """Several processes write one file, over and over; each removes what killed ones left."""
    children = []
    for number in range(4):
        child = os.fork()
        if child == 0:
            try:
                for _ in range(150):
                    io.atomic_write_bytes(tmp_path / "a", bytes([number]) * 100)
            except BaseException:
                os._exit(1)
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0, 0]
    assert len((tmp_path / "a").read_bytes()) == 100
    assert [p.name for p in tmp_path.iterdir()] == ["a"]

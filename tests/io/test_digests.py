"""Hashes that are remembered, and when they are not."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from zsad.io import digests, read_json
from zsad.io.digests import memory_file, remembered_sha256


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file whose last change is long ago, as far as this machine tells, and an empty memory."""
    monkeypatch.setenv("ZSAD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "SETTLED", -1.0)
    monkeypatch.setattr(digests, "in_this_process", {})
    path = tmp_path / "weights.pt"
    path.write_bytes(b"weights")
    return path


def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Counts which files are really read, through the function that reads them."""
    seen: list[Path] = []
    real = digests.sha256_file

    def counted(path: Path) -> str:
        seen.append(path)
        return real(path)

    monkeypatch.setattr(digests, "sha256_file", counted)
    return seen


def test_a_file_is_read_once_by_all_processes(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = reads(monkeypatch)
    assert remembered_sha256(large) == sha(b"weights")
    assert remembered_sha256(large) == sha(b"weights")
    monkeypatch.setattr(digests, "in_this_process", {})  # another process
    assert remembered_sha256(large) == sha(b"weights")
    assert len(seen) == 1


def test_a_changed_file_is_read_again(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = reads(monkeypatch)
    remembered_sha256(large)
    stat = large.stat()
    large.write_bytes(b"WEIGHTS")  # same size, same place, same inode
    os.utime(large, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # and the time is set back
    assert remembered_sha256(large) == sha(b"WEIGHTS")
    other = large.with_name("new")
    other.write_bytes(b"Weights")
    os.replace(other, large)  # another inode
    assert remembered_sha256(large) == sha(b"Weights")
    assert len(seen) == 3


def test_what_was_just_written_is_not_remembered(
    large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "SETTLED", 5.0)
    seen = reads(monkeypatch)
    assert remembered_sha256(large) == remembered_sha256(large) == sha(b"weights")
    assert len(seen) == 2
    assert not memory_file().exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe\x00",
        b"[]",
        b'{"sha256": []}',
        b'{"sha256": {"%s": [1, 2]}}',
        b'{"sha256": {"%s": "abc"}}',
        b'{"sha256": {"%s": [7, 0, 0, 0, "short"]}}',
    ],
)
def test_a_damaged_memory_is_no_evidence(
    large: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory_file().parent.mkdir(parents=True)
    memory_file().write_bytes(content.replace(b"%s", os.fsencode(large)))
    assert remembered_sha256(large) == sha(b"weights")
    held = read_json(memory_file())["sha256"]  # and it is whole again
    assert held[str(large.resolve())][-1] == sha(b"weights")


def test_a_memory_that_cannot_be_written_stops_nothing(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("ZSAD_CACHE", str(tmp_path / "file" / "below"))
    assert remembered_sha256(large) == sha(b"weights")


def test_the_memory_stays_small(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "MOST", 3)
    for i in range(5):
        other = large.with_name(f"{i}.pt")
        other.write_bytes(bytes([i]))
        remembered_sha256(other)
    names = [Path(p).name for p in read_json(memory_file())["sha256"]]
    assert names == ["2.pt", "3.pt", "4.pt"]

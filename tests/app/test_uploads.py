"""Uploaded files: names are text, files stay below their folder, runs are forgotten."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from zsad.app.settings import Choice
from zsad.app.uploads import Run, Runs
from zsad.errors import RequestError

NAMES = [
    "../../etc/passwd", "..\\..\\boot.ini", "/etc/shadow", "..", ".", "", "a.png", "A.png", "nul",
    "<img src=x onerror=1>.png", "x" * 900 + ".png", "\udc80.png", "a\0b.png", "a\n.png", "CON.png",
]  # fmt: skip


def test_whatever_files_are_called_they_lie_below_the_folder(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    run = Run(tmp_path / "run")
    kept = run.keep("pictures", [(name, f"{i}".encode()) for i, name in enumerate(NAMES)])
    assert len({up.path for up in kept}) == len(NAMES)
    for i, up in enumerate(kept):
        assert up.path.read_bytes() == f"{i}".encode()
        assert up.sha256 == hashlib.sha256(f"{i}".encode()).hexdigest()
        assert up.path.resolve().is_relative_to((tmp_path / "run" / "pictures").resolve())
    assert kept[9].name == "<img src=x onerror=1>.png"
    assert {p.name for p in tmp_path.iterdir()} == {"run"}


def test_only_files_of_a_run_can_be_asked_for(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    run = Run(tmp_path / "run")
    run.found.mkdir(parents=True)
    (run.found / "index.html").write_text("page")
    (run.found / "link").symlink_to(tmp_path / "secret")
    run.keep("good", [("a.png", b"x")])
    assert run.file("found", "") == run.found / "index.html"
    for part, inner in [
        ("found", "../../secret"), ("found", "link"), ("found", "/etc/passwd"), ("found", "a\0"),
        ("found", "x" * 9000), ("good", "a.png"), ("..", "secret"), ("found", "."),
    ]:  # fmt: skip
        assert run.file(part, inner) is None, (part, inner)


def test_old_runs_are_removed(tmp_path: Path) -> None:
    runs = Runs(tmp_path, most=2)
    kept = []
    for _ in range(3):
        with runs.one(keep=True) as run:
            run.choice = Choice("winclip", "zsad-tiny")
        kept.append(run)
    assert runs.get(kept[0].id) is None
    assert runs.get(kept[2].id) is kept[2]
    assert {p.name for p in tmp_path.iterdir()} == {kept[1].id, kept[2].id}
    assert runs.get("../" + kept[2].id) is None
    with pytest.raises(ValueError), runs.one(keep=True) as failed:
        raise ValueError
    with runs.one(keep=False) as passing:
        assert passing.folder.is_dir()
    assert not failed.folder.exists()
    assert not passing.folder.exists()


def test_references_of_a_run_that_is_gone(tmp_path: Path) -> None:
    (old := Run(tmp_path / "old")).folder.mkdir()
    held = old.keep("good", [("a.png", b"x")])
    (new := Run(tmp_path / "new")).folder.mkdir()
    (copy,) = new.adopt(held)
    assert (copy.path.read_bytes(), copy.name, copy.sha256) == (b"x", "a.png", held[0].sha256)
    held[0].path.unlink()
    with pytest.raises(RequestError, match="no longer kept"):
        new.adopt(held)

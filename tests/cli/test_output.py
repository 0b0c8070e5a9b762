"""The standard streams: closed, without a reader, of any encoding; what is printed on them."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.hostile import NAMES, TEXTS, is_plain
from zsad.cli import output
from zsad.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
CLOSED = [(0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)]
# How a stream may be set up by whoever starts the program.
SURROUNDINGS: dict[str, dict[str, str | None]] = {
    "ASCII": {"PYTHONIOENCODING": "ascii"},
    "Latin-1": {"PYTHONIOENCODING": "latin-1"},
    "C locale": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "no home": {"HOME": None},
    "no terminal": {"TERM": None, "COLUMNS": "1"},
    "a home that is none": {"HOME": "/dev/null"},
}


# A document and a table, of one process.
BOTH = """
from zsad.cli.main import main
code = main(["list", "datasets", "--json"])
print("\\0")
raise SystemExit(code or main(["list", "datasets"]))
"""


def started(
    *argv: str,
    program: tuple[str, ...] = ("-m", "zsad"),
    closed: tuple[int, ...] = (),
    **surroundings: str | None,
) -> tuple[int, bytes]:
    """Exit code and standard output of a new process."""
    changed = {**os.environ, "PYTHONPATH": str(ROOT), **surroundings}
    environment = {k: v for k, v in changed.items() if v is not None}
    words = " ".join(f"{number}>&-" for number in closed)
    done = subprocess.run(
        ["bash", "-c", f'"$@" {words}', "bash", sys.executable, *program, *argv],
        capture_output=True, env=environment, cwd=ROOT,
    )  # fmt: skip
    assert b"Traceback" not in done.stderr
    assert b"internal error" not in done.stderr
    return done.returncode, done.stdout


@pytest.mark.parametrize("closed", CLOSED, ids=str)
def test_closed_streams_change_no_exit_code(closed: tuple[int, ...]) -> None:
    code, out = started("list", "protocols", "--json", closed=closed)
    assert code == 0
    assert bool(out) == (1 not in closed)
    if 2 in closed:  # an error is said on the one stream that is not there
        assert started("show", "nothing-of-this-name", closed=closed)[0] == 2


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_any_surroundings_will_do(name: str) -> None:
    """One document, which any reader of JSON takes; and a table."""
    code, out = started(program=("-c", BOTH), **SURROUNDINGS[name])
    assert code == 0
    encoding = SURROUNDINGS[name].get("PYTHONIOENCODING") or "utf-8"
    document, table = out.decode(encoding).split("\0")
    assert len(json.loads(document)) > 20
    assert len(table.splitlines()) > 20


def test_a_list_on_a_closed_stream_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    output.open_streams()
    assert output.listed() == []


def test_a_list_takes_any_bytes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / " a .png").touch()
    raw = b"caf\xe9.png\n\n  b.png \r\na\0b.png\n a .png\n\xff\xfe\n" + b"x" * 300
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw), encoding="ascii"))
    assert list(map(os.fsencode, output.listed())) == [
        b"caf\xe9.png", b"b.png", b"a\0b.png", b" a .png", b"\xff\xfe", b"x" * 300
    ]  # fmt: skip


# ------------------------------------------------------------------------ what is printed
@contextmanager
def stream(monkeypatch: pytest.MonkeyPatch, encoding: str) -> Iterator[io.BytesIO]:
    raw = io.BytesIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
        output.open_streams()
        yield raw


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1", "cp1252", "shift_jis"])
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_any_text_is_printed_in_any_encoding(
    text: str, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stream(monkeypatch, encoding) as raw:
        output.print_json({"name": text})
        assert json.loads(raw.getvalue().decode(encoding)) == {"name": text}
        assert is_plain(raw.getvalue().decode(encoding))
    with stream(monkeypatch, encoding) as raw:
        output.say(text)
        output.print_table([text, "b"], [[text, text], [1, text]], title=text)
        found = raw.getvalue().decode(encoding)
        assert is_plain(found)
        assert found.count("\n") == 5


# ---------------------------------------------------------------------- without a reader
@contextmanager
def without_reader(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Standard output is a pipe whose reader has gone."""
    reading, writing = os.pipe()
    os.close(reading)
    with monkeypatch.context() as patch, open(writing, "w", encoding="utf-8") as stdout:
        patch.setattr(sys, "stdout", stdout)
        yield


@pytest.mark.parametrize("argv", [["list", "methods"], ["list", "methods", "--json"], ["--help"]])
def test_a_reader_that_goes_is_quiet(
    argv: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with without_reader(monkeypatch):
        assert main(argv) == 0
    assert capsys.readouterr().err == ""


def test_a_reader_that_goes_hides_no_unfinished_work(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --out every picture is written, broken ones are still told; without, the rest is not
    scored, and the exit code says so."""
    for name in NAMES.values():
        pixels = np.full((40, 40, 3), 90, np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"p{name[:80]}.png", "PNG")
    words = [
        *("predict", "--method", "clip", "--class-name", "nut", str(tmp_path)),
        *("--backbone", "file", "--weights", str(weights), "--device", "cpu"),
    ]
    out = tmp_path / "out"
    with without_reader(monkeypatch):
        assert main(words) == output.UNREAD
        assert main([*words, "--out", str(out)]) == 0
    assert len(list(out.glob("*.heat.webp"))) == len(NAMES)
    (tmp_path / "broken.png").write_bytes(b"-")
    with without_reader(monkeypatch):
        assert main([*words, "--out", str(out)]) == 3


def test_the_verbs_print_by_one_module_alone() -> None:
    """So that no text of a verb reaches a terminal unescaped."""
    for path in (ROOT / "zsad" / "cli").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        if path.name != "output.py":
            assert " print(" not in text, path.name
            assert "sys.stdout.write" not in text, path.name

"""The campaign of hostile commands: what it calls a fault, and a sample of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.fuzz.commands import commands, outside, put, tried

pytestmark = pytest.mark.fault


@pytest.mark.parametrize(
    ("code", "err", "why"),
    [
        (0, "", ""),
        (3, "zsad: note: something\nzsad: error: one\n", ""),
        (2, "zsad: error: clip.x: unknown key\n", ""),
        (1, "", "exit code 1"),
        (-9, "", "exit code -9"),
        (0, "Traceback (most recent call last):\n", "a traceback or an internal error"),
        (2, "zsad: error: internal error, OSError: x\n", "a traceback or an internal error"),
        (2, "zsad: error: a\nzsad: error: b\n", "2 lines of error"),
        (2, "", "no line that says why"),
        (2, "zsad: error: \x1b[31m\n", "control character '\\x1b'"),
        (2, "zsad: error: \u202e\n", "control character '\\u202e'"),
    ],
)
def test_what_is_a_fault(code: int, err: str, why: str) -> None:
    assert outside(code, err) == why


def test_a_few_of_them_keep_the_promise(tmp_path: Path) -> None:
    """Without torch: those that are checked before anything is loaded."""
    put(tmp_path)
    cheap = [words for words in commands() if words[0] in ("data", "show", "results", "run")]
    assert len(list(commands())) > 600
    for words in cheap[::17]:
        assert outside(*tried(words, tmp_path)) == "", words


def test_a_command_that_dies_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(words: list[str]) -> int:
        os.write(2, b"zsad: error: \x07\n")
        os._exit(9)

    monkeypatch.setattr("zsad.cli.main.main", dies)
    assert outside(*tried(["list"], tmp_path)) == "exit code 9"

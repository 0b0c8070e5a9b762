"""All finds of the standing fuzz, and a few seconds of it with a fixed seed."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.fuzz import standing
from tests.fuzz.standing import TARGETS, Target
from zsad.errors import DataError

pytestmark = [pytest.mark.fault, pytest.mark.filterwarnings("ignore")]


@pytest.mark.parametrize("name", TARGETS)
def test_the_whole_corpus_is_taken_or_refused_by_name(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    # with a limit on memory: what an input claims to hold may not be what is asked for
    with standing.Reader(tmp_path, TARGETS) as reader:
        texts = {content: reader.fault(name, content) for content in standing.corpus(target)}
    assert {c[:80]: t for c, t in texts.items() if t} == {}


def test_some_hundred_mutants_are_taken_or_refused_by_name() -> None:
    """The same ones every time, as far as they get in some seconds; `.ci/run` takes
    some thousand."""
    count, finds = standing.run(list(TARGETS), limit=8.0, seed=2026, most=800)
    assert count > 50
    assert finds == []


def test_what_is_found_is_made_small(tmp_path: Path) -> None:
    """A reader with a fault of its own: the find holds what makes it fail and nothing else."""

    def read(path: Path) -> None:
        if b"!" in path.read_bytes():
            raise ZeroDivisionError("not a refusal")
        raise DataError(f"{path}: refused")

    target = Target("fault", lambda: iter([b"x"]), read)
    with standing.Reader(tmp_path, {"fault": target}) as reader:
        assert reader.fault("fault", b"quiet") == ""
        assert reader.fault("fault", b"a!b").startswith("ZeroDivisionError")
        assert standing.minimised("fault", b"abc!" * 9, reader, float("inf")) == b"!"


def test_what_hangs_crashes_or_takes_all_memory_is_found_and_made_small(tmp_path: Path) -> None:
    """As decoders written in C do, which hear no alarm of Python's."""

    def read(path: Path) -> None:
        content = path.read_bytes()
        if b"H" in content:
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
            time.sleep(60)
        if b"A" in content:
            os.abort()
        if b"M" in content:
            bytearray(1 << 32)
        raise DataError(f"{path}: refused")

    target = Target("fault", lambda: iter([b"x"]), read)
    with standing.Reader(
        tmp_path, {"fault": target}, limit=0.1, grace=0.4, memory=1 << 30
    ) as reader:
        assert reader.fault("fault", b"xHx") == "Hang: fault, no end after 0.1 s"
        assert reader.fault("fault", b"xAx") == "Died: fault, SIGABRT"
        assert reader.fault("fault", b"xMx").startswith("MemoryError")
        assert reader.fault("fault", b"xyz") == ""
        assert standing.minimised("fault", b"xxAxxx", reader, float("inf")) == b"A"

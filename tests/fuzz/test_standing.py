"""All finds of the standing fuzz, and a few seconds of it with a fixed seed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz import standing
from tests.fuzz.standing import TARGETS, Target
from zsad.errors import DataError

pytestmark = [pytest.mark.fault, pytest.mark.filterwarnings("ignore")]


@pytest.mark.parametrize("name", TARGETS)
def test_the_whole_corpus_is_taken_or_refused_by_name(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    texts = {
        content: standing.fault(target, content, tmp_path) for content in standing.corpus(target)
    }
    assert {c[:80]: t for c, t in texts.items() if t} == {}


def test_some_hundred_mutants_are_taken_or_refused_by_name() -> None:
    """The same ones every time, as far as they get in a quarter of a minute."""
    count, finds = standing.run(list(TARGETS), limit=15.0, seed=2026, most=1500)
    assert count > 50
    assert finds == []


def test_what_is_found_is_made_small(tmp_path: Path) -> None:
    """A reader with a fault of its own: the find holds what makes it fail and nothing else."""

    def read(path: Path) -> None:
        if b"!" in path.read_bytes():
            raise ZeroDivisionError("not a refusal")
        raise DataError(f"{path}: refused")

    target = Target("fault", lambda: iter([b"x"]), read)
    assert standing.fault(target, b"quiet", tmp_path) == ""
    assert standing.fault(target, b"a!b", tmp_path).startswith("ZeroDivisionError")
    assert standing.minimised(target, b"abc!" * 9, tmp_path, float("inf")) == b"!"

"""A process that is killed anywhere in the store leaves nothing lost, and nothing over."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.fault.process import changes
from tests.results.test_store import record, scores
from zsad.results.store import ResultStore, key_of

pytestmark = [
    pytest.mark.fault,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system forks no processes"),
]

FIRST, SECOND = record("f1"), record("f2")


def killed_at(moment: int, root: Path, work: Callable[[], object]) -> bool:
    """Do ``work`` in a process that dies before its n-th change there; whether it did."""
    child = os.fork()
    if child == 0:
        seen = 0

        def count(event: str, args: tuple[Any, ...]) -> None:
            nonlocal seen
            if changes(event, args, str(root)):
                seen += 1
                if seen == moment:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        try:
            work()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def files(root: Path) -> list[str]:
    found = sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())
    return [name for name in found if not name.endswith(".lock")]  # free, and taken again


BOTH = [
    "cells/winclip/mvtec/0/bottle.json",
    "cells/winclip/mvtec/0/bottle@{}.json",
    "scores/winclip/mvtec/0/bottle.parquet",
    "scores/winclip/mvtec/0/bottle@{}.parquet",
]


@pytest.mark.parametrize("verb", ["put", "promote"])
def test_a_store_that_is_killed_anywhere_keeps_both_records_and_nothing_else(
    tmp_path: Path, verb: str
) -> None:
    """Before every change of a second put, or of making the earlier record the newest again."""
    moment = 0
    died = True
    while died:
        moment += 1
        root = tmp_path / str(moment)
        store = ResultStore(root)
        store.put(FIRST, scores(0.1))
        work: Callable[[], object] = partial(store.put, SECOND, scores(0.2))
        newest, other = SECOND, FIRST
        if verb == "promote":
            work()
            newest, other = FIRST, SECOND
            work = partial(store.promote, key_of(FIRST))
        died = killed_at(moment, root, work)
        for value, one in ((0.1, FIRST), (0.2, SECOND)):
            if store.has(key_of(one)):  # whole, with its scores
                frame = store.scores(key_of(one))
                assert frame is not None, (moment, one.fingerprint)
                assert frame["score"].tolist()[1] == value
            else:
                assert (verb, one) == ("put", SECOND), moment
        work()  # the same again
        assert files(root) == [name.format(other.fingerprint) for name in BOTH], moment
        assert [c.record for c in store.cells() if c.current] == [newest]
        for value, one in ((0.1, FIRST), (0.2, SECOND)):
            frame = store.scores(key_of(one))
            assert frame is not None
            assert frame["score"].tolist()[1] == value
    assert moment > 10


def test_four_processes_with_two_configs_leave_a_record_of_each(tmp_path: Path) -> None:
    children = []
    for number in range(4):
        child = os.fork()
        if child == 0:
            store, mine = ResultStore(tmp_path), (FIRST, SECOND)[number % 2]
            for _ in range(15):
                store.put(mine, scores(number % 2 / 10))
                store.promote(key_of(mine))
            os._exit(0)
        children.append(child)
    assert all(os.waitpid(child, 0)[1] == 0 for child in children)
    store = ResultStore(tmp_path)
    (newest,) = store.records()
    other = FIRST if newest == SECOND else SECOND
    assert files(tmp_path) == [name.format(other.fingerprint) for name in BOTH]


def test_a_clock_that_is_set_back_makes_no_record_older(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ResultStore(tmp_path)
    store.put(FIRST, scores())
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 10 * 86400)
    store.put(SECOND, scores())
    latest = max(store.cells(), key=lambda c: c.written)
    assert (latest.record, latest.current) == (SECOND, True)
    store.promote(key_of(FIRST))
    latest = max(store.cells(), key=lambda c: c.written)
    assert (latest.record, latest.current) == (FIRST, True)

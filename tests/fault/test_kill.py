"""kill -9 at any moment costs nothing but what was in flight.

A process announces everything that it changes on disk by audit events; it is killed just before
its n-th.  Between two of them nothing lasting happens, so these are all the moments there are.
The short version takes a few of them at random, `make fault` every one.
"""

from __future__ import annotations

import random
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fault.place import Place, assert_same, document, leftovers, numbers, written
from tests.fault.process import LONG, Done, Process, moments, zsad
from zsad import checkpoints

pytestmark = pytest.mark.fault

CELLS = "cells/*/*/*/*.json"
CHECKPOINTS = "checkpoints/*/*.safetensors"


def test_a_sweep_killed_anywhere_ends_with_the_same_numbers(
    place: Place, whole: Done, tmp_path: Path
) -> None:
    assert whole.writes > 50
    for moment in moments(whole.writes, 2, "bench"):
        results = tmp_path / str(moment)
        killed = Process(place.bench(results), watch=results, kill_at=moment).wait()
        assert killed.code == -signal.SIGKILL, moment
        kept = written(results, CELLS)
        final = zsad(*place.bench(results))
        assert final.code == 0
        assert_same(numbers(final), numbers(whole))
        after = written(results, CELLS)
        assert {p: after[p] for p in kept} == kept  # nothing finished was computed again
        assert document(final)["counters"]["cells_run"] == len(after) - len(kept)
        assert leftovers(results) == [], moment


def test_a_sweep_killed_again_and_again_comes_to_its_end(
    place: Place, whole: Done, tmp_path: Path
) -> None:
    rng = random.Random(5)
    kept: dict[Path, int] = {}
    for _ in range(40):
        # The first record is written at the 75th operation, at the 50th once all folders are there.
        moment = rng.randint(45, 75) if LONG else rng.randint(60, 90)
        done = Process(place.bench(tmp_path), watch=tmp_path, kill_at=moment).wait()
        after = written(tmp_path, CELLS)
        assert {p: after[p] for p in kept} == kept
        kept = after
        if done.code == 0:
            break
        assert done.code == -signal.SIGKILL
    assert done.code == 0
    assert_same(numbers(done), numbers(whole))
    assert leftovers(tmp_path) == []


def contents(results: Path) -> dict[str, Any]:
    """Checkpoints to the bit, with what they say about themselves but for the seconds they took."""
    found = {p.name: checkpoints.load_any(p) for p in written(results, CHECKPOINTS)}
    return {
        name: (
            replace(loaded.meta, cost={}),
            {k: v.numpy().tobytes() for k, v in loaded.state.items()},
        )
        for name, loaded in found.items()
    }


def test_a_training_killed_anywhere_ends_with_the_same_bits(place: Place, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    undisturbed = zsad(*place.train(whole), watch=whole)
    expected = contents(whole)
    assert len(expected) == 2
    assert leftovers(whole) == []
    for moment in moments(undisturbed.writes, 3, "train"):
        results = tmp_path / str(moment)
        killed = Process(place.train(results), watch=results, kill_at=moment).wait()
        assert killed.code == -signal.SIGKILL, moment
        kept = written(results, CHECKPOINTS)
        final = zsad(*place.train(results))
        assert final.code == 0
        after = written(results, CHECKPOINTS)
        assert contents(results) == expected, moment
        assert {p: after[p] for p in kept} == kept  # nothing finished was trained again
        assert sum(c["reused"] for c in document(final)["checkpoints"]) == len(kept)
        assert leftovers(results) == [], moment


@pytest.mark.skipif(not LONG, reason="many seconds; `make fault` runs it")
def test_a_sweep_killed_by_the_clock(place: Place, whole: Done, tmp_path: Path) -> None:
    """Also between two changes, where a file is half written: at any time that such a sweep takes
    on this machine.  No wait is without a limit: see ``Process.wait``."""
    rng = random.Random(3)
    begin = time.monotonic()
    assert zsad(*place.bench(tmp_path / "whole")).code == 0
    lasts = time.monotonic() - begin
    for number in moments(10, 10, "clock"):
        results = tmp_path / str(number)
        process = Process(place.bench(results, methods="clip,winclip,anomalyclip"))
        time.sleep(rng.uniform(0.0, lasts))
        process.kill()
        assert process.wait().code == -signal.SIGKILL
        kept = written(results, CELLS)
        final = zsad(*place.bench(results))
        assert_same(numbers(final), numbers(whole))
        after = written(results, CELLS)
        assert {p: after[p] for p in kept} == kept

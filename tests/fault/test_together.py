"""Several processes on one results folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fault.place import Place, assert_same, document, leftovers, numbers, written
from tests.fault.process import Done, Process

pytestmark = pytest.mark.fault


def test_two_sweeps_at_once(place: Place, whole: Done, tmp_path: Path) -> None:
    """Both finish, and the store holds every cell once with the right numbers."""
    both = [Process(place.bench(tmp_path)) for _ in range(2)]
    for process in both:
        done = process.wait().quiet()
        assert done.code == 0
        assert_same(numbers(done), numbers(whole))
    assert len(written(tmp_path, "cells/*/*/*/*.json")) == len(numbers(whole))
    assert len(json.loads((tmp_path / "manifest.json").read_text())["runs"]) == 2
    assert leftovers(tmp_path) == []


def test_two_trainings_at_once_train_once(place: Place, tmp_path: Path) -> None:
    """Whoever comes second waits, and takes what the first has made."""
    both = [Process(place.train(tmp_path)) for _ in range(2)]
    made = [document(process.wait().quiet())["checkpoints"] for process in both]
    for seed in range(2):
        assert sorted(checkpoints[seed]["reused"] for checkpoints in made) == [False, True]
    assert leftovers(tmp_path) == []

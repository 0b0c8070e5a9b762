"""Processes that train together encode each image once, and all have the same features."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.process import encoded
from zsad.errors import DataError
from zsad.training.sharing import Shares

PROCESSES = 2


@pytest.fixture(scope="module")
def broken(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same pictures, one of which cannot be read by the process that it falls to."""
    copy = tmp_path_factory.mktemp("broken") / "spoilt"
    shutil.copytree(dataset, copy)
    sorted(copy.rglob("test/spot/*.png"))[-1].write_bytes(b"no picture")
    return copy


@pytest.fixture(scope="module")
def found(
    weights: Path, dataset: Path, broken: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[dict[str, Any]]]:
    """What two processes found, by case and rank."""
    folder = tmp_path_factory.mktemp("processes")
    root = Path(__file__).resolve().parents[2]
    words = [sys.executable, "-m", "tests.training.process", str(folder)]
    several = [
        subprocess.Popen(
            [*words, str(rank), str(PROCESSES), str(weights), str(dataset), str(broken)],
            env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
            cwd=root,
        )
        for rank in range(PROCESSES)
    ]
    assert [process.wait(timeout=300) for process in several] == [0] * PROCESSES
    return {
        case: [torch.load(folder / f"{case}-{rank}.pt") for rank in range(PROCESSES)]
        for case in ("whole", "chosen", "little", "broken")
    }


@pytest.mark.slow
@pytest.mark.parametrize("case", ["whole", "chosen", "little"])
def test_each_encodes_its_share_and_has_what_one_process_has(
    case: str, found: dict[str, list[dict[str, Any]]], weights: Path, dataset: Path
) -> None:
    group = found[case][0]["group"]
    alone = encoded(weights, dataset, 1 << 28, group)
    count = len(alone["masks"])
    for one in found[case]:
        assert one["group"] == group
        torch.testing.assert_close(one["features"], alone["features"], rtol=0, atol=0)
        torch.testing.assert_close(one["masks"], alone["masks"], rtol=0, atol=0)
    shared = [one["shared"] for one in found[case]]
    if case == "little":  # one process is full after a turn, and none encodes for it any longer
        assert max(shared) < count / 2
        return
    assert sum(shared) == count
    assert max(shared) - min(shared) <= group  # groups are dealt in turns


@pytest.mark.slow
def test_a_picture_that_one_cannot_read_ends_both(
    found: dict[str, list[dict[str, Any]]],
) -> None:
    errors = [one["error"] for one in found["broken"]]
    assert all(".png" in error for error in errors), errors
    assert sum(error.startswith("process ") for error in errors) == 1, errors


def test_one_process_is_alone() -> None:
    alone = Shares.running()
    assert alone == Shares(0, 1)
    assert alone.own([1, 2, 3]) == [1, 2, 3]
    assert Shares(1, 2).own([1, 2, 3, 4, 5]) == [2, 4]
    assert Shares(1, 3).own([1, 2, 3, 4, 5], first=2) == [3]
    assert alone.together(lambda: 7) == [7]

    def fails() -> None:
        raise DataError("no picture")

    with pytest.raises(DataError, match=r"^no picture$"):
        alone.together(fails)

"""Several devices: Lightning starts a process for each, and together they take larger batches."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from zsad import checkpoints


def command(out: Path, batch_size: int, *more: str) -> subprocess.CompletedProcess[str]:
    """Train on eight images, for two epochs."""
    root = str(Path(__file__).resolve().parents[2])
    words = [sys.executable, "-m", "zsad", "train", "--methods", "anomalyclip", "--json"]
    words += ["--on", "synthetic", "--backbone", "zsad-tiny", "--limit", "2", "--device", "cpu"]
    words += ["--results", str(out), *more]
    words += ["anomalyclip.train.epochs=2", f"anomalyclip.train.batch_size={batch_size}"]
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        words, env=environment, cwd=out.parent, capture_output=True, text=True, check=False
    )


def train(out: Path, batch_size: int, *more: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return what the command says about its checkpoint, and the trained state."""
    done = command(out, batch_size, *more)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)  # one document, whatever the number of processes
    assert document["on"]["images"] == 8
    (made,) = document["checkpoints"]
    return made, dict(checkpoints.load_any(Path(made["checkpoint"])).state)


@pytest.mark.slow
def test_two_processes_equal_one_with_batches_of_twice_the_size(tmp_path: Path) -> None:
    """Their gradients are averaged, and ``zsad-tiny`` leaves deep tokens unused: both must work."""
    two, ours = train(tmp_path / "two", 2, "--devices", "2", "--strategy", "ddp")
    one, theirs = train(tmp_path / "one", 4)
    assert [row["steps"] for row in two["history"]] == [row["steps"] for row in one["history"]]
    for a, b in zip(two["history"], one["history"]):
        assert a["total"] == pytest.approx(b["total"], rel=1e-3)
    assert ours.keys() == theirs.keys()
    # Adam's first steps are nearly signs: where a gradient is about zero, rounding decides.
    gap = sum(float((ours[k] - theirs[k]).square().sum()) for k in ours) ** 0.5
    size = sum(float(v.square().sum()) for v in theirs.values()) ** 0.5
    assert gap < 0.02 * size


@pytest.mark.slow
def test_fewer_batches_than_devices_are_refused(tmp_path: Path) -> None:
    done = command(tmp_path / "out", 8, "--devices", "2")
    assert done.returncode == 3
    (failed,) = json.loads(done.stdout)["failed"]
    assert "fewer batches of 8 than there are devices (2); lower --devices" in failed["error"]

"""Several devices: Lightning starts a process for each, and together they take larger batches."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from zsad import checkpoints, registry
from zsad.backbones import Backbone
from zsad.cli.main import main
from zsad.config import Settings
from zsad.data.index import DatasetIndex
from zsad.errors import RequestError
from zsad.method import new_method
from zsad.training.feature_store import FeatureStore
from zsad.training.images import TrainingImages
from zsad.training.run import PhaseData
from zsad.training.state import TrainState


def words(out: Path, batch_size: int) -> list[str]:
    """The command that trains on eight images, for two epochs."""
    return [
        *("train", "--methods", "anomalyclip", "--on", "synthetic", "--limit", "2", "--json"),
        *("--backbone", "zsad-tiny", "--device", "cpu", "--results", str(out)),
        *("anomalyclip.train.epochs=2", f"anomalyclip.train.batch_size={batch_size}"),
    ]


def result(printed: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return what the command says about its checkpoint, and the trained state."""
    document = json.loads(printed)  # one document, whatever the number of processes
    assert document["on"]["images"] == 8
    (made,) = document["checkpoints"]
    return made, dict(checkpoints.load_any(Path(made["checkpoint"])).state)


@pytest.mark.slow
def test_two_processes_equal_one_with_batches_of_twice_the_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their gradients are averaged, and ``zsad-tiny`` leaves deep tokens unused: both must work."""
    root = str(Path(__file__).resolve().parents[2])
    several = subprocess.run(
        [sys.executable, "-m", "zsad", *words(tmp_path, 2), "--devices", "2", "--strategy", "ddp"],
        env={**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert several.returncode == 0, several.stderr
    two, ours = result(several.stdout)
    assert main(words(tmp_path, 4)) == 0
    one, theirs = result(capsys.readouterr().out)
    assert [row["steps"] for row in two["history"]] == [row["steps"] for row in one["history"]]
    for a, b in zip(two["history"], one["history"]):
        assert a["total"] == pytest.approx(b["total"], rel=1e-3)
    assert ours.keys() == theirs.keys()
    # Adam's first steps are nearly signs: where a gradient is about zero, rounding decides.
    gap = sum(float((ours[k] - theirs[k]).square().sum()) for k in ours) ** 0.5
    size = sum(float(v.square().sum()) for v in theirs.values()) ** 0.5
    assert gap < 0.02 * size


def test_fewer_batches_than_devices_are_refused(
    index: DatasetIndex, backbone: Backbone, settings: Settings
) -> None:
    entry = registry.method("anomalyclip")
    method = new_method(entry, entry.resolve(), backbone.info, 0)
    (phase,) = method.phases()
    run = SimpleNamespace(method=method, samples=index.samples[:8], seed=0)
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    with FeatureStore() as store:
        images = TrainingImages(backbone, settings, store)
        data = PhaseData(run, phase, TrainState("x"), images, method.feature_request())  # type: ignore[arg-type]
        data.trainer = SimpleNamespace(strategy=strategy, world_size=2, global_rank=0)  # type: ignore[assignment]
        with pytest.raises(RequestError, match=r"8 images has fewer batches of 8 .* devices \(2\)"):
            data.setup("fit")

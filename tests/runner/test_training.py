"""Training for its own sake and for a sweep: the same checkpoints, the same failures."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

import zsad
from tests.runner.conftest import SIZE, write_dataset
from zsad.backbones.devices import choose_device
from zsad.cli.main import main
from zsad.errors import CellError, RequestError
from zsad.on_device import algorithms
from zsad.runner.auxiliary import auxiliary_samples
from zsad.runner.heads import load_backbone
from zsad.runner.request import build_request
from zsad.runner.training import provide

QUICK = [
    f"backbone.image_size={SIZE}",
    *("coop.n_ctx=2", "coop.train.epochs=1", "coop.train.batch_size=8"),
    "coop.train.warmup_epochs=0",
    *("cocoop.n_ctx=2", "cocoop.train.epochs=2", "cocoop.train.batch_size=4"),
    *("cocoop.train.warmup_epochs=0", "cocoop.train.lr=1e30"),  # its loss ends as no number
]


def test_a_failing_method_costs_the_others_nothing_in_either_way(
    definition: Path, weights: Path, tmp_path: Path
) -> None:
    shared: dict[str, Any] = {
        "backbone": "file",
        "weights": weights,
        "results": tmp_path / "results",
        "device": "cpu",
        "limit": 2,
        "overrides": QUICK,
    }
    with algorithms(deterministic=False):
        trained = zsad.train("coop,cocoop", str(definition), **shared)
        assert not torch.are_deterministic_algorithms_enabled()  # a later run may be on a GPU
    (made,), (failed,) = trained["checkpoints"], trained["failed"]
    assert trained["banner"].startswith("unknown weights: ")
    assert (made["method"], made["reused"]) == ("coop", False)
    assert failed["cell"] == {"method": "cocoop", "seed": 0}
    assert "cocoop: the loss is not a number" in failed["error"]

    request = build_request("coop,cocoop", str(definition), **shared)
    data = auxiliary_samples(request, request.datasets[0])
    backbone = load_backbone(request, choose_device("cpu"))
    coop, cocoop = request.columns
    found = provide([(coop, 0), (cocoop, 0)], lambda column: data, backbone, request)
    assert found.of(coop, 0) == Path(made["checkpoint"])  # not trained again
    with pytest.raises(CellError) as caught:
        found.of(cocoop, 0)
    assert str(caught.value) == failed["error"]


def test_what_cannot_be_trained_is_refused(definition: Path, tmp_path: Path) -> None:
    shared = {"results": tmp_path, "device": "cpu"}
    with pytest.raises(RequestError, match="--methods: clip is training-free; leave it out"):
        zsad.train("coop,clip", "synthetic", **shared)
    with pytest.raises(RequestError, match="--on synthetic,elpv: give one dataset to train on"):
        zsad.train("coop", "synthetic,elpv", **shared)


def test_the_command_that_it_ends_with_finds_the_training(
    definition: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It left the limit, the seed, the backbone and the keys out, and so trained another one."""
    words = ["--backbone", "file", "--weights", str(weights), "--limit", "2", "--seeds", "3"]
    words += ["--results", str(tmp_path / "results"), *QUICK[:5]]
    assert main(["train", "--methods", "coop", "--on", str(definition), *words]) == 0
    said = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("use it: zsad "))
    target = write_dataset(tmp_path / "others", ("bolt",), 2, seed=4)
    command = shlex.split(said.removeprefix("use it: zsad ").replace("...", f"folder:{target}"))
    assert main([*command, "--dry-run"]) == 0
    made = next((tmp_path / "results" / "checkpoints" / "coop").glob("*.safetensors"))
    assert f"takes {made.name} of the results folder" in capsys.readouterr().out

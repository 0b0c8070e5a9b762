"""What a row is computed under is said before it runs, and training is what was asked for."""

from __future__ import annotations

import importlib.util
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import zsad
from tests.runner.conftest import SIZE
from zsad.cli.main import main
from zsad.config.method_config import ALL_SHOTS
from zsad.errors import RequestError
from zsad.runner.conditions import Row
from zsad.runner.given import auxiliary_name, check
from zsad.runner.request import build_request

QUICK = [
    f"backbone.image_size={SIZE}",
    *("coop.n_ctx=2", "coop.train.epochs=1", "coop.train.batch_size=8"),
    "coop.train.warmup_epochs=0",
]


@pytest.mark.parametrize(
    ("backbone", "protocol", "trained_on", "learns_from"),
    [
        ("zsad-tiny", None, None, "synthetic"),  # needs no download where nothing was asked for
        ("zsad-tiny", "faprompt", None, "mvtec"),
        ("zsad-tiny", "own.yaml", None, "btad"),
        ("zsad-tiny", "faprompt", "visa", "visa"),
        ("zsad-tiny", None, "visa", "visa"),
        ("vit-l-14-336", None, None, "mvtec"),
        ("vit-l-14-336", "own.yaml", None, "btad"),
        ("vit-l-14-336", None, "visa", "visa"),
    ],
)
def test_the_training_set_is_what_was_asked_for(
    backbone: str, protocol: str | None, trained_on: str | None, learns_from: str, tmp_path: Path
) -> None:
    if protocol == "own.yaml":
        protocol = str(tmp_path / protocol)
        text = "{title: t, datasets: [headct], methods: [faprompt], auxiliary: {default: btad}}"
        Path(protocol).write_text(text)
    request = build_request(
        "faprompt", "headct", backbone=backbone, protocol=protocol, trained_on=trained_on
    )
    assert auxiliary_name(request, "headct") == learns_from


def test_all_shots_are_said_as_they_are_written() -> None:
    row = Row("patchcore", "headct", "zsad-tiny", 224, "default", keys={"shots": ALL_SHOTS})
    assert row.words == "zsad-tiny at 224 px, preset default with shots=all; training-free"


def test_a_training_set_that_changes_nothing_or_is_a_target_is_refused() -> None:
    with pytest.raises(RequestError, match=r"--trained-on visa: no method of this run is trained"):
        build_request("clip", "mvtec", trained_on="visa")
    with pytest.raises(RequestError, match=r"--trained-on visa,btad: give one dataset"):
        build_request("coop", "mvtec", trained_on="visa,btad")
    with pytest.raises(RequestError, match=r"--trained-on visa: is a target, too"):
        check(build_request("coop", "mvtec,visa", trained_on="visa"))
    with pytest.raises(RequestError, match=r"unknown dataset 'visq'"):
        build_request("coop", "mvtec", trained_on="visq")
    check(build_request("coop", "synthetic", trained_on="synthetic"))  # it has a part to train on


def test_dry_run_and_start_say_every_rows_conditions(
    definition: Path,
    weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    shared: dict[str, Any] = {
        "backbone": "file",
        "weights": weights,
        "results": tmp_path / "results",
        "device": "cpu",
        "limit": 2,
    }

    def planned(**more: Any) -> dict[str, str]:
        overrides = [*QUICK, "clip.preset=clip-ac"]
        found = zsad.bench(
            "clip,coop", "synthetic", dry_run=True, overrides=overrides, **shared, **more
        )
        return {row["method"]: row["words"] for row in found["rows"]}

    before = planned(trained_on=str(definition))
    assert before["clip"] == f"file at {SIZE} px, preset clip-ac; training-free"
    quick = ", ".join(key.removeprefix("coop.") for key in QUICK if key.startswith("coop."))
    head = (
        f"file at {SIZE} px, preset default with {quick}; trained on {definition.stem} "
        "(test part, 4 images): "
    )
    assert before["coop"] == f"{head}trains now"
    made = zsad.train("coop", str(definition), overrides=QUICK, **shared)
    name = Path(made["checkpoints"][0]["checkpoint"]).name
    assert planned(trained_on=str(definition))["coop"] == (
        f"{head}takes {name} of the results folder"
    )
    changed = planned(trained_on=str(definition), seeds="0,1")
    assert changed["coop"] == f"{head}trains now (seeds 1)"
    # Another training set than the one that there is a state of: that is said.
    other = {**shared, "trained_on": "synthetic"}
    (row,) = zsad.bench("coop", str(definition), dry_run=True, overrides=QUICK, **other)["rows"]
    assert row["does"] == (
        f"trains now; there are states trained on {definition.stem}, which `--trained-on` takes"
    )
    (row,) = zsad.bench("coop", str(definition), dry_run=True, overrides=QUICK, **shared)["rows"]
    assert row["does"].startswith("cannot be trained: dataset mvtec needs its files")
    capsys.readouterr()
    line = ["bench", "--methods", "clip", "--datasets", str(definition), "--backbone", "file"]
    line += ["--weights", str(weights), "--results", str(tmp_path / "other"), "--device", "cpu"]
    with caplog.at_level(logging.INFO, "zsad.accounts"):
        assert main([*line, f"backbone.image_size={SIZE}"]) == 0
    said = f"clip on {definition.stem}: file at {SIZE} px, preset default; training-free"
    assert said in capsys.readouterr().err


def test_keys_beside_the_preset_are_said_as_they_are_typed() -> None:
    keys = {"boxes.filter": False, "mmci.kernels": ("1x1", "3x3"), "lr.heads": 0.001}
    row = Row("filo@t4", "visa", "vit-l-14-336", 518, "paper", keys=keys)
    said = "preset paper with boxes.filter=false, mmci.kernels=[1x1, 3x3], lr.heads=0.001"
    assert row.words == f"vit-l-14-336 at 518 px, {said}; training-free"


def test_the_last_sentence_is_true(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["bench", "--methods", "clip", "--datasets", "mvtec", "--backbone", "zsad-tiny"]
    line += ["--results", str(tmp_path / "r"), "--device", "cpu"]
    assert main([*line, "--dry-run"]) == 3
    assert "zsad: 1 dataset failed; a dry run stores nothing" in capsys.readouterr().err
    assert main(line) == 3
    found = capsys.readouterr()
    assert "zsad: 1 dataset failed; nothing was stored" in found.err
    assert "makes tables of them" not in found.out


def test_a_dataset_that_a_package_brings_names_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    absent = {"elpv_dataset"}
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name in absent else found(name)
    )
    line = ["bench", "--methods", "clip", "--datasets", "elpv", "--backbone", "zsad-tiny"]
    assert main([*line, "--results", str(tmp_path / "r"), "--dry-run"]) == 3
    assert "`pip install elpv-dataset` brings it" in capsys.readouterr().err


def test_planning_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys, zsad; zsad.bench('clip,coop', 'synthetic', backbone='zsad-tiny', limit=2, "
        f"dry_run=True, results={str(tmp_path)!r}); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""A run in lower precision: other cells, what its encoder was calibrated on, and its drift."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import zsad
from zsad.backbones.engines import processor
from zsad.cli.bench import print_drift
from zsad.cli.main import main

needs_int8 = pytest.mark.skipif(
    not (processor.version("openvino") and processor.facts().vnni),
    reason="OpenVINO is not installed (extra `cpu`), or the processor has no VNNI",
)
INT8 = ["backbone.precision=int8", "backbone.engine=openvino"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZSAD_CACHE", str(tmp_path / "cache"))


def run(results: Path, overrides: list[str], weights: Path | None = None) -> dict[str, Any]:
    """The small CLIP on two pictures of a category, else ``zsad-tiny`` on eight."""
    small = {"backbone": "file", "weights": str(weights), "limit": 2}
    demo = {"backbone": "zsad-tiny", "limit": 8}
    return zsad.bench(
        methods="clip" if weights else "clip,maskclip",
        datasets="synthetic",
        results=str(results),
        overrides=overrides,
        **(small if weights else demo),
    )


def records(results: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """The stored cells, by precision, then method and category."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for path in results.rglob("cells/**/*.json"):
        record = json.loads(path.read_text())
        if "metrics" in record:
            precision = record["info"]["precision"]
            name = f"{record['method']}/{record['category']}"
            found.setdefault(precision, {})[name] = record
    return found


def test_a_run_says_its_drift(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, lower = tmp_path / "results", ["backbone.precision=bf16", "backbone.engine=torch"]
    alone = run(results, lower, weights)
    (line,) = alone["drift"]
    assert (line["cells"], line["of"], line["metrics"]) == (0, len(alone["cells"]), {})
    print_drift(alone["drift"], alone["results_dir"])
    said = capsys.readouterr().out
    assert "Drift of bf16 from fp32: not known for clip, since" in said
    assert "run the same command with backbone.precision=fp32, and this one again" in said

    assert run(results, ["backbone.engine=torch"], weights)["drift"] == []
    again = run(results, lower, weights)
    assert again["counters"]["cells_run"] == 0  # found as they were stored
    held = records(results)
    assert held.keys() == {"fp32", "bf16"}
    ours, exact = held["bf16"], held["fp32"]
    assert ours.keys() == exact.keys()
    (line,) = again["drift"]
    assert (line["method"], line["precision"]) == ("clip", "bf16")
    assert line["cells"] == line["of"] == len(ours)
    assert "trained_apart" not in line
    for name in ("image_auroc", "pixel_aupro"):
        changes = {c: r["metrics"][name] - exact[c]["metrics"][name] for c, r in ours.items()}
        found = line["metrics"][name]
        assert found["mean"] == pytest.approx(sum(changes.values()) / len(changes))
        assert abs(found["largest"]) == max(map(abs, changes.values()))
        assert changes[f"clip/{found['cell']}"] == found["largest"]
    print_drift(again["drift"], again["results_dir"])
    assert f"{len(ours)} of {len(ours)}" in capsys.readouterr().out
    manifest = json.loads((results / "manifest.json").read_text())
    assert manifest["runs"][-1]["drift"] == again["drift"]
    assert "drift" not in manifest["runs"][-2]
    assert "calibrations" not in manifest["runs"][-1]


@needs_int8
@pytest.mark.slow  # tests/backbones/test_quantised.py has the parts
def test_int8_makes_cells_of_its_own_that_are_near_and_name_their_calibration(
    tmp_path: Path,
) -> None:
    results, size = tmp_path / "results", ["backbone.image_size=112"]
    run(results, [*size, "backbone.engine=openvino"])
    first = run(results, [*size, *INT8])
    held = records(results)
    assert held.keys() == {"fp32", "int8-openvino"}
    ours, exact = held["int8-openvino"], held["fp32"]
    assert ours.keys() == exact.keys()
    for category, record in ours.items():
        assert record["fingerprint"] != exact[category]["fingerprint"]
        engine = record["info"]["engine"]
        assert engine["name"] == "openvino"
        told = engine["calibration"]
        assert (told["dataset"], told["group"], told["pictures"]) == ("synthetic", "train", 20)
        assert told["image_size"] == 224  # of the position table
        assert "calibration" not in exact[category]["info"]["engine"]
    manifest = json.loads((results / "manifest.json").read_text())
    assert manifest["runs"][-1]["calibrations"] == [told]
    assert run(results, [*size, *INT8])["counters"]["cells_run"] == 0
    for line in first["drift"]:
        assert line["cells"] == line["of"] == 8
        # a category has 16 pairs of pictures; one that changes places in three is 2.3 points
        assert abs(line["metrics"]["image_auroc"]["mean"]) <= 0.024
        assert abs(line["metrics"]["image_auroc"]["largest"]) <= 0.13
        assert abs(line["metrics"]["pixel_aupro"]["mean"]) <= 0.01


def test_a_method_that_was_trained_apart_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    change = {"mean": -0.0125, "largest": 0.05, "cell": "wood"}
    line = {"method": "coop", "dataset": "d", "precision": "bf16-openvino", "asked": True}
    line |= {"cells": 2, "of": 3, "metrics": {"image_auroc": change}, "trained_apart": True}
    print_drift([line], "results")
    said = capsys.readouterr().out
    assert "Drift of bf16-openvino from fp32, in points" in said
    assert "coop*" in said
    assert "-1.25" in said
    assert "+5.0 (wood)" in said
    assert "2 of 3" in said
    assert "coop.checkpoint=FILE compares one state" in said
    assert "not known" not in said


def test_what_nobody_asked_for_is_not_missed(capsys: pytest.CaptureFixture[str]) -> None:
    """On a GPU ``auto`` is bf16; whoever has no float32 cells there wants none."""
    line = {"method": "clip", "dataset": "d", "precision": "bf16", "asked": False}
    print_drift([line | {"cells": 0, "of": 3, "metrics": {}}], "results")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("verb", ["bench --methods clip --datasets synthetic --dry-run"])
def test_int8_by_another_engine_is_refused_before_anything(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*verb.split(), "--backbone", "zsad-tiny", "backbone.precision=int8"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "backbone.precision=int8 backbone.engine=openvino" in line

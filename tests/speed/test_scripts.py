"""Every speed benchmark runs with small settings, and what it compares gives the same results.

Counted work is asserted, never seconds: a loaded machine must not fail a test.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

from zsad.benchmarks.speed import (
    anomalib,
    end_to_end,
    engines,
    filo,
    generator,
    gpu,
    maps,
    pipeline,
    scaling,
)

ROOT = Path(__file__).resolve().parents[2]


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    out = capsys.readouterr().out
    for part in ("threads", "torch", "repeats"):  # conditions
        assert part in out
    assert re.search(r"\d \(\d+\.\d+-\d+\.\d+\)", out)  # a median with its spread
    return out


def test_make_runs_every_script() -> None:
    text = (ROOT / "Makefile").read_text()
    named = set(re.search(r"^SPEED := (.+)$", text, re.MULTILINE).group(1).split())  # type: ignore[union-attr]
    scripts = {p.stem for p in (ROOT / "benchmarks" / "speed").glob("*.py")} - {
        "measure",
        "gpu",
        "anomalib",
    }
    assert named == scripts
    assert "zsad.benchmarks.speed.gpu --device cuda" in text  # of a target of its own
    for name in scripts:
        source = (ROOT / "benchmarks" / "speed" / f"{name}.py").read_text()
        assert f"python -m zsad.benchmarks.speed.{name}" in source
        assert '"--quick"' in source


def test_without_anomalib_nothing_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    if importlib.util.find_spec("anomalib"):
        pytest.skip("anomalib is installed")
    with pytest.raises(SystemExit, match="2"):
        anomalib.main(["--quick"])
    assert "anomalib is not installed; `pip install" in capsys.readouterr().err


def test_pictures_are_drawn_of_both_groups(capsys: pytest.CaptureFixture[str]) -> None:
    document = generator.main(["--quick"])
    assert set(document["pictures_per_second"]) == set(generator.GROUPS)
    groups = [k.group for k in generator.CATEGORIES.values()]
    for group in generator.GROUPS.values():
        assert generator.draw_all(group, 1, turn=0) == groups.count(group)
    assert "pictures a second" in printed(capsys)


@pytest.mark.slow  # tests/backbones/test_engines.py compares them, too
def test_every_engine_gives_the_taps_of_torch(capsys: pytest.CaptureFixture[str]) -> None:
    document = engines.main(["--quick", "--repeats", "1"])
    rows = {row["way"]: row for row in document["ways"]}
    assert list(rows)[:2] == [engines.PLAIN, "torch"]
    for name, row in rows.items():
        assert row.get("error", 0) <= (0.05 if "bf16" in name or "int8" in name else 1e-5)
    openvino = {"openvino", "openvino bf16", "openvino int8", "openvino attention"}
    assert set(document["conditions"]["peak_gmac_per_second"]) <= {"torch", "onednn", *openvino}
    assert "of plain" in printed(capsys)


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.slow)])
def test_all_methods_cost_one_pass_and_their_heads(
    capsys: pytest.CaptureFixture[str], precision: str
) -> None:
    options = ["--quick", "--image-size", "112", "--batch", "2", "--repeats", "1"]
    document = end_to_end.main([*options, "--precision", precision])
    rows: dict[str, dict[str, Any]] = {row["way"]: row for row in document["ways"]}
    names = ["filo", "faprompt", "kanoclip", "anomalyclip"]
    assert list(rows) == [end_to_end.PLAIN, "all together", *names, "faprompt+anomalyclip"]
    work = {name: row["gmac_per_image"] for name, row in rows.items()}
    alone = [work[name] for name in names]
    # every method alone pays for a pass of its own
    assert max(alone) < work["all together"] < sum(alone) - 2 * work[end_to_end.PLAIN]
    assert work["faprompt+anomalyclip"] < 1.01 * work["faprompt"]
    tolerance = 1e-4 if precision == "fp32" else 1e-2
    assert set(document["largest_difference_of_maps"]) == set(names)
    assert max(document["largest_difference_of_maps"].values()) <= tolerance
    assert document["class_token_difference"] < (1e-4 if precision == "fp32" else 0.05)
    assert {"encode", "head", "map", "metrics", "head filo"} <= set(document["stages_per_image"])
    assert "all together" in printed(capsys)


@pytest.mark.slow
def test_what_is_run_on_a_gpu_is_rehearsed_on_a_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--device", "cpu", "--quick", "--repeats", "1", "--batch", "2", "--methods"]
    document = gpu.main([*words, "clip,anomalyclip"])
    assert set(document["calls"]) == {"clip", "anomalyclip", "clip+anomalyclip"}
    same = document["equality"]
    assert same["cpu fp32 - cpu fp32"] == same["little memory - ample"] == 0
    assert 0 <= same["cpu bf16 - cpu fp32"] < 0.1
    assert "largest difference of any metric" in printed(capsys)


def test_without_a_gpu_nothing_is_said_to_be_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit, match="2"):
        gpu.main([])
    assert "no CUDA device: nothing is measured" in capsys.readouterr().err


def test_cells_that_lack_something_are_infinitely_apart() -> None:
    cell = {("clip", "nut"): {"image_auroc": 0.5, "pixel_ap": None}}
    other = {("clip", "nut"): {"image_auroc": 0.25, "pixel_ap": None}}
    more = {("clip", "nut"): {"image_auroc": 0.5, "pixel_ap": 0.1}}
    assert gpu.apart(cell, cell) == 0
    assert gpu.apart(other, cell) == 0.25
    assert gpu.apart({}, cell) == gpu.apart(more, cell) == float("inf")


def test_maps_of_both_ways_agree(capsys: pytest.CaptureFixture[str]) -> None:
    document = maps.main(["--quick", "--repeats", "1"])
    assert [row["spec"] for row in document["specs"]] == list(maps.SPECS)
    assert max(row["largest_difference"] for row in document["specs"]) < 1e-5
    printed(capsys)


def test_map_specifications_are_the_methods_own() -> None:
    """The benchmark measures what the methods ask for."""
    from zsad import backbones

    own = end_to_end.Pipeline(backbones.load("zsad-tiny"), list(maps.SPECS))
    for name, (_, spec) in maps.SPECS.items():
        asked = own.scorers[name].method.map_spec()
        for key in ("order", "align_corners", "blur", "sigma", "norm", "fuse"):
            assert getattr(asked, key) == getattr(spec, key), (name, key)


def test_every_axis_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    document = scaling.main(["--quick"])
    points = {axis: [r["point"] for r in rows] for axis, rows in document["axes"].items()}
    assert points == {"images": [2, 6], "methods": [1, 2], "size": [112, 224], "batch": [1, 2]}
    printed(capsys)


def test_the_pipeline_encodes_once_for_all_methods(capsys: pytest.CaptureFixture[str]) -> None:
    document = pipeline.main(["--quick", "--sets", "clip,anomalyclip;clip", "--threads", "1"])
    pair, one = document["sets"]
    assert (pair["methods"], one["methods"]) == (2, 1)
    assert pair["encoder_forwards"] == one["encoder_forwards"] > 0
    assert 0 < pair["metrics_share"]["median"] < 1
    printed(capsys)


def test_filos_parts_agree(capsys: pytest.CaptureFixture[str]) -> None:
    document = filo.main(["--quick", "--repeats", "1"])
    text, mmci = document["text"], document["mmci"]
    assert text["largest_difference"] < 1e-5
    assert mmci["largest_difference"] < 1e-5
    head = document["head"]
    assert head["largest_difference"] < 1e-5
    assert "tiled convolution" in head["ran"]["fp32"]["head"]
    naive, nine, one = text["positions"].values()
    assert naive == 77 * text["prompts"]
    assert nine < naive / 15
    assert one < nine / 2
    printed(capsys)

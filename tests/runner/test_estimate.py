"""What a dry run says a run will take: known answers from stored times, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zsad.backbones.engines import processor
from zsad.cli.bench import print_plan
from zsad.runner import estimate
from zsad.runner.estimate import duration, machine

Bench = Callable[..., dict[str, Any]]


def timed(results: Path, processor_name: str, **seconds: float) -> int:
    """Give every stored cell these seconds and this processor; returns how many there are."""
    paths = [p for p in (results / "cells").rglob("*.json") if not p.name.startswith(".")]
    for path in paths:
        held = json.loads(path.read_text())
        held["seconds"] = seconds
        held["info"]["engine"]["processor"] = processor_name
        path.write_text(json.dumps(held))
    return len(paths)


def test_seconds_are_images_times_what_was_stored_per_image(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = bench(dry_run=True)["estimate"]
    assert (empty["seconds"], empty["records"], empty["disk_mib"]) == (None, 0, None)
    assert empty["text"] == "estimate: no timings of this machine yet"

    done = bench(limit=2)
    (n,) = {c["n_normal"] + c["n_anomalous"] for c in done["cells"]}
    count = timed(
        tmp_path / "results", processor.name(), encode=6.0 * n, decode=n, head=n / 2, text=3.0
    )
    document = bench(dry_run=True)
    found = document["estimate"]
    images = sum(document["images"].values())
    assert (found["images"], found["cells"], found["records"]) == (
        images,
        document["to_run"],
        count,
    )
    assert found["seconds"] == pytest.approx(7.5 * images + 3 * document["to_run"], abs=0.1)
    assert found["memory_mib"] > 0
    assert found["disk_mib"] >= 0
    assert found["not_included"] == {"no timings": [], "trainings": []}
    print_plan(document)
    said = capsys.readouterr().out.splitlines()[-1]
    assert said == found["text"]
    assert f"(from {count} records of this processor, {processor.name()})" in said

    # the shared pass counts once for two methods; a method without times is named
    both = bench("clip,winclip", dry_run=True)["estimate"]
    assert both["seconds"] == found["seconds"]
    assert both["not_included"]["no timings"] == ["winclip"]
    assert "no timings of winclip" in both["text"]


def test_what_another_machine_took_is_not_used(bench: Bench, tmp_path: Path) -> None:
    bench(limit=2)
    timed(tmp_path / "results", "another processor", encode=1.0)
    found = bench(dry_run=True)["estimate"]
    assert (found["seconds"], found["records"], found["memory_mib"]) == (None, 0, None)
    assert found["text"] == "estimate: no timings of this machine yet"


def test_another_image_size_is_not_used(bench: Bench, tmp_path: Path) -> None:
    bench(limit=2)
    other = ["backbone.image_size=32"]
    assert bench(dry_run=True, overrides=other)["estimate"]["records"] == 0


def test_a_gpu_is_named_as_records_name_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "0000:01:00.0").mkdir()
    (tmp_path / "0000:01:00.0" / "information").write_text("Model: \t NVIDIA H200\nIRQ: 1\n")
    monkeypatch.setattr(estimate, "GPUS", tmp_path)
    assert machine() == machine("cuda:0") == "NVIDIA H200"
    assert machine("cpu") == processor.name()


def test_durations_are_in_units_that_people_read() -> None:
    assert [duration(s) for s in (0.2, 40.4, 119, 600, 7200, 90000)] == [
        *("1 s", "40 s", "119 s", "10 min", "2 h", "25 h")
    ]

"""Killing a sweep at any moment costs nothing but the cells in flight."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from tests.runner.conftest import DEFINITION, SIZE, write_dataset

KILLS = int(os.environ.get("ZSAD_FAULT_KILLS", "3"))  # `make fault` asks for more
CATEGORIES = ("bolt", "cloth", "ring", "plate")


@pytest.fixture(scope="module")
def place(recipe: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of four categories, its definition and a small backbone."""
    root = tmp_path_factory.mktemp("fault")
    write_dataset(root / "things", CATEGORIES, count=6)
    text = DEFINITION.format(name="faulty", root=root / "things")
    extra = "  ring: {prompt: ring}\n  plate: {prompt: plate}\n"
    text = text.replace("default_variant", extra + "default_variant", 1)
    (root / "faulty.yaml").write_text(text)
    dims = recipe.ClipDims(
        vision_width=64, vision_layers=12, embed=64, text_width=64, text_layers=3
    )
    torch.save(dict(recipe.clip_state(dims, 7)), root / "clip.pt")
    return root


def command(place: Path, results: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "zsad", "bench", "--methods", "clip,winclip", "--json"),
        *("--datasets", str(place / "faulty.yaml"), "--backbone", "file"),
        *("--results", str(results), "--device", "cpu"),
        *(f"backbone.weights={place / 'clip.pt'}", f"backbone.image_size={SIZE}"),
        "run.batch_size=2",
    ]


def environment() -> dict[str, str]:
    root = Path(__file__).resolve().parents[2]
    return {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}


def finish(place: Path, results: Path) -> dict[str, Any]:
    done = subprocess.run(
        command(place, results), capture_output=True, text=True, env=environment(), timeout=300
    )
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def numbers(document: dict[str, Any]) -> dict[tuple[str, str], Any]:
    return {(c["method"], c["category"]): c["metrics"] for c in document["cells"]}


def same(found: dict[Any, Any], expected: dict[Any, Any]) -> None:
    assert found.keys() == expected.keys()
    for key, metrics in expected.items():
        assert found[key] == pytest.approx(metrics, abs=1e-5), key


def stored(results: Path) -> set[Path]:
    return set(results.glob("cells/*/*/*/*.json"))


@pytest.mark.slow
@pytest.mark.fault
def test_killed_sweeps_end_with_the_same_numbers(place: Path, tmp_path: Path) -> None:
    """kill -9 at random moments, then the same command: equal numbers, nothing done twice."""
    expected = finish(place, tmp_path / "whole")
    rng = random.Random(11)
    results = tmp_path / "killed"
    for _ in range(KILLS):
        process = subprocess.Popen(
            command(place, results),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment(),
        )
        before = stored(results)
        deadline = time.monotonic() + 120
        # wait for the first new cell (or the end), then a random moment longer
        while process.poll() is None and stored(results) == before:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.15))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()
    kept = {p: p.stat().st_mtime_ns for p in stored(results)}
    assert kept  # every kill came after a stored cell
    final = finish(place, results)
    # A resumed run merges fewer feature requests, so sums may be taken in another order.
    same(numbers(final), numbers(expected))
    assert {p: p.stat().st_mtime_ns for p in kept} == kept  # none was written again
    assert final["counters"]["cells_run"] == len(expected["cells"]) - len(kept)
    assert not list(results.rglob("*.tmp"))


@pytest.mark.slow
@pytest.mark.fault
def test_two_processes_on_one_folder(place: Path, tmp_path: Path) -> None:
    """Both finish, and the store holds every cell once with the right numbers."""
    expected = finish(place, tmp_path / "alone")
    results = tmp_path / "shared"
    both = [
        subprocess.Popen(
            command(place, results), stdout=subprocess.PIPE, text=True, env=environment()
        )
        for _ in range(2)
    ]
    for process in both:
        out, _ = process.communicate(timeout=300)
        assert process.returncode == 0
        same(numbers(json.loads(out)), numbers(expected))
    assert len(stored(results)) == len(expected["cells"])
    manifest = json.loads((results / "manifest.json").read_text())
    assert len(manifest["runs"]) == 2

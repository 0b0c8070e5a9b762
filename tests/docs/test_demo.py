"""`make demo` prints the same table whatever the threads and the engine."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

import zsad
from docs.regenerate import table
from zsad import registry
from zsad.backbones.engines import processor
from zsad.results.store import ResultStore
from zsad.tables.results_matrix import boards

# An engine asked for by name computes what training reads, too: so the states are named.
TRAINED = ("filo", "faprompt", "kanoclip", "anomalyclip")
ROOT = Path(__file__).resolve().parents[2]


def variable(name: str) -> str:
    found = re.search(rf"^{name} \?= (.*)$", (ROOT / "Makefile").read_text(), re.M)
    assert found is not None
    return found[1]


def demo(results: Path, threads: int, engine: str) -> str:
    """README's table of a small demo: two images a category."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        document: dict[str, Any] = zsad.bench(
            methods=variable("DEMO_METHODS"),
            datasets="elpv,synthetic",
            backbone="zsad-tiny",
            limit=2,
            offline=True,
            device="cpu",
            results=results,
            overrides=[*(f"{m}.checkpoint=bundled" for m in TRAINED), f"backbone.engine={engine}"],
        )
    finally:
        torch.set_num_threads(before)
    assert not document["failed"]
    return table(next(iter(boards(ResultStore(results).cells()))))


def test_the_demo_shows_the_methods_that_readme_shows() -> None:
    """And gives FiLo the state that comes with it."""
    methods = variable("DEMO_METHODS").split(",")
    assert "filo.checkpoint=bundled" in variable("DEMO_OPTIONS")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    head = next(line for line in readme.splitlines() if line.startswith("| dataset (categories) |"))
    titles = head.strip("| ").split(" | ")[2:]
    assert len(titles) == len(methods)
    for name in methods:
        title = registry.method(name).title
        assert any(t == title or t.startswith(f"{title} (no boxes)") for t in titles), title


def test_the_demo_computes_with_one_thread_unless_more_are_asked_for() -> None:
    """Threads that wait for each other compute by waiting, several times what the work takes."""
    make = shutil.which("make")
    if make is None:
        pytest.skip("make is not installed")
    for words, threads in (((), "1"), (("DEMO_THREADS=2",), "2")):
        shown = [make, "-C", str(ROOT), "-pn", "demo", *words]
        done = subprocess.run(shown, capture_output=True, text=True, check=False)
        assert f"\nDEMO_THREADS = {threads}\n" in done.stdout
        assert "\ndemo: OMP_NUM_THREADS = $(DEMO_THREADS)\n" in done.stdout


@pytest.mark.slow
def test_threads_and_engines_change_no_digit(tmp_path: Path) -> None:
    right = demo(tmp_path / "torch1", 1, "torch")
    assert right.count("| synthetic") + right.count("| Synthetic") == 4
    assert demo(tmp_path / "torch2", 2, "torch") == right
    if processor.version("openvino"):
        assert demo(tmp_path / "openvino", 1, "openvino") == right

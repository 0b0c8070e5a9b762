"""The window benchmark runs, and its two slow ways agree."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.slow
def test_quick_window_benchmark() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "zsad.benchmarks.speed.windows",
            "--quick",
            "--backbone",
            "zsad-tiny",
            "--json",
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["scales"]
    side = 224 // 16
    assert row["windows"] == (side - 1) ** 2
    assert row["timed_windows_of_the_slow_ways"] == 4
    assert row["largest_difference_naive_zero_pixels"] < 1e-4
    assert row["token_subset_seconds"] > 0

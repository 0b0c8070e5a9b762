"""The text benchmark runs, and its three ways give the same features and gradients."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_quick_text_benchmark() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "zsad.benchmarks.speed.text",
            "--quick",
            "--repeats",
            "1",
            "--gradients",
            "--json",
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    ways = {row["way"]: row for row in json.loads(done.stdout)["ways"]}
    assert max(row["relative_difference"] for row in ways.values()) < 1e-5
    # counted work, not seconds: a loaded machine must not fail the test
    assert ways["naive"]["positions"] == 126 * 77
    assert ways["truncated"]["positions"] < ways["naive"]["positions"] / 2
    assert ways["prefix reuse"]["positions"] < ways["truncated"]["positions"] * 0.6

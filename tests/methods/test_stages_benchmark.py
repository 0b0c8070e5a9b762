"""The benchmark of a training step runs, and its ways have the same gradients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from zsad.benchmarks.speed import stages


def test_quick_benchmark(
    small_weights: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    weights = str(small_weights(40))
    document = stages.main(
        ["--quick", "--backbone", "file", "--weights", weights, "--size", "56", "--clock", "cpu"]
    )
    assert [row["method"] for row in document["methods"]] == ["aprilgan", "mvfa"]
    for row in document["methods"]:
        assert row["relative_difference"] < 1e-3
        assert row["ours_seconds"]["median"] > 0
    assert "mvfa" in capsys.readouterr().out

"""The training benchmark runs, and the store saves encoder passes without changing the result."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "speed" / "training.py"


def test_quick_benchmark(weights: Path, capsys: Any) -> None:
    spec = importlib.util.spec_from_file_location("speed_training", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    document = module.main(
        ["--quick", "--images", "8", "--backbone", "file", "--weights", str(weights)]
    )
    assert document["with"]["images_encoded"] == 8
    # every epoch of both methods, and one image to find out that nothing fits
    assert document["without"]["images_encoded"] >= 2 * 2 * 8
    assert document["ratio"] > 0
    # Adam's first steps follow the sign of a gradient, so rounding shows in near-zero entries
    assert document["relative_difference"] < 1e-2
    assert "times faster with the store" in capsys.readouterr().out

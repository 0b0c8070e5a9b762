"""What `make speed-gpu` runs, on a simulated device: it must not fail when it first meets a real
one.  No figure is looked at."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests import gpu_counts
from tests.fake_cuda import H200, simulated
from zsad.benchmarks.speed import end_to_end, gpu, scaling

ROOT = Path(__file__).resolve().parents[2]
ROW = "| FiLo, FAPrompt, KAnoCLIP, AnomalyCLIP together |"
SHORT = ["--quick", "--repeats", "1"]
TWO = ["--methods", "clip,anomalyclip", "--batch", "2"]


def commands() -> list[list[str]]:
    """The scripts of `make speed-gpu` with their words."""
    text = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    target = text.split("\nspeed-gpu:")[1].split("\n\n")[0]
    words = [line.split()[1:] for line in target.splitlines() if "python -m" in line]
    return [[w.replace("$(SPEED_BATCH)", "8") for w in line[1:]] for line in words]


def test_make_runs_these_with_words_that_they_know() -> None:
    (first, *words), (second, *rest) = commands()
    assert (first, second) == ("zsad.benchmarks.speed.gpu", "zsad.benchmarks.speed.scaling")
    known = (ROOT / "benchmarks/speed/gpu.py").read_text()
    more = (ROOT / "benchmarks/speed/scaling.py").read_text()
    shared = (ROOT / "benchmarks/speed/measure.py").read_text()
    assert all(f'"{w}"' in known for w in words if w.startswith("--"))
    assert all(f'"{w}"' in more + shared for w in rest if w.startswith("--"))


@pytest.mark.slow
def test_speed_launches_and_equality(capsys: pytest.CaptureFixture[str]) -> None:
    with simulated("cuda", memory=H200):
        document = gpu.main(["--device", "cuda", "--precision", "bf16", *SHORT, *TWO])
    assert set(document["calls"]) == {"clip", "anomalyclip", "clip+anomalyclip"}
    same = document["equality"]
    assert same["cuda fp32 - cpu fp32"] <= 1e-4
    assert same["cuda bf16 - cpu fp32"] < 0.1
    assert same["little memory - ample"] == 0
    assert "largest difference of any metric" in capsys.readouterr().out


@pytest.mark.slow
def test_scaling(capsys: pytest.CaptureFixture[str]) -> None:
    with simulated("cuda", memory=H200):
        document = scaling.main(["--device", "cuda", "--precision", "bf16", *SHORT])
    assert {"images", "methods", "size", "batch"} == set(document["axes"])
    assert "simulated" in capsys.readouterr().out  # the device's name


@pytest.mark.slow
def test_windows_compiled(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--device", "cuda", "--precision", "bf16", "--only-together", "--compile", *SHORT]
    with simulated("cuda", memory=H200):
        end_to_end.main([*words, "--methods", "winclip", "--batch", "1"])
    assert "all together" in capsys.readouterr().out


# ------------------------------------------------------------------------------- roofline
@pytest.mark.slow
def test_the_four_methods_are_priced_at_1_6_times_what_they_were() -> None:
    found = gpu_counts.priced([gpu_counts.FOUR])[gpu_counts.FOUR]
    assert found.rate >= 1.6 * gpu_counts.BEFORE[gpu_counts.FOUR]
    page = (ROOT / "docs" / "performance.md").read_text()
    row = next(line for line in page.splitlines() if line.startswith(ROW))
    cells: list[Any] = [re.sub(",(?=[0-9]{3})", "", c).strip() for c in row.split("|")]
    names = gpu_counts.FOUR.split(",")
    kernels = [found.kernels("encode"), found.kernels(*names), found.kernels("metrics")]
    assert [int(c.split(",")[0]) for c in cells[2:5]] == kernels
    assert int(cells[6]) == round(found.rate)

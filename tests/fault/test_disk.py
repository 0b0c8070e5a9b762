"""A disk that refuses to be written ends in one line, with whatever was stored still whole."""

from __future__ import annotations

import json
import resource
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fault.test_kill import command, environment, numbers, place

__all__ = ["place"]  # a fixture


def limited(size: int) -> Callable[[], None]:
    """Files of this process may not grow beyond ``size`` bytes: writing fails as on a full disk."""

    def apply() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return apply


@pytest.mark.slow
@pytest.mark.fault
def test_a_full_disk_fails_cells_and_a_later_run_completes_them(
    place: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    done = subprocess.run(
        command(place, results),
        capture_output=True,
        text=True,
        env=environment(),
        timeout=300,
        preexec_fn=limited(3000),
    )
    assert done.returncode in (2, 3), done.stderr
    assert "Traceback" not in done.stderr
    assert "cannot be written" in done.stdout + done.stderr
    again = subprocess.run(
        command(place, results), capture_output=True, text=True, env=environment(), timeout=300
    )
    assert again.returncode == 0, again.stderr
    assert len(numbers(json.loads(again.stdout))) == 8


@pytest.mark.slow
@pytest.mark.fault
def test_a_results_path_below_a_file_is_one_line(place: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    done = subprocess.run(
        command(place, tmp_path / "file" / "results"),
        capture_output=True,
        text=True,
        env=environment(),
        timeout=300,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "results" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1

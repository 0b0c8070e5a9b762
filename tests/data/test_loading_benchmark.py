"""The loading benchmark runs; an index of MVTec AD's size takes less than a second."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from zsad.data import images
from zsad.data.index import load_index

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_quick_loading_benchmark() -> None:
    options = ["--images", "4", "--size", "56", "--workers", "0,1", "--repeats", "3", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "zsad.benchmarks.speed.loading", *options],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["index"]["images"] == 5354
    assert document["index"]["warm_s"] < 1
    assert [row["workers"] for row in document["decoding"]] == [0, 1]


def test_an_index_opens_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the three datasets whose labels lie in their masks."""
    from tests.data.miniatures import WRITERS, write_miniature

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("an image was opened")

    for name in WRITERS:
        write_miniature(name, tmp_path)
    monkeypatch.setattr(images, "_open", refuse)
    monkeypatch.setattr("PIL.Image.open", refuse)
    for name in sorted(set(WRITERS) - {"sdd", "aitex", "ksdd2"}):
        assert load_index(name, tmp_path).samples

"""The examination finds what is there, and says when something is broken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from zsad import doctor
from zsad.cli.main import main
from zsad.store import ResultStore
from zsad.types import CellRecord


def test_versions_metrics_and_storage_are_fine_here(tmp_path: Path) -> None:
    found = [*doctor.versions(), *doctor.metrics(), *doctor.storage(str(tmp_path))]
    assert [f for f in found if f.state == "broken"] == []
    values = {f.name: f.text.split(" against ") for f in found if f.area == "metric"}
    assert len(values) == 7
    for got, expected in values.values():
        assert 0 < float(got) < 1  # not a trivial case
        assert float(got) == pytest.approx(float(expected), abs=1e-9)


def test_a_wrong_metric_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from zsad.metrics import reference

    monkeypatch.setattr(reference, "aupro", lambda *_: 0.25)
    states = {f.name: f.state for f in doctor.metrics()}
    assert states.pop("pixel_aupro") == "broken"
    assert set(states.values()) == {"ok"}


def test_a_broken_record_is_named(tmp_path: Path) -> None:
    path = ResultStore(tmp_path).put(
        CellRecord("m", "d", "c", 0, "f", {"image_auroc": 0.5}, {}, 1, 1, {})
    )
    path.write_text("{")
    broken = [f for f in doctor.storage(str(tmp_path)) if f.state == "broken"]
    assert [f.name for f in broken] == ["c.json"]


def test_an_examination_that_fails_does_not_end_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fail() -> None:
        raise ImportError("libfoo.so is missing")

    for name in ("devices", "methods", "weights"):
        monkeypatch.setattr(doctor, name, lambda: iter(()))
    monkeypatch.setattr(doctor, "metrics", fail)
    assert main(["doctor", "--json", "--results", str(tmp_path)]) == 3
    found = json.loads(capsys.readouterr().out)
    broken = [f for f in found if f["state"] == "broken"]
    assert [(f["area"], f["text"]) for f in broken] == [
        ("metric", "ImportError: libfoo.so is missing")
    ]
    assert found[-1]["area"] == "storage"

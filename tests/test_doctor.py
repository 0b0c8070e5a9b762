"""The examination finds what is there, and says when something is broken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.data.miniatures import write_miniature
from zsad import doctor
from zsad.cli.main import main
from zsad.prompt_bank.answers import AnswerStore
from zsad.results.records import CellRecord
from zsad.results.store import ResultStore


def test_versions_metrics_and_storage_are_fine_here(tmp_path: Path) -> None:
    found = [*doctor.versions(), *doctor.metrics(), *doctor.storage(str(tmp_path))]
    assert [f for f in found if f.state == "broken"] == []
    values = {f.name: f.text.split(" against ") for f in found if f.area == "metric"}
    assert len(values) == 9
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


def test_caches_are_sized_and_damage_in_them_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZSAD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ZSAD_PROMPTS", str(tmp_path / "prompts"))
    monkeypatch.setenv("ZSAD_WEIGHTS", str(tmp_path / "weights"))
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "clip.pt").write_bytes(b"x" * 2**20)
    answers = AnswerStore(tmp_path / "prompts")
    answers.put({"prompt": "a", "model": "m"}, "yes")
    damaged = answers.put({"prompt": "b", "model": "m"}, "no")
    damaged.write_text(damaged.read_text().replace('"no"', '"yes"'))
    found = list(doctor.caches())
    assert all(f.area == "cache" for f in found)
    texts = {f.name: f.text for f in reversed(found)}
    assert texts["weights"].endswith("weights, 1 file, 1.0 MiB")
    assert texts["boxes"].endswith("boxes, made when it is needed")
    assert "answers, 2 files" in texts["answers"]
    assert [f.name for f in found if f.state == "broken"] == [damaged.name]
    assert {"prompts filo", "prompts alfa", "prompts kanoclip"} <= set(texts)


def test_a_cache_that_cannot_be_written_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "boxes").mkdir()
    monkeypatch.setenv("ZSAD_CACHE", str(tmp_path))
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path / "boxes")
    broken = [f for f in doctor.caches() if f.state == "broken"]
    assert [(f.name, f.text.endswith("cannot be written")) for f in broken] == [("boxes", True)]


def test_the_detectors_weights_are_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZSAD_WEIGHTS", str(tmp_path))
    assert [f.state for f in doctor.detector()] == ["absent"]
    (tmp_path / "groundingdino_swint_ogc.pth").touch()
    assert [f.state for f in doctor.detector()] == ["ok"]


def test_datasets_that_differ_are_told_from_broken_ones(tmp_path: Path) -> None:
    """A miniature has not the published counts; a listed file that is gone is worse."""
    for name in ("visa", "btad"):
        write_miniature(name, tmp_path)
    found = {f.name: f for f in doctor.datasets(str(tmp_path))}
    assert found["visa"].state == "differs"
    assert "`zsad data check visa` lists everything" in found["visa"].text
    assert found["mvtec"].state == "absent"
    assert found["synthetic"].state == "ok"
    next(tmp_path.rglob("candle/Data/Images/Anomaly/*")).unlink()
    again = {f.name: f.state for f in doctor.datasets(str(tmp_path))}
    assert (again["visa"], again["btad"]) == ("broken", "differs")

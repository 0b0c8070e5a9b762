"""What comes from the environment is used, and reaches no file that a run leaves."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from zsad import config as cfg
from zsad.cli.main import main
from zsad.errors import RequestError
from zsad.io.environment import concealed
from zsad.results.records import CellRecord
from zsad.results.store import ResultStore, key_of
from zsad.runner.logs import logged

SECRET = "s3cr3t-token-of-mine, longer than what messages repeat of a value"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    monkeypatch.setenv("ZSAD_TEST_SECRET", SECRET)
    path = tmp_path / "settings.yaml"
    path.write_text("ray: {address: 'ray://${oc.env:ZSAD_TEST_SECRET}@head:10001'}\n")
    return cfg.read_yaml(path)


def test_it_is_used_as_it_is(settings: dict[str, object]) -> None:
    assert settings == {"ray": {"address": f"ray://{SECRET}@head:10001"}}


def test_it_is_told_as_a_reference(settings: dict[str, object]) -> None:
    reference = "ray://${oc.env:ZSAD_TEST_SECRET}@head:10001"
    assert concealed(settings) == {"ray": {"address": reference}}
    assert concealed(["a", 1, None, {"k": (SECRET, 0.5)}]) == [
        "a",
        1,
        None,
        {"k": ["${oc.env:ZSAD_TEST_SECRET}", 0.5]},
    ]


def test_records_and_manifest_do_not_hold_it(settings: dict[str, object], tmp_path: Path) -> None:
    store = ResultStore(tmp_path / "results")
    record = CellRecord(
        "clip", "parts", "bolt", 0, "f" * 16, {}, {}, 1, 1, {}, {"config": {"weights": SECRET}}
    )
    store.put(record)
    store.write_manifest({"id": "1", "settings": settings})
    store.fail(replace(key_of(record), category="nut"), f"{SECRET}: no such host")
    with logged(store.root):
        logging.getLogger("zsad").warning("%s does not answer", SECRET)
    texts = [p.read_text(encoding="utf-8") for p in store.root.rglob("*") if p.is_file()]
    assert len(texts) == 4
    assert "${oc.env:ZSAD_TEST_SECRET} does not answer" in (store.root / "run.log").read_text()
    assert not any(SECRET in text for text in texts)
    (run,) = store.manifest()["runs"]
    assert json.dumps(run).count("${oc.env:ZSAD_TEST_SECRET}") == 1


def test_what_is_printed_does_not_hold_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An error that repeats a value, for a log that others read."""
    monkeypatch.setenv("ZSAD_TEST_SECRET", SECRET)
    words = ["bench", "--methods", "clip", "--datasets", "synthetic", "--backbone", "zsad-tiny"]
    assert main([*words, "--dry-run", "clip.temperature=${oc.env:ZSAD_TEST_SECRET}"]) == 2
    said = capsys.readouterr()
    assert SECRET not in said.err + said.out
    assert "clip.temperature='${oc.env:ZSAD_TEST_SECRET}'" in said.err


def test_a_variable_that_is_not_there_is_an_error_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("name: ${oc.env:ZSAD_TEST_ABSENT}\nother: ${oc.env:ZSAD_TEST_ABSENT,fine}\n")
    with pytest.raises(RequestError, match=r"settings\.yaml.*ZSAD_TEST_ABSENT"):
        cfg.read_yaml(path)
    path.write_text("other: ${oc.env:ZSAD_TEST_ABSENT,fine}\n")
    assert cfg.read_yaml(path) == {"other": "fine"}

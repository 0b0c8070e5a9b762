"""What a run writes down besides figures: its log, and the readings of a paper's open points."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zsad.runner.logs import FILE, logged

Bench = Callable[..., dict[str, Any]]
LINE = re.compile(
    r"alfa, (\w+): intervals nest in \d+ % of 8 images; (\d+\.\d) normal and (\d+\.\d) abnormal "
    r"prompts kept on average"
)


def test_alfa_logs_its_filter_and_the_manifest_marks_its_readings(
    bench: Bench, capfd: pytest.CaptureFixture[str]
) -> None:
    document = bench("clip,alfa")
    assert document["failed"] == []
    results = Path(document["results_dir"])
    lines = [m for m in map(LINE.search, (results / FILE).read_text().splitlines()) if m]
    assert [m[1] for m in lines] == ["bolt", "cloth"]
    assert all(1 <= float(m[2]) <= 72 and 1 <= float(m[3]) <= 72 for m in lines)
    assert "intervals nest" not in "".join(capfd.readouterr())
    (run,) = json.loads((results / "manifest.json").read_text())["runs"]
    assert list(run["own_readings"]) == ["alfa"]
    readings, config = run["own_readings"]["alfa"], run["configs"]["alfa"]
    assert readings["context.on_empty"] == config["context"]["on_empty"] == "keep_side"
    assert readings["aligner.solver"] == config["aligner"]["solver"] == "ridge"
    records = [json.loads(p.read_text()) for p in results.glob("cells/*/*/*/*.json")]
    assert [r["info"]["revision"] for r in records] == [1] * 4


def test_handlers_get_what_they_got_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = logging.getLogger("zsad.somewhere")
    caplog.set_level(logging.WARNING)
    with logged(tmp_path):
        log.debug("too fine")
        log.info("for the file")
        log.warning("for all")
    log.info("after the run")
    assert [r.message for r in caplog.records] == ["for all"]
    text = (tmp_path / FILE).read_text()
    assert [line.split(": ", 1)[1] for line in text.splitlines()] == ["for the file", "for all"]


def test_a_second_run_appends(tmp_path: Path) -> None:
    for text in ("one", "two"):
        with logged(tmp_path):
            logging.getLogger("zsad").info(text)
    assert [line[-3:] for line in (tmp_path / FILE).read_text().splitlines()] == ["one", "two"]


def test_a_log_that_cannot_be_written_ends_no_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / FILE).mkdir()
    with logged(tmp_path):
        logging.getLogger("zsad").info("lost")
        logging.getLogger("zsad").info("lost, too")
    assert capfd.readouterr().err == ""

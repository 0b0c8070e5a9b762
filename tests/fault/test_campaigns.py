"""``make fault``: what it runs is there, says what was tried, and ends in time."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.fault import campaigns
from tests.fault.campaigns import CAMPAIGNS, ROOT, Campaign, main, run, said

REPORT = """<testsuites><testsuite>
<testcase><properties><property name="tried" value="train: 3 of 9"/></properties></testcase>
<testcase name="b"><failure message="no">no</failure></testcase>
<testcase name="c"><skipped/></testcase>
</testsuite></testsuites>"""


def test_every_campaign_names_what_is_there() -> None:
    for campaign in CAMPAIGNS:
        names = campaign.words[:1] if campaign.module else campaign.words
        paths = [w.removeprefix("--ignore=") for w in names if "tests/" in w]
        paths += [w.replace(".", "/") + ".py" for w in names if campaign.module]
        assert paths
        assert all((ROOT / p).exists() for p in paths), campaign


def test_a_report_says_what_was_tried_and_whether_it_held(tmp_path: Path) -> None:
    path = tmp_path / "report.xml"
    assert said(path) == ("", False)
    path.write_text(REPORT)
    assert said(path) == ("2 tests; 1 failed; train: 3 of 9", True)


def test_a_campaign_that_does_not_end_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(campaigns, "GRACE", 2.0)
    (tmp_path / "test_sleep.py").write_text("import time\n\ndef test_it():\n    time.sleep(600)\n")
    begin = time.monotonic()
    found = run(Campaign("sleep", 1, (str(tmp_path / "test_sleep.py"),)), 0.5, tmp_path)
    assert time.monotonic() - begin < 60
    assert (found.cut, found.broken) == (True, False)
    assert any(words in found.line() for words in ("ended by the time", "NOT TRIED"))
    assert "== sleep" in capfd.readouterr().out


def test_a_campaign_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--only", "nothing of the kind"])
    assert "no such campaign; there are: kill -9" in capsys.readouterr().err

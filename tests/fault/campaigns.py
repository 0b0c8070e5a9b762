"""All campaigns, one after another: ``python -m tests.fault.campaigns --seconds 900``.

Kills at every change to the disk, full and read-only disks, broken images and devices, dead
workers, hostile commands, odd documents and pictures, and inputs mutated at random.  Each campaign
has a share of the seconds; what one does not need goes to those after it, and one that does not end
is ended.  The last lines say what was tried, how much of it, and what broke.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[2]
GRACE = 30.0  # seconds in which a campaign that is told to end does


@dataclass(frozen=True)
class Campaign:
    """``words``: of pytest, or of a module of its own if ``module``; ``share`` of the time, in
    parts; ``loops``: among how many loops over moments the time of a campaign is divided."""

    title: str
    share: float
    words: tuple[str, ...]
    module: bool = False
    loops: int = 1

    def command(self, seconds: float, report: Path) -> list[str]:
        if self.module:
            return [sys.executable, "-m", *self.words, "--seconds", f"{seconds:.0f}"]
        quiet = ("-q", "-p", "no:cacheprovider", "--tb=short", "-o", "junit_family=xunit1")
        return [sys.executable, "-m", "pytest", *quiet, f"--junitxml={report}", *self.words]

    def environment(self, seconds: float) -> dict[str, str]:
        each = seconds * 0.8 / self.loops  # beside the loops there is something to set up
        return {**os.environ, "ZSAD_FAULT_LONG": "1", "ZSAD_FAULT_SECONDS": f"{each:.0f}"}


LEFTOVERS = "tests/fault/test_leftovers.py"
CAMPAIGNS = (
    Campaign("kill -9 at every change", 30,
             (LEFTOVERS, "-k", "kill_anywhere and SIGKILL"), loops=7),
    Campaign("SIGINT and SIGTERM at every change", 20,
             (LEFTOVERS, "-k", "kill_anywhere and not SIGKILL"), loops=14),
    Campaign("four processes at once", 6, (LEFTOVERS, "-k", "four_processes")),
    Campaign("sweeps and trainings killed, the same numbers", 10,
             ("tests/fault/test_kill.py", "tests/fault/test_together.py"), loops=4),
    Campaign("disks, images, devices, trainings, the store", 10,
             ("tests/fault", "tests/training/test_engine.py", "tests/results/test_store.py",
              "-m", "fault", f"--ignore={LEFTOVERS}", "--ignore=tests/fault/test_kill.py",
              "--ignore=tests/fault/test_together.py")),
    Campaign("workers of Ray killed", 6, ("tests/runner/test_ray.py", "-m", "fault")),
    Campaign("odd documents", 6, ("tests/fuzz/test_documents.py",)),
    Campaign("odd pictures", 4, ("tests/fuzz/test_images.py",)),
    Campaign("hostile commands", 12, ("tests.fuzz.commands",), module=True),
    Campaign("inputs mutated at random", 6, ("tests.fuzz.standing",), module=True),
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """``tried``: what was, in words; ``broken``: whether a promise was; ``cut``: by the time."""

    campaign: Campaign
    tried: str
    broken: bool
    cut: bool
    seconds: float

    def line(self) -> str:
        state = (
            "BROKEN" if self.broken else "ended by the time, nothing broken" if self.cut else "ok"
        )
        return f"{self.campaign.title}: {self.tried or 'nothing'} in {self.seconds:.0f} s: {state}"


def run(campaign: Campaign, seconds: float, folder: Path) -> Outcome:
    """Let it run for about ``seconds``; its output goes to the standard output."""
    report, begin = folder / "report.xml", time.monotonic()
    report.unlink(missing_ok=True)
    words = campaign.command(seconds, report)
    print(f"== {campaign.title} ({seconds:.0f} s): {shlex.join(words[1:])}", flush=True)
    lines, cut = folder / "output", False
    with lines.open("w") as output:
        process = subprocess.Popen(
            words,
            cwd=ROOT,
            env=campaign.environment(seconds),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            process.wait(seconds + GRACE)
        except subprocess.TimeoutExpired:
            cut = True
            process.send_signal(signal.SIGINT)  # pytest says what it has seen so far
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(GRACE)
    end_group(process.pid)
    text = lines.read_text(errors="replace")
    tried, broken = said(report) if not campaign.module else (last_line(text), False)
    broken = broken or (not cut and process.returncode != 0)
    if broken:
        print(text[-6000:], flush=True)
    return Outcome(campaign, tried, broken, cut, time.monotonic() - begin)


def end_group(leader: int) -> None:
    """Whatever a campaign left running."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return


def said(report: Path) -> tuple[str, bool]:
    """(What the report of pytest counts, in words; whether something failed)."""
    if not report.exists():
        return "", False
    cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    kinds = {"failure": 0, "error": 0, "skipped": 0}
    for case in cases:
        for kind in kinds:
            kinds[kind] += case.find(kind) is not None
    tried = [
        str(p.get("value")) for c in cases for p in c.iter("property") if p.get("name") == "tried"
    ]
    bad = kinds["failure"] + kinds["error"]
    words = [f"{len(cases) - kinds['skipped']} tests", *([f"{bad} failed"] if bad else []), *tried]
    return "; ".join(words), bad > 0


def last_line(text: str) -> str:
    lines = [
        line for line in text.splitlines() if re.match(r"\d+ (of \d+ )?(commands|inputs)", line)
    ]
    return lines[-1] if lines else ""


def main(words: Sequence[str] | None = None) -> int:
    """Run them; 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=900.0, help="for all of them together")
    parser.add_argument("--only", default="", metavar="WORDS", help="those whose title holds this")
    args = parser.parse_args(words)
    chosen = [c for c in CAMPAIGNS if args.only in c.title]
    if not chosen:
        parser.error(f"--only {args.only}: no such campaign; there are: "
                     + ", ".join(c.title for c in CAMPAIGNS))  # fmt: skip
    end = time.monotonic() + args.seconds
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="zsad-campaigns-") as place:
        for number, campaign in enumerate(chosen):
            parts = sum(c.share for c in chosen[number:])
            left = max(0.0, end - time.monotonic()) * campaign.share / parts
            outcomes.append(run(campaign, left, Path(place)))
            print(outcomes[-1].line(), flush=True)
    print("\n== what was tried")
    for outcome in outcomes:
        print(outcome.line())
    broken = sum(o.broken for o in outcomes)
    untried = sum(not o.tried and not o.broken for o in outcomes)
    print(f"{len(outcomes)} campaigns, {broken} with broken promises, {untried} not tried")
    return bool(broken)


if __name__ == "__main__":
    raise SystemExit(main())

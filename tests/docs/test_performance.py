"""What docs/performance.md calls measured says what it was measured on, and how to do it again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
MEASURED = TEXT.split("\n## Measured\n")[1].split("\n## ")[0]
SECTIONS = {part.split("\n", 1)[0]: part.split("\n", 1)[1] for part in MEASURED.split("\n### ")[1:]}


def test_there_are_tables() -> None:
    assert sum("|---" in text for text in SECTIONS.values()) >= 8


@pytest.mark.parametrize("title", SECTIONS)
def test_every_table_names_engine_processor_and_command(title: str) -> None:
    """Before its first table: "Engine: ...; processor: ...", and the command that makes it."""
    before, table, _ = SECTIONS[title].partition("\n|")
    if not table:
        return
    assert re.search(r"^Engine: .+; processor: .+", before, re.MULTILINE), title
    command = re.search(r"^python -m (zsad\.benchmarks|tests)\.([\w.]+)", before, re.MULTILINE)
    assert command, title
    folder = "benchmarks" if command[1] == "zsad.benchmarks" else "tests"
    assert (ROOT / folder / (command[2].replace(".", "/") + ".py")).is_file()


def test_the_peak_is_the_best_of_all_engines() -> None:
    (line,) = re.findall(
        r"The best matrix product of the same run: ([^.]+\.\d[^.]+\.\d[^.]+)", TEXT
    )
    for engine in ("torch", "OpenVINO", "oneDNN"):
        assert engine in line

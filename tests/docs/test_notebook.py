"""The notebook of docs/ holds what its cells show: run again, they show the same."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from docs.notebook import NOTEBOOK, SOURCE, Cell, cells, notebook, outputs

NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?")


@pytest.fixture(scope="module")
def stored() -> dict[str, Any]:
    held: dict[str, Any] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return held


def texts(cell: dict[str, Any]) -> str:
    """What a cell shows as text."""
    lines = [
        line
        for output in cell.get("outputs", ())
        for line in output.get("text", output.get("data", {}).get("text/plain", ()))
    ]
    return "".join(lines)


def test_it_is_made_of_its_source(stored: dict[str, Any]) -> None:
    held = [Cell(c["cell_type"] == "code", "".join(c["source"])) for c in stored["cells"]]
    assert held == cells(SOURCE), "make it again: python -m docs.notebook"
    assert (stored["nbformat"], stored["nbformat_minor"]) == (4, 5)
    assert len({c["id"] for c in stored["cells"]}) == len(held)


def test_it_is_small_and_names_no_place(stored: dict[str, Any]) -> None:
    assert NOTEBOOK.stat().st_size < 300_000
    said = "".join(map(texts, stored["cells"]))
    assert not re.search(r"(?:^|[\s'\"])/(?:home|tmp|root|work|Users)/", said)


def test_it_shows_heat_maps_tables_and_a_frame(stored: dict[str, Any]) -> None:
    media = [set(o["data"]) for c in stored["cells"] for o in c.get("outputs", ()) if "data" in o]
    assert sum("image/jpeg" in kinds for kinds in media) == 1
    assert sum("text/html" in kinds for kinds in media) >= 3
    html = "".join(
        "".join(o["data"].get("text/html", ()))
        for c in stored["cells"]
        for o in c.get("outputs", ())
        if "data" in o
    )
    assert "data:image/webp;base64," in html  # a prediction
    assert "not comparable with published results" in html  # the tables' note


@pytest.mark.slow
def test_its_cells_show_what_is_stored(stored: dict[str, Any], tmp_path: Path) -> None:
    again = notebook(cells(SOURCE), tmp_path)
    for before, after in zip(stored["cells"], again["cells"], strict=True):
        old, new = texts(before), texts(after)
        assert NUMBER.sub("#", new) == NUMBER.sub("#", old), "".join(before["source"])
        found, held = (list(map(float, NUMBER.findall(text))) for text in (new, old))
        # 0.02 of a score, or of a percentage: what another processor may round
        assert found == pytest.approx(held, rel=0.02, abs=0.02), "".join(before["source"])


def test_outputs_are_those_of_jupyter() -> None:
    names: dict[str, Any] = {}
    assert outputs("x = 2", names, 1) == []
    printed, value = outputs("print('a')\nx + 1", names, 2)
    assert printed == {"name": "stdout", "output_type": "stream", "text": ["a\n"]}
    assert value["data"] == {"text/plain": ["3"]}
    assert value["execution_count"] == 2
    assert outputs("None", names, 3) == []

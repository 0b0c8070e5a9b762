"""What methods cost, from what runs stored: nothing is ranked, nothing is guessed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from zsad import tables
from zsad.checkpoints import CheckpointMeta, save
from zsad.results.records import CellRecord
from zsad.results.store import ResultStore
from zsad.tables.model import Page

ENGINE = {"name": "openvino", "version": "2026.1", "processor": "A processor"}


def put(store: ResultStore, method: str, category: str, encode: float = 2.0, **info: Any) -> None:
    seconds = {"encode": encode, "head": 0.5, "map": 0.25, "text": 9.0, "decode": 9.0}
    held = {"backbone": "vit-l-14-336", "title": method, "method": method, "engine": ENGINE}
    store.put(
        CellRecord(
            method, "mvtec", category, 0, f"{method}{category}", {"image_auroc": 0.9}, {}, 6, 4,
            seconds, {**held, **info},
        )
    )  # fmt: skip


def cost(root: Path) -> Page:
    (page,) = (p for p in tables.pages(root, cost=True) if p.name.endswith("/cost"))
    return page


def test_times_and_trained_values_are_those_of_the_records(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    paid = {"batches": 50, "seconds": 5.0, "processor": "B processor", "threads": 2}
    meta = CheckpointMeta("coop", {}, "vit-l-14-336", "", (), {}, cost=paid)
    state = {"context": torch.zeros(12, 8), "more": torch.zeros(3)}
    save(tmp_path / "checkpoints" / "coop" / "a.safetensors", state, meta)
    for category in ("bottle", "cable"):
        put(store, "clip", category, trained=False)
        put(store, "coop", category, trained=True, trained_on={"checkpoint": "a.safetensors"})
    page = cost(tmp_path)
    rows = {entry["method"]: entry for entry in page.tables[0].data}
    assert (rows["clip"]["encoder_ms"], rows["clip"]["method_ms"]) == (200.0, 75.0)
    assert (rows["clip"]["trained_values"], rows["clip"]["seconds_per_batch"]) == (0, None)
    assert (rows["coop"]["trained_values"], rows["coop"]["seconds_per_batch"]) == (99, 0.1)
    assert rows["coop"]["trained_on"] == "B processor, 2 threads"
    assert (rows["coop"]["processor"], rows["coop"]["engine"]) == ("A processor", "openvino 2026.1")
    assert all(span.rank == 0 for line in page.tables[0].lines for c in line.cells for span in c)
    assert any("never compared" in note for note in page.notes)
    assert "ms per image" in tables.render(tmp_path, cost=True)
    assert not any(p.name.endswith("/cost") for p in tables.pages(tmp_path))


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.0, "0"), (0.000123456, "0.0123"), (0.35149, "35.1"), (11.23, "1,120")]
)
def test_a_time_has_three_digits_and_no_exponent(
    seconds: float, shown: str, tmp_path: Path
) -> None:
    put(ResultStore(tmp_path), "clip", "bottle", encode=seconds, trained=False)
    (line,) = cost(tmp_path).tables[0].lines
    assert shown in [span.text for cell in line.cells for span in cell]  # of ten images


def test_what_is_not_recorded_is_not_guessed(tmp_path: Path) -> None:
    """Records of earlier versions, a state that is gone, another processor."""
    store = ResultStore(tmp_path)
    put(store, "coop", "bottle", trained=True, trained_on={"checkpoint": "gone"}, engine={})
    put(store, "coop", "cable", trained=True)
    rows = cost(tmp_path).tables[0].data
    assert [r["processor"] for r in rows] == ["not recorded", "A processor"]
    assert {(r["trained_values"], r["seconds_per_batch"]) for r in rows} == {(None, None)}

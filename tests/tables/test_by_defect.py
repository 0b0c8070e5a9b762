"""Figures per type of defect, known by hand."""

from __future__ import annotations

from pathlib import Path

from tests.tables.test_tables import record
from zsad import tables
from zsad.results.store import ResultStore


def put(store: ResultStore, defects: list[str], scores: list[float]) -> None:
    uids = [str(i) for i in range(len(scores))]
    labels = [int(bool(d)) for d in defects]
    columns = {"uid": uids, "label": labels, "defect": defects, "score": scores, "path": uids}
    store.put(record(), columns)


def test_each_type_is_set_against_all_normal_images(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    put(store, ["", "", "scratch", "dent", "dent"], [0.1, 0.4, 0.9, 0.2, 0.5])
    (page,) = (p for p in tables.pages(store.root) if p.name.endswith("/mine-defects"))
    auroc = next(t for t in page.tables if t.name == "defects-image_auroc")
    found = {line.label: line.cells[0][0].text for line in auroc.lines}
    # dent: of the four pairs of a dent and a normal image, three are in order
    assert found == {"a, dent (2)": "75.0", "a, scratch (1)": "100.0"}


def test_one_type_alone_has_no_page(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    put(store, ["", "scratch"], [0.1, 0.9])
    assert not [p for p in tables.pages(store.root) if p.name.endswith("-defects")]

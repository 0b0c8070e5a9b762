"""Figures per type of defect, known by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.tables.test_tables import record
from zsad import tables
from zsad.results.store import ResultStore


def put(store: ResultStore, defects: list[str], scores: list[float]) -> None:
    uids = [str(i) for i in range(len(scores))]
    labels = [int(bool(d)) for d in defects]
    columns = {"uid": uids, "label": labels, "defect": defects, "score": scores, "path": uids}
    one = record()
    one.n_normal, one.n_anomalous = labels.count(0), labels.count(1)
    store.put(one, columns)


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


def test_figures_over_fewer_images_are_marked_and_not_ranked(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    columns = {"uid": list("abcd"), "label": [0, 0, 1, 1], "defect": ["", "", "dent", "scratch"]}
    partial: dict[str, Any] = {"skipped": ["x.png"]}
    methods = (("clip", 0.9, partial), ("maskclip", 0.9, {}), ("winclip", 0.2, {}))
    for method, last, info in methods:
        scores = {**columns, "score": [0.1, 0.4, 0.3, last], "path": list("abcd")}
        one = record(method, **info)
        one.n_normal = one.n_anomalous = 2
        store.put(one, scores)
    (page,) = (p for p in tables.pages(store.root) if p.name.endswith("/mine-defects"))
    auroc = next(t for t in page.tables if t.name == "defects-image_auroc")
    (scratch,) = (line for line in auroc.lines if line.label.startswith("a, scratch"))
    found = {h.split(" ")[0]: cell[0] for h, cell in zip(auroc.heads, scratch.cells)}
    assert found["CLIP"] == ("100.0¶", 0)
    assert sorted(found.values()) == [("100.0", 1), ("100.0¶", 0), ("50.0", 2)]
    expected = {"clip": True, "maskclip": False, "winclip": False}
    assert {row["method"]: row["partial"] for row in auroc.data} == expected
    assert any(note.startswith("¶") for note in page.notes)

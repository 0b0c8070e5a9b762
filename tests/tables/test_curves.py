"""Curves over a hyper-parameter are those of the rows that differ in it alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from zsad import config as cfg
from zsad import registry, tables
from zsad.results.records import CellRecord
from zsad.results.store import ResultStore
from zsad.tables.formats import html_page
from zsad.tables.model import Page

ROWS = {"FAPrompt": {}, "K = 1": {"n_prompts": 1}, "K = 5": {"n_prompts": 5},
        "base + DAP": {"enabled": False}}  # fmt: skip


def put(store: ResultStore, label: str, dataset: str, value: float, **cap: Any) -> None:
    entry = registry.method("faprompt")
    config = entry.resolve(("row", {"preset": "paper", "cap": cap}))
    slug = re.sub("[^a-z0-9]+", "-", label.lower().replace("+", " plus ")).strip("-")
    info = {
        "backbone": "vit-l-14-336",
        "title": f"FAPrompt: {label}",
        "protocol": "faprompt-ablation",
        "preset": "paper",
        "config": cfg.identity(config),
        "revision": entry.revision,
    }
    metrics = {"image_auroc": value, "pixel_auroc": value}
    store.put(
        CellRecord(f"faprompt@{slug}", dataset, "brain", 0, label, metrics, {}, 5, 5, {}, info)
    )


def page(root: Path) -> Page:
    return next(p for p in tables.pages(root) if "ablation" in p.name)


def test_rows_of_one_key_are_a_curve(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    for number, (label, cap) in enumerate(ROWS.items()):
        put(store, label, "headct", 0.8 + number / 100, **cap)
    found = page(tmp_path)
    titles = [drawing.title for drawing in found.drawings]
    assert titles == ["image AUROC over cap.n_prompts", "pixel AUROC over cap.n_prompts"]
    picture = ElementTree.fromstring(found.drawings[0].svg)
    space = "{http://www.w3.org/2000/svg}"
    texts = [t.text for t in picture.iter(f"{space}text")]
    assert [t for t in texts if t in ("1", "5", "10")] == ["1", "5", "10"]  # in order
    heights = [float(c.attrib["cy"]) for c in picture.iter(f"{space}circle")]
    assert heights[0] < heights[2] < 240  # K = 1 has 81, the plain row with ten has 80
    assert heights[1] < heights[0]
    assert found.drawings[0].svg in html_page(found)


def test_two_values_are_no_curve(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    for label in ("FAPrompt", "K = 1", "base + DAP"):
        put(store, label, "headct", 0.8, **ROWS[label])
    assert page(tmp_path).drawings == ()


def test_of_many_datasets_the_mean_is_drawn(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    for number, dataset in enumerate(("headct", "brainmri", "br35h", "lag", "covid19")):
        for label in ("FAPrompt", "K = 1", "K = 5"):
            put(store, label, dataset, 0.7 + number / 100, **ROWS[label])
    assert "mean of" in page(tmp_path).drawings[0].svg

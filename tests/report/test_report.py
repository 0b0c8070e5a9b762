"""The report: self-contained, escaped, and drawn by a real browser where there is one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zsad import examples, report
from zsad.errors import DataError, RequestError
from zsad.examples import CellExamples, Example
from zsad.report.collect import outlined
from zsad.report.page import embedded
from zsad.store import ResultStore
from zsad.types import CellKey, CellRecord, Explanation

EVIL = '<script>window.hacked=1</script>"&'


def jpeg() -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (examples.SIDE, examples.SIDE), (120, 130, 140)).save(buffer, "JPEG")
    return buffer.getvalue()


def put(store: ResultStore, method: str, category: str, value: float | None) -> CellKey:
    record = CellRecord(
        method=method,
        dataset="folder",
        category=category,
        seed=0,
        fingerprint="f" * 16,
        metrics={"image_auroc": value, "image_ap": 0.7, "pixel_auroc": None},
        undefined={} if value is not None else {"image_auroc": "no normal images"},
        n_normal=3,
        n_anomalous=2,
        seconds={},
        info={"title": method.upper(), "backbone": "zsad-tiny", "banner": "for demonstration"},
    )
    scores = {
        "uid": list("abcde"),
        "label": [0, 0, 0, 1, 1],
        "defect": [""] * 5,
        "score": [0.1, 0.2, 0.3, 0.6, 0.9],
        "path": list("abcde"),
    }
    store.put(record, scores)
    key = CellKey(method, "folder", category, 0, "f" * 16)
    mask = np.zeros((examples.SIDE, examples.SIDE), dtype=bool)
    mask[40:80, 60:100] = True
    example = Example(
        uid=f"{category}/{EVIL}.png",
        kind="detected",
        label=1,
        defect=EVIL,
        score=0.9,
        jpeg=jpeg(),
        map=mask.astype(np.float32),
        mask=mask,
        explanations=[Explanation(EVIL, 0.5)],
    )
    curve = {
        "x_name": "false-positive rate",
        "y_name": "true-positive rate",
        "x": [0, 0, 1],
        "y": [0, 1, 1],
    }
    examples.save(store.root, key, CellExamples([example], {"image_roc": curve}))
    return key


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    store = ResultStore(tmp_path / "results")
    put(store, "clip", EVIL, 0.9)
    put(store, "clip", "plain", None)
    put(store, "winclip", "plain", 0.8)
    store.write_manifest({"id": "1", "finished": "2020-01-01", "note": EVIL})
    store.fail(CellKey("alfa", "folder", "plain", 0, "x"), f"broken {EVIL}", "CellError")
    return store


class Outside(HTMLParser):
    """Collects everything that a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        self.links += [
            v or "" for k, v in attrs if k in ("src", "href") and not (v or "").startswith("#")
        ]


def test_one_file_without_outside_references(store: ResultStore) -> None:
    page = report.write(store.root).read_text(encoding="utf-8")
    found = Outside()
    found.feed(page)
    assert found.links == []
    assert found.scripts == 2  # the data and the script that draws it
    assert "for demonstration" in page
    assert "{{" not in re.sub(r"<script.*?</script>", "", page, flags=re.S)


def test_foreign_texts_never_become_markup(store: ResultStore) -> None:
    page = report.write(store.root).read_text(encoding="utf-8")
    assert "<script>window" not in page
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert data is not None
    cells = json.loads(data.group(1))["boards"][0]["cells"]
    assert {c["category"] for c in cells} == {EVIL, "plain"}
    assert cells[0]["examples"][0]["explanations"][0]["text"] == EVIL


def test_embedded_json_survives_and_cannot_end_its_element() -> None:
    value = {"a": "</script><!-- &amp;"}
    assert "<" not in embedded(value)
    assert json.loads(embedded(value)) == value


def test_histogram_counts_every_image(store: ResultStore) -> None:
    page = report.write(store.root).read_text(encoding="utf-8")
    data = re.search(r'id="data">(.*?)</script>', page, re.S)
    assert data is not None
    histogram = json.loads(data.group(1))["boards"][0]["cells"][0]["histogram"]
    assert (sum(histogram["normal"]), sum(histogram["anomalous"])) == (3, 2)


def test_outline_surrounds_the_mask_and_leaves_its_inside() -> None:
    mask = np.zeros((40, 40), dtype=bool)
    mask[10:20, 10:20] = True
    before = Image.new("RGB", (40, 40), (90, 90, 90))
    after = np.asarray(outlined(before, mask))
    assert (after[mask] == 90).all()
    assert (after[9, 12] == 255).all()
    assert (after[8, 12] == 0).all()
    assert (after[5, 5] == 90).all()


def test_examples_survive_the_disk(store: ResultStore) -> None:
    key = CellKey("clip", "folder", "plain", 0, "f" * 16)
    cell = examples.load(store.root, key)
    assert cell is not None
    (example,) = cell.examples
    assert example.mask is not None
    assert example.mask.sum() == 1600
    assert example.map[50, 70] == 1.0
    other = CellKey("clip", "folder", "plain", 0, "other")
    assert examples.load(store.root, other) is None
    examples.path_of(store.root, key).write_bytes(b"PK broken")
    with pytest.raises(DataError, match=r"plain\.npz"):
        examples.load(store.root, key)
    assert report.write(store.root).is_file()  # the rest of the report stands


def test_no_results_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no results there"):
        report.write(tmp_path)


@pytest.mark.slow
def test_a_real_browser_draws_it(store: ResultStore, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("no Chromium on this machine (Debian package chromium)")
    page = report.write(store.root)
    command = [
        browser,
        *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        f"--user-data-dir={tmp_path / 'profile'}",
        *("--virtual-time-budget=3000", "--dump-dom", page.as_uri()),
    ]
    drawn = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert drawn.count("<rect") >= 4  # bars and histograms
    assert 'class="cards"' in drawn
    assert drawn.count("<path") >= 2
    assert "<script>window.hacked" not in drawn
    body = drawn.split("<section")[1:]
    assert any("CLIP" in part for part in body)

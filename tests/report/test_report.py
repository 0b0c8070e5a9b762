"""The report as a file: complete in itself, escaped, and true to the store."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.report.conftest import EVIL, FINGERPRINT, SIDE, example, jpeg, put
from zsad import report
from zsad.cli.main import main
from zsad.errors import DataError, RequestError
from zsad.metrics import spec
from zsad.page import embedded
from zsad.report import pictures
from zsad.report.glossary import DEMO
from zsad.report.page_data import histogram
from zsad.results import examples, heatmaps
from zsad.results.records import CellKey
from zsad.results.store import ResultStore


def written(store: ResultStore, **options: int) -> tuple[str, dict[str, Any]]:
    """The page's text and the data in it."""
    page = report.write(store.root, **options).read_text(encoding="utf-8")
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert data is not None
    return page, json.loads(data.group(1))


class Outside(HTMLParser):
    """Collects everything that a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        addresses = [v or "" for k, v in attrs if k in ("src", "href", "srcset", "action")]
        self.links += [a for a in addresses if not a.startswith(("#", "data:"))]


def test_one_file_without_outside_references(store: ResultStore) -> None:
    page, _ = written(store)
    found = Outside()
    found.feed(page)
    assert found.links == []
    assert found.scripts == 2  # the data and the script that draws it
    assert "default-src 'none'" in page  # a browser would refuse to fetch anything
    assert "url(" not in page.replace('url("${', "")  # of sheets that lie in the page
    assert "@import" not in page
    assert "{{" not in re.sub(r"<script.*?</script>", "", page, flags=re.S)


def test_a_stranger_is_told_what_the_figures_mean(store: ResultStore) -> None:
    page, _ = written(store)
    for words in spec.glossary():
        assert words.full_title in page
        assert words.question in page
    assert "higher is better" in page
    assert "not comparable with published results" in page
    assert DEMO in page
    assert "2 methods, 1 dataset, 2 categories and 10 images, with the backbone zsad-tiny" in page


def test_foreign_texts_never_become_markup(store: ResultStore) -> None:
    page, data = written(store)
    assert "<script>window" not in page
    assert "<img src=x" not in page
    cells = data["boards"][0]["cells"]
    assert {c["category"] for c in cells} == {EVIL, "plain"}
    assert cells[0]["examples"][0]["explanations"][0]["text"] == EVIL


def test_embedded_json_survives_and_cannot_end_its_element() -> None:
    value = {"a": "</script><!-- &amp;"}
    assert "<" not in embedded(value)
    assert json.loads(embedded(value)) == value
    assert json.loads(embedded({"sum": [1e308 * 10, float("nan"), 1.5]})) == {
        "sum": [None, None, 1.5]
    }


# ------------------------------------------------------------------------------- figures
def test_histograms_count_every_image_once() -> None:
    rng = np.random.default_rng(0)
    values, labels = rng.normal(size=500), rng.integers(0, 2, 500)
    found = histogram(values, labels)
    assert found is not None
    assert sum(found["normal"]) == (labels == 0).sum()
    assert sum(found["anomalous"]) == (labels == 1).sum()
    assert (found["low"], found["high"]) == (values.min(), values.max())
    few = histogram(values[:4], labels[:4])
    assert few is not None
    assert len(few["normal"]) == 6 < len(found["normal"]) == 24
    equal = histogram(np.full(3, 0.5), np.array([0, 0, 1]))
    assert equal is not None
    assert (sum(equal["normal"]), sum(equal["anomalous"])) == (2, 1)
    assert histogram(np.empty(0), np.empty(0)) is None


def test_means_are_those_of_the_tables(sweep: ResultStore) -> None:
    _, data = written(sweep)
    found = {
        (m["row"], m["method"]): m["text"]
        for m in data["boards"][0]["means"]
        if m["metric"] == "image_auroc"
    }
    assert found["mvtec", "clip"] == "55.0"  # of 50, 55 and 60
    assert found["brainmri", "clip"] == "90.0"
    assert found["mean of 2", "clip"] == "72.5"


def test_figures_of_other_images_are_not_ranked_together(tmp_path: Path) -> None:
    """The page shows places and roundings of the tables, and makes none of its own."""
    store = ResultStore(tmp_path)
    for method, value in (("clip", 0.8125), ("winclip", 0.7), ("alfa", 0.9)):
        put(store, method, "plain", value)
    limited = next(c.record for c in store.cells() if c.record.method == "alfa")
    limited.n_normal = 1
    store.put(limited)
    _, data = written(store)
    found = {
        m["method"]: (m["text"], m["place"])
        for m in data["boards"][0]["means"]
        if m["metric"] == "image_auroc"
    }
    assert found == {"alfa": ("90.0", 0), "clip": ("81.2", 1), "winclip": ("70.0", 2)}


def test_published_figures_stand_beside_measured_ones(sweep: ResultStore) -> None:
    page, data = written(sweep)
    entries = data["boards"][0]["published"]
    clip = next(
        e
        for e in entries
        if (e["method"], e["row"], e["metric"]) == ("clip", "MVTec AD", "image_auroc")
    )
    assert clip["published"] == 74.1  # FAPrompt, Table 1
    assert clip["difference"] == pytest.approx(55.0 - 74.1)
    assert clip["source"] == "FAPrompt, Table 1"
    assert "Published only" in page
    assert "id=against" in page


def test_nothing_published_is_said(store: ResultStore) -> None:
    page, data = written(store)
    assert data["boards"][0]["published"] == []
    assert "print no figures for what was measured here" in page


# ------------------------------------------------------------------------------ pictures
def test_a_picture_that_several_methods_show_is_stored_once(sweep: ResultStore) -> None:
    _, data = written(sweep)
    shown = [e for c in data["boards"][0]["cells"] for e in c["examples"]]
    assert len(shown) == 12 * 4
    assert len(data["pictures"]) == 4
    assert {e["picture"] for e in shown} == set(data["pictures"])
    assert data["per_cell"] is None


def test_scores_are_set_against_the_other_label(store: ResultStore) -> None:
    _, data = written(store)
    cell = next(c for c in data["boards"][0]["cells"] if c["category"] == "plain")
    above = {e["kind"]: e["above"] for e in cell["examples"]}
    assert above == {
        "detected": [3, 3],  # normal images score 0.1, 0.2, 0.3
        "missed": [2, 3],
        "false alarm": [1, 2],  # anomalous ones 0.25 and 0.9
        "clean": [0, 2],
    }


def test_many_cells_keep_what_teaches_most(sweep: ResultStore) -> None:
    _, data = written(sweep, most_pictures=24)
    cells = data["boards"][0]["cells"]
    assert data["per_cell"] == 2
    assert all([e["kind"] for e in c["examples"]] == ["missed", "false alarm"] for c in cells)
    _, data = written(sweep, most_pictures=1)
    assert {len(c["examples"]) for c in data["boards"][0]["cells"]} == {1}
    page, data = written(sweep, most_pictures=0)
    assert data["pictures"] == {}
    assert "data:image" not in page


def test_pictures_on_the_command_line(
    sweep: ResultStore, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", "--results", str(sweep.root), "--pictures", "0", "--json"]) == 0
    page = Path(json.loads(capsys.readouterr().out)["report"])
    assert "data:image" not in page.read_text(encoding="utf-8")
    assert main(["report", "--results", str(sweep.root), "--pictures", "few"]) == 2
    assert "--pictures few: give a whole number" in capsys.readouterr().err


def path_area(path: str) -> float:
    """Twice-signed areas of the rings of an SVG path, by the shoelace formula."""
    total = 0.0
    for ring in filter(None, path.split("M")):
        x, y = np.array(ring.removesuffix("Z").split(), dtype=float).reshape(-1, 2).T
        total += (x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2
    return abs(total)


def test_an_outline_runs_along_the_border_of_the_mask() -> None:
    mask = np.zeros((40, 50), dtype=bool)
    mask[10:20, 30:45] = True
    path = pictures.outline(mask)
    corners = np.array(path[1:-1].split(), dtype=float).reshape(-1, 2)
    assert corners.min(0) == pytest.approx([30, 10], abs=pictures.TOLERANCE)  # x, y
    assert corners.max(0) == pytest.approx([45, 20], abs=pictures.TOLERANCE)
    assert path_area(path) == pytest.approx(150, abs=pictures.TOLERANCE * 50 / 2)  # perimeter 50


def test_outlines_of_rings_edges_and_nothing() -> None:
    ring = np.zeros((60, 60), dtype=bool)
    ring[10:50, 10:50] = True
    ring[20:40, 20:40] = False
    assert pictures.outline(ring).count("M") == 2
    assert path_area(pictures.outline(ring)) == pytest.approx(1200, rel=0.05)
    whole = np.ones((30, 30), dtype=bool)  # touches every edge and is closed all the same
    assert path_area(pictures.outline(whole)) == pytest.approx(900, rel=0.05)
    assert pictures.outline(np.zeros((5, 5), dtype=bool)) == ""
    assert pictures.outline(None) == ""


def test_heat_maps_of_a_cell_share_one_range() -> None:
    found = [example("detected", 0.8, "a"), example("clean", 0.1, "b")]
    low, high = pictures.colour_range(found)
    assert (low, high) == (0.0, pytest.approx(0.8))
    assert pictures.colour_range([]) == (0.0, 1.0)
    flat = [example("clean", 0.0, "c")]
    assert pictures.colour_range(flat) == (0.0, 1.0)


def test_heat_maps_keep_their_colours_when_they_shrink() -> None:
    from base64 import b64decode
    from io import BytesIO

    from PIL import Image

    values = np.zeros((SIDE, SIDE), dtype=np.float32)
    values[:, SIDE // 2 :] = 1.0
    uri = pictures.heat_uri(values, 0.0, 1.0)
    small = np.asarray(Image.open(BytesIO(b64decode(uri.partition(",")[2]))), dtype=int)
    assert small.shape == (pictures.HEAT_SIDE, pictures.HEAT_SIDE, 3)
    full = heatmaps.heat(values, 0.0, 1.0)
    assert np.abs(small[50, 10] - full[100, 20]).max() < 12  # JPEG
    assert np.abs(small[50, -10] - full[100, -20]).max() < 12


# --------------------------------------------------------------------------- what is broken
def test_examples_survive_the_disk(store: ResultStore) -> None:
    key = CellKey("clip", "folder", "plain", 0, FINGERPRINT)
    cell = examples.load(store.root, key)
    assert cell is not None
    first = cell.examples[0]
    assert first.mask is not None
    assert first.mask.sum() == 1600
    assert first.map[50, 70] == pytest.approx(0.9, abs=1e-3)
    assert first.jpeg == jpeg(180)
    other = CellKey("clip", "folder", "plain", 0, "other")
    assert examples.load(store.root, other) is None
    examples.path_of(store.root, key).write_bytes(b"PK broken")
    with pytest.raises(DataError, match=r"plain\.npz"):
        examples.load(store.root, key)
    _, data = written(store)  # the rest of the report stands
    by_category = {(c["method"], c["category"]): c for c in data["boards"][0]["cells"]}
    assert by_category["clip", "plain"]["examples"] == []
    assert len(by_category["winclip", "plain"]["examples"]) == 4


def test_a_broken_score_table_costs_its_histogram_only(store: ResultStore) -> None:
    path = store.root / "scores" / "clip" / "folder" / "0" / "plain.parquet"
    path.write_bytes(b"PAR1 broken")
    _, data = written(store)
    cells = {(c["method"], c["category"]): c for c in data["boards"][0]["cells"]}
    assert cells["clip", "plain"]["histogram"] is None
    assert cells["winclip", "plain"]["histogram"] is not None


def test_failed_cells_are_listed(store: ResultStore) -> None:
    page, _ = written(store)
    assert "Cells without a result" in page
    assert "alfa on folder/plain, seed 0" in page


def test_no_results_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no results there"):
        report.write(tmp_path)


def test_backbones_are_never_mixed(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    put(store, "clip", "plain", 0.9)
    put(store, "winclip", "plain", 0.8, backbone="vit-l-14-336", banner="")
    page, data = written(store)
    assert [b["backbone"] for b in data["boards"]] == ["vit-l-14-336", "zsad-tiny"]
    assert [[m["label"] for m in b["methods"]] for b in data["boards"]] == [["winclip"], ["clip"]]
    assert page.count("class=banner") == 1
    put(store, "alfa", "plain", 0.7, backbone="file", banner="unknown weights: x.pt, of no file")
    page, _ = written(store)
    assert (
        "<b>file [unknown weights]: unknown weights: x.pt, of no file.</b> What these weights are"
        in page
    )

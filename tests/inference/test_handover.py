"""Files for other programs: read by the libraries that such programs use."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

import zsad
from zsad.errors import RequestError
from zsad.inference import handover, outputs
from zsad.inference.pictures import Photo, failed
from zsad.inference.prediction import Prediction
from zsad.runtime.thresholds import Thresholds
from zsad.types import Explanation

coco = pytest.importorskip("pycocotools.mask")

EVIL = "<img src=x onerror=1>"


def write(out: Path, folder: Path, pixel: float | None = 0.6) -> list[Prediction]:
    """Two pictures with a square each in their maps, one without, and one that is broken."""
    folder.mkdir()
    found = []
    for i, name in enumerate(["a/0", "b/0", EVIL]):
        path = folder / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (30, 20)).save(path)
        values = np.zeros((20, 30), np.float32)
        values[3 : 6 + i, 28:] = 0.9 if i < 2 else 0.5  # the corner of the picture's right side
        values[10:12, 4:7] = 0.7 if i == 1 else 0.1
        one = Prediction(
            0.2 * i,
            values,
            [Explanation(EVIL, 0.4)],
            path=str(path),
            thresholds=Thresholds(0.3, pixel),
            size=(20, 30),
            made_by={"method": "winclip", "class_name": EVIL},
        )
        found.append((one, Photo(path, Path(name))))
    broken = folder / "broken.png"
    found.append((failed(str(broken), "is broken"), Photo(broken, Path("broken"))))
    with outputs.Writer(out, ("json",), to=handover.FORMATS) as writer:
        for prediction, photo in found:
            writer.put(prediction, photo)
    return [prediction for prediction, _ in found]


@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_run_lengths_are_those_of_pycocotools(mask: np.ndarray) -> None:
    values = np.arange(mask.size, dtype=np.float32).reshape(mask.shape)
    found = handover.regions(mask, values)
    whole = np.zeros_like(mask)
    for region in found:
        own = coco.decode(region["segmentation"]).astype(bool)
        expected = coco.encode(np.asfortranarray(own.astype(np.uint8)))
        assert region["segmentation"]["counts"] == expected["counts"].decode()
        assert region["area"] == coco.area(expected) == own.sum()
        assert region["bbox"] == coco.toBbox(expected).tolist()
        assert region["score"] == values[own].max()
        assert not (whole & own).any()
        whole |= own
    assert np.array_equal(whole, mask)
    assert [r["score"] for r in found] == sorted((r["score"] for r in found), reverse=True)


def test_coco_reads_what_was_found(tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    found = write(tmp_path / "out", tmp_path / "in")
    read = COCO(str(tmp_path / "out" / "results.coco.json"))
    assert [image["file_name"] for image in read.loadImgs(read.getImgIds())] == [
        "a/0.png", "b/0.png", f"{EVIL}.png",
    ]  # fmt: skip
    for image, prediction in zip(read.loadImgs(read.getImgIds()), found):
        own = read.loadAnns(read.getAnnIds(imgIds=[image["id"]]))
        assert prediction.findings is not None
        assert prediction.mask is not None
        assert len(own) == len(prediction.findings.regions)
        whole = np.zeros((20, 30), bool)
        for annotation, region in zip(own, prediction.findings.regions):
            assert tuple(annotation["bbox"]) == region.box
            assert annotation["score"] == region.peak
            whole |= read.annToMask(annotation).astype(bool)
        assert np.array_equal(whole, prediction.mask)
        assert image["anomalous"] == prediction.anomalous
    info = json.loads((tmp_path / "out" / "results.coco.json").read_text())["info"]
    assert info["folder"] == str(tmp_path / "in")
    assert [entry["error"] for entry in info["not_scored"]] == ["is broken"]
    assert info["made_by"]["class_name"] == EVIL


def test_coco_says_why_it_has_no_regions(tmp_path: Path) -> None:
    write(tmp_path / "out", tmp_path / "in", pixel=None)
    document = json.loads((tmp_path / "out" / "results.coco.json").read_text())
    assert document["annotations"] == []
    assert document["info"]["note"] == handover.NO_REGIONS


def test_parquet_and_csv_hold_the_same(tmp_path: Path) -> None:
    found = write(tmp_path / "out", tmp_path / "in")
    table = pq.read_table(tmp_path / "out" / "results.parquet")
    rows = table.to_pylist()
    with (tmp_path / "out" / "results.csv").open(newline="", encoding="utf-8") as file:
        texts = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [text["path"] for text in texts]
    assert [row["error"] for row in rows] == ["", "", "", "is broken"]
    for row, text, prediction in zip(rows[:3], texts, found):
        assert row["image_score"] == float(text["image_score"]) == prediction.image_score
        assert row["regions"] == int(text["regions"]) == len(row["found"])
        assert [r["text"] for r in row["reasons"]] == [e.text for e in prediction.explanations]
    assert [len(row["reasons"]) for row in rows] == [0, 0, 1, 0]  # none for what is normal
    assert rows[0]["found"][0]["box"] == [28, 3, 2, 3]
    assert rows[3]["image_score"] is None
    assert json.loads(table.schema.metadata[b"zsad"])["method"] == "winclip"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"to": "coco"}, "--to coco: needs --out DIR"),
        ({"to": "yolo", "out": "out"}, "unknown format 'yolo'"),
        ({"to": ",", "out": "out"}, "--to: names nothing; formats: coco, csv, parquet"),
    ],
)
def test_formats_that_cannot_be_meant(words: dict[str, str], said: str, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "nut.png")
    with pytest.raises(RequestError, match=said):
        zsad.predict("clip", tmp_path / "nut.png", "nut", **words)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_a_missing_package_is_said_before_anything_is_scored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(RequestError, match=r"pip install 'zsad\[coco\]'"):
        handover.formats("coco", "out")

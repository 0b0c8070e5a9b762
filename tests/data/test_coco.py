"""Boxes of masks: known regions, what is left out, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zsad.cli.main import main
from zsad.data import catalog
from zsad.data.coco import boxes_of


def test_the_boxes_of_known_regions() -> None:
    mask = np.zeros((8, 10), dtype=bool)
    mask[1:3, 2:6] = True
    mask[3, 6] = True  # touches at a corner: the same region
    mask[7, 9] = True
    assert boxes_of(mask) == [((2, 1, 5, 3), 9), ((9, 7, 1, 1), 1)]
    assert boxes_of(np.zeros((3, 3), dtype=bool)) == []


def _picture(path: Path, mask: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(str(path))).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(noise if mask is None else mask.astype(np.uint8) * 255).save(path)


@pytest.fixture
def bolts(tmp_path: Path) -> Iterator[Path]:
    """A folder in MVTec's layout: a normal picture, two defective ones, one whose mask is empty."""
    root = tmp_path / "bolts"
    for i in range(2):
        _picture(root / "bolt" / "train" / "good" / f"{i}.png")
    _picture(root / "bolt" / "test" / "good" / "0.png")
    for i in range(3):
        _picture(root / "bolt" / "test" / "deep_scratch" / f"{i}.png")
        mask = np.zeros((20, 30), dtype=bool)
        if i < 2:
            mask[4:9, 10 + i : 14] = True
        _picture(root / "bolt" / "ground_truth" / "deep_scratch" / f"{i}_mask.png", mask)
    with catalog.own_forgotten():
        yield root


def test_the_file_has_a_name_of_its_own_unless_one_is_given(
    bolts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert main(["data", "boxes", str(bolts)]) == 0
    assert [p.name for p in Path().iterdir()] == [f"{bolts.name}-boxes.json"]
    assert f"{bolts.name}-boxes.json: file names" in capsys.readouterr().out


def test_a_dataset_becomes_a_table(
    bolts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "boxes.json"
    assert main(["data", "boxes", str(bolts), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "2 boxes on 3 pictures, 1 of them normal; phrases: deep scratch" in said
    assert "left out: 1 anomalous picture without" in said
    held = json.loads(out.read_text())
    assert held["categories"] == [{"id": 1, "name": "deep scratch"}]
    names = {i["id"]: i["file_name"] for i in held["images"]}
    assert all((bolts / n).is_file() for n in names.values())
    assert {(i["width"], i["height"]) for i in held["images"]} == {(30, 20)}
    boxes = {Path(names[a["image_id"]]).name: (a["bbox"], a["area"]) for a in held["annotations"]}
    assert boxes == {"0.png": ([10, 4, 4, 5], 20), "1.png": ([11, 4, 3, 5], 15)}
    assert [a["id"] for a in held["annotations"]] == [1, 2]

    assert main(["data", "boxes", str(bolts), "--out", str(out)]) == 2
    assert "is there already; give another name" in capsys.readouterr().err
    more = tmp_path / "more.json"
    assert main(["data", "boxes", str(bolts), "--out", str(more), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["images"], told["annotations"], len(told["left_out"])) == (3, 2, 1)


@pytest.mark.parametrize(
    "words,message",
    [
        (["check", "mvtec", "--out", "a.json"], "--out belongs to `zsad data boxes`"),
        (["boxes", "mvtec", "--out", "a.txt"], "--out a.txt: give a file that ends in .json"),
        (["boxes", "mvtec,visa", "--out", "a.json"], "takes one dataset, not 2"),
        (["boxes", "synthetic", "--out", "a.json"], "its pictures are generated, not files"),
        (["boxes", "synthetic", "--out", "a.json", "--counts"], "--archive and --counts do not"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_dataset_without_masks_is_refused(
    bolts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for mask in (bolts / "bolt" / "ground_truth").rglob("*.png"):
        mask.unlink()
    (bolts / "bolt" / "ground_truth" / "deep_scratch").rmdir()
    (bolts / "bolt" / "ground_truth").rmdir()
    assert main(["data", "boxes", str(bolts), "--out", str(tmp_path / "b.json")]) == 2
    assert "no mask marks anything, so there are no boxes" in capsys.readouterr().err
    assert not (tmp_path / "b.json").exists()

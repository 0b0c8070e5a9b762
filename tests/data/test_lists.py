"""Lists of pictures: COCO annotations, tables with column names, and modules beside a YAML file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from zsad.cli.main import main
from zsad.data import catalog
from zsad.data.catalog import select_datasets
from zsad.data.check import check
from zsad.data.images import read_mask
from zsad.data.index import DatasetIndex, load_index
from zsad.data.indexers.coco import drawn, run_lengths
from zsad.data.indexers.lists import list_layout
from zsad.errors import DataError, RequestError


@pytest.fixture(autouse=True)
def _forget_own_datasets() -> Iterator[None]:
    with catalog.own_forgotten():
        yield


def put(path: Path, grey: int = 9) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((20, 30), grey, np.uint8)).save(path)


def index(home: Path) -> DatasetIndex:
    return load_index(select_datasets(f"folder:{home}")[0])


# ------------------------------------------------------------------------------------ COCO
def test_marks_by_hand() -> None:
    size = (4, 5)
    box = drawn({"bbox": [1, 2, 3, 1]}, size)
    assert np.argwhere(box).tolist() == [[2, 1], [2, 2], [2, 3]]
    # a polygon around the centres of 2 x 3 pixels
    shape = drawn({"segmentation": [[1, 1, 4, 1, 4, 3, 1, 3]]}, size)
    assert np.argwhere(shape).tolist() == [[1, 1], [1, 2], [1, 3], [2, 1], [2, 2], [2, 3]]
    # run lengths go down the columns: 5 unmarked, 2 marked, 13 unmarked
    runs = drawn({"segmentation": {"size": [4, 5], "counts": [5, 2, 13]}}, size)
    assert np.argwhere(runs).tolist() == [[1, 1], [2, 1]]
    assert (
        drawn({"segmentation": {"size": [4, 5], "counts": packed([5, 2, 13])}}, size) == runs
    ).all()
    with pytest.raises(ValueError, match="run lengths of 7 pixels for 5x4"):
        drawn({"segmentation": {"size": [4, 5], "counts": [5, 2]}}, size)


def packed(counts: list[int]) -> str:
    """COCO's compressed form, written as its C code does (rleToString)."""
    out = ""
    for i, count in enumerate(counts):
        value, more = count - (counts[i - 2] if i > 2 else 0), True
        while more:
            low = value & 0x1F
            value >>= 5
            more = value != -1 if low & 0x10 else value != 0
            out += chr((low | 0x20 if more else low) + 48)
    return out


@pytest.mark.parametrize("seed", range(20))
def test_run_lengths_are_read_as_they_were_written(seed: int) -> None:
    counts = np.random.default_rng(seed).integers(0, 3000, 30).tolist()
    assert run_lengths(packed(counts)) == counts


def annotated(home: Path, mark: dict[str, object]) -> Path:
    for name in ("a.png", "b.png", "sub/c.png"):
        put(home / "images" / name)
    content = {
        "images": [
            {"id": 1, "file_name": "a.png", "width": 30, "height": 20},
            {"id": 2, "file_name": "images\\b.png", "width": 30, "height": 20},
            {"id": 7, "file_name": "D:\\data\\images\\sub\\c.png", "width": 30, "height": 20},
        ],
        "categories": [{"id": 3, "name": "scratch"}, {"id": 4, "name": "fine"}],
        "annotations": [
            {"id": 1, "image_id": 2, "category_id": 3, **mark},
            {"id": 2, "image_id": 7, "category_id": 4, "bbox": [0, 0, 2, 2]},
        ],
    }
    path = home / "annotations.json"
    path.write_text(json.dumps(content), encoding="utf-8-sig")
    return path


YAML = """
title: Marked
root: marked
categories: {part: {prompt: steel part}}
default_variant: all
variants:
  all:
    title: all
    layouts: [{indexer: coco, options: {images: images, normal: [fine]}}]
"""


def test_coco_in_a_definition(tmp_path: Path) -> None:
    path = annotated(tmp_path / "marked", {"bbox": [3, 4, 5, 6]})
    (tmp_path / "own.yaml").write_text(YAML)
    found = load_index(str(tmp_path / "own.yaml"))
    assert {s.uid: (s.label, s.defect) for s in found.samples} == {
        "images/a.png": (0, "good"),
        "images/b.png": (1, "scratch"),
        "images/sub/c.png": (0, "good"),
    }
    (bad,) = (s for s in found.samples if s.label)
    assert read_mask(bad).sum() == 30
    assert found.account is not None
    assert found.account.counts()["normal"] == 2
    assert check("own").ok
    path.write_text(path.read_text(encoding="utf-8-sig").replace("[3, 4, 5, 6]", "[3, 4, 5, 7]"))
    assert load_index(str(tmp_path / "own.yaml")).fingerprint != found.fingerprint
    put(tmp_path / "marked" / "images" / "d.png")
    with pytest.raises(DataError, match=r"1 picture has no role \(first: images/d.png"):
        load_index(str(tmp_path / "own.yaml"))


def test_coco_in_a_folder(tmp_path: Path) -> None:
    annotated(tmp_path / "set", {"segmentation": [[3, 4, 8, 4, 8, 10, 3, 10]]})
    found = index(tmp_path / "set")
    assert found.layout == "coco"
    assert found.counts() == (1, 2)
    assert sorted(read_mask(s).sum() for s in found.samples if s.label) == [4, 30]
    put(tmp_path / "set" / "more.png")
    with pytest.raises(RequestError, match=r"more.png .annotations.json does not list it"):
        select_datasets(f"folder:{tmp_path / 'set'}")


# ----------------------------------------------------------------------------------- tables
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_a_table_in_a_folder(tmp_path: Path, encoding: str, mark: str) -> None:
    home = tmp_path / "set"
    for name in ("p/1.png", "p/2.png", "p/3.png", "m/2.png"):
        put(home / name)
    lines = ["filename,label,mask,split", "p/1.png,OK,,test", "p\\2.png,NG,m\\2.png,val"]
    lines.append("C:\\set\\p\\3.png,good,,train")
    text = "\r\n".join(lines).replace(",", mark)
    (home / "list.csv").write_bytes(text.encode(encoding))
    found = index(home)
    assert (found.counts(), found.counts("train")) == ((1, 1), (1, 0))
    (bad,) = (s for s in found.samples if s.label)
    assert bad.mask == str(home / "m" / "2.png")
    assert found.account is not None
    assert not found.account.without_role


def test_what_is_wrong_with_a_table(tmp_path: Path) -> None:
    home = tmp_path / "set"
    put(home / "1.png")
    definition = tmp_path / "own.yaml"

    def problem(text: str, options: str) -> str:
        (home / "list.csv").write_text(text)
        layout = f"{{indexer: csv, options: {{file: list.csv, {options}}}}}"
        definition.write_text(
            "title: T\nroot: set\ncategories: {part: {prompt: part}}\ndefault_variant: all\n"
            f"variants: {{all: {{title: all, layouts: [{layout}]}}}}\n"
        )
        with pytest.raises(DataError) as error:
            load_index(str(definition))
        return str(error.value)

    found = problem("picture,state\n1.png,ok\n", "image: pictures, label: state")
    assert "no column 'pictures' (did you mean 'picture'?); it has picture, state" in found
    found = problem("picture,state\n1.png,worn\n", "image: picture, label: state")
    assert "line 2: label 'worn' is neither 0 nor 1" in found
    assert "`anomalous: [...]`" in found
    found = problem("picture,state\n../1.png,ok\n", "image: picture, label: state")
    assert "leads out of the dataset's folder" in found
    found = problem("picture,state\n2.png,ok\n", "image: picture, label: state")
    assert "no role (first: 1.png: list.csv does not list it)" in found


# ---------------------------------------------------------------------------------- modules
def test_a_module_is_found_beside_its_yaml(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "pictures" / "normal" / "1.png")
    (tmp_path / "beside_layout.py").write_text(
        "from zsad.data.indexers import indexer\n"
        "@indexer('beside_layout')\n"
        "def beside_layout(at):\n"
        "    return [at.sample(str(at.root / 'normal' / '1.png'), 0, at.only_category)]\n"
    )
    text = (
        "title: T\nroot: pictures\nmodule: beside_layout\ncategories: {part: {prompt: part}}\n"
        "default_variant: all\n"
        "variants: {all: {title: all, layouts: [{indexer: beside_layout}]}}\n"
    )
    (tmp_path / "own.yaml").write_text(text)
    assert load_index(str(tmp_path / "own.yaml")).counts() == (1, 0)
    (tmp_path / "own.yaml").write_text(text.replace("module: beside_layout", "module: not_there"))
    assert main(["data", "check", str(tmp_path / "own.yaml")]) == 2
    said = capsys.readouterr().err
    assert "module 'not_there' cannot be imported" in said
    assert "beside the YAML file" in said


@pytest.mark.parametrize(
    ("image", "shape", "said"),
    [
        ((8, 8), {"size": [100_000, 100_000], "counts": [0, 10**10]}, "run lengths of 10000000000"),
        ((8, 8), {"size": [8, 8], "counts": [10**12, -(10**12), 64]}, "run lengths of 64 pixels"),
        ((200_000, 200_000), [[0, 0, 9, 0, 9, 9]], "200000x200000 pixels, beyond the limit"),
        ((-8, -8), [[0, 0, 9, 0, 9, 9]], "-8x-8 pixels"),
    ],
)
def test_nothing_of_a_claimed_size_is_made(
    image: tuple[int, int], shape: Any, said: str, tmp_path: Path
) -> None:
    """A file of 300 bytes may claim runs or an image of any length."""
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    listed = {"id": 1, "file_name": "x.png", "height": image[0], "width": image[1]}
    mark = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": shape}
    content = {"images": [listed], "annotations": [mark], "categories": [{"id": 1, "name": "hole"}]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    (sample,) = load_index(select_datasets(f"folder:{tmp_path}")[0]).samples
    with pytest.raises(DataError, match=re.escape(said)) as error:
        read_mask(sample)
    assert str(tmp_path / "a.json") in str(error.value)


def test_another_meta_json_is_refused_with_the_form_that_is_read(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    form = r'not a meta\.json of the form \{"train": \{CLASS: \[ENTRY.* list\.csv'
    for content in ([{"path": "a.png", "label": 0}], {"test": ["a.png"]}, "a.png", 3):
        (tmp_path / "meta.json").write_text(json.dumps(content))
        with pytest.raises(RequestError, match=form):
            list_layout(tmp_path)

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
    lines = ["filename,label,mask,split", "p/1.png,OK,,test", "p\\2.png,NG,m\\2.png,TEST"]
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


TABLE = "image,label{more}\n1.png,{good}\n2.png,{good}\n3.png,{bad}\n4.png,{bad}\n"


def listed(home: Path, text: str, name: str = "labels.csv", encoding: str = "utf-8") -> str:
    """What is said of a folder with four pictures and a table; "" where it is accepted."""
    for i in (1, 2, 3, 4):
        put(home / f"{i}.png", grey=10 * i)
    (home / name).write_bytes(text.encode(encoding))
    try:
        index(home)
    except (RequestError, DataError) as error:
        return str(error)
    return ""


def plain(good: str = "0", bad: str = "1", more: str = "") -> str:
    return TABLE.format(good=good, bad=bad, more=more)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (plain("1", "-1"), "labels.csv, line 4: label '-1' is neither 0 nor 1"),
        (plain("0", "10"), "label '10' is neither 0 nor 1"),
        (plain("good", "scratch"), "label 'scratch' is neither 0 nor 1"),
        (plain("0,1", "1,0", ",label"), "two of its columns are called 'label'"),
        (plain("0,1", "1,0", ",Label"), "two of its columns are called 'label'"),
        (plain("0,1", "1,0", ",anomaly"), "'label' and 'anomaly' contradict each other in line 2"),
        (plain("0,4.png", "1,2.png", ",path"), "'image' and 'path' contradict each other"),
        (plain("0,scratch", "1,scratch", ",defect"), "label '0' and defect 'scratch' contradict"),
        (plain("0,none", "1,good", ",defect"), "label '1' and defect 'good' contradict"),
        (plain("0,", "1,m/x.png", ",mask"), "mask x.png is used by two images"),
        (plain("0,", "1,2.png", ",mask"), "mask 2.png is listed as a picture, too"),
        (plain() + "1.png,1\n", "1 picture is listed twice (first: 1.png)"),
        (plain("0,train", "1,later", ",split"), "split 'later' is not train, val or test"),
        (plain().replace(",", "|"), "no column is called 'image' or 'label'; it has image|label"),
        ("path,image_score,anomalous\n1.png,0.1,False\n", "verdicts are not labels"),
    ],
)
def test_a_table_that_cannot_be_meant(tmp_path: Path, text: str, said: str) -> None:
    assert said in listed(tmp_path / "set", text)


def test_a_table_in_another_encoding_is_named(tmp_path: Path) -> None:
    odd = plain("0,", "1,rayé", ",defect")
    assert "labels.csv is not read as a list" in listed(tmp_path / "a", odd, encoding="latin-1")
    assert "it holds zero bytes" in listed(tmp_path / "b", odd, encoding="utf-16-be")


def test_names_of_lists_in_any_case(tmp_path: Path) -> None:
    assert not listed(tmp_path / "set", plain("0.0", "1.0"), name="LIST.CSV")
    annotated(tmp_path / "coco", {"bbox": [3, 4, 5, 6]}).rename(tmp_path / "coco" / "A.JSON")
    assert index(tmp_path / "coco").layout == "coco"


def test_the_validation_part_of_a_list_is_not_tested_beside_a_test_part(tmp_path: Path) -> None:
    home = tmp_path / "set"
    text = "image,label,split\n1.png,0,train\n2.png,0,test\n3.png,1,val\n4.png,1,holdout\n"
    assert not listed(home, text)
    found = index(home)
    assert {s.uid: s.split for s in found.samples} == {
        "1.png": "train", "2.png": "test", "4.png": "test",
    }  # fmt: skip
    assert found.account is not None
    assert [e.path for e in found.account.entries if "validation" in e.reason] == ["3.png"]
    assert not listed(tmp_path / "alone", text.replace("test", "val").replace("holdout", "val"))
    assert index(tmp_path / "alone").counts() == (1, 2)


def test_categories_of_a_list_that_differ_in_case_are_one(tmp_path: Path) -> None:
    assert not listed(tmp_path / "set", plain("0,nut", "1,Nut", ",category"))
    found = index(tmp_path / "set")
    assert (list(found.categories), found.counts()) == (["nut"], (2, 2))


def test_masks_of_normal_pictures_are_masks(tmp_path: Path) -> None:
    put(tmp_path / "set" / "m" / "1.png", 255)
    put(tmp_path / "set" / "m" / "3.jpg", 255)
    text = "image,label,mask\n1.png,0,m/1.png\n2.png,0,\n3.png,1,m/3.jpg\n"
    assert "m/1" not in listed(tmp_path / "set", text + "4.png,0,\n")
    found = index(tmp_path / "set")
    assert [Path(mask).name for mask, _ in found.masks_of_normal] == ["1.png"]
    # JPEG's values around an edge are nobody's: cut in the middle, as in folders
    assert [s.mask_threshold for s in found.samples if s.mask] == [127]


@pytest.mark.parametrize(
    ("mark", "said"),
    [
        ({"bbox": [0.1, 0.2, 0.3, 0.4]}, "annotation 1 is given in shares of the picture"),
        ({"segmentation": [[0.1, 0.2, 0.3, 0.2, 0.3, 0.9]]}, "given in shares of the picture"),
        ({"bbox": [0, 0, 1, 1]}, ""),
    ],
)
def test_shares_are_not_pixels(tmp_path: Path, mark: dict[str, object], said: str) -> None:
    annotated(tmp_path / "set", mark)
    if not said:
        assert index(tmp_path / "set").counts() == (1, 2)
        return
    with pytest.raises(DataError, match=said):
        index(tmp_path / "set")


def test_annotations_called_good_mark_no_defect(tmp_path: Path) -> None:
    path = annotated(tmp_path / "set", {"bbox": [3, 4, 5, 6]})
    path.write_text(path.read_text(encoding="utf-8-sig").replace('"scratch"', '"OK"'))
    found = index(tmp_path / "set")
    assert found.counts() == (2, 1)
    assert "annotations called OK mark no defect" in found.notes[0]


def test_images_that_a_coco_file_names_twice(tmp_path: Path) -> None:
    path = annotated(tmp_path / "set", {"bbox": [3, 4, 5, 6]})
    content = json.loads(path.read_text(encoding="utf-8-sig"))
    path.write_text(json.dumps({**content, "images": [*content["images"], content["images"][0]]}))
    with pytest.raises(DataError, match="two of its images have one id"):
        index(tmp_path / "set")
    again = {**content["images"][0], "id": 99}
    path.write_text(json.dumps({**content, "images": [*content["images"], again]}))
    with pytest.raises(DataError, match=r"listed twice .first: images/a.png"):
        index(tmp_path / "set")


def entries(home: Path, **parts: list[Any]) -> None:
    """A meta.json of (picture, label, mask) by part."""
    made = {}
    for part, rows in parts.items():
        made[part] = {
            "bolt": [
                {"img_path": f"{name}.png", "anomaly": label, "mask_path": mask}
                for name, label, mask in rows
            ]
        }
        for name, _, mask in rows:
            put(home / f"{name}.png", grey=len(name) + 3 * ord(name[0]) % 200)
            if mask:
                put(home / mask, 255)
    (home / "meta.json").write_text(json.dumps(made))


def test_a_picture_of_two_categories_is_named_in_each(tmp_path: Path) -> None:
    """With one label: what is normal in one and anomalous in the other cannot be meant."""
    entries(tmp_path / "set", test=[("a", 0, ""), ("b", 1, "m/b.png")])
    path = tmp_path / "set" / "meta.json"
    held = json.loads(path.read_text())
    of = next(iter(held["test"].values()))
    path.write_text(json.dumps({**held, "test": {"nut": of, "bolt": of}}))
    found = index(tmp_path / "set")
    assert found.counts() == (2, 2)
    assert {sample.category for sample in found.samples} == {"nut", "bolt"}
    path.write_text(
        json.dumps({**held, "test": {"nut": of, "bolt": [{**of[0], "anomaly": 1}, of[1]]}})
    )
    with pytest.raises(DataError, match=r"1 picture is listed twice .first: a.png"):
        index(tmp_path / "set")


def test_what_a_meta_json_cannot_mean(tmp_path: Path) -> None:
    def said(**parts: list[Any]) -> str:
        home = tmp_path / str(len(list(tmp_path.iterdir())))
        entries(home, **parts)
        try:
            found = index(home)
        except (RequestError, DataError) as error:
            return str(error)
        return f"{found.counts()} {found.counts('train')}"

    assert said(test=[("a", 0, ""), ("b", 1, "")]) == "(1, 1) (0, 0)"  # none has a mask
    assert "1 of 2 anomalous pictures of 'bolt' without a mask" in said(
        test=[("a", 1, ""), ("b", 1, "m/b.png")]
    )
    assert "meta.json: anomaly=-1 is not 0 or 1" in said(test=[("a", 1, ""), ("b", -1, "")])
    assert "anomaly=None is not 0 or 1" in said(test=[("a", 0, ""), ("b", None, "")])
    assert "anomaly=0.5 is not 0 or 1" in said(test=[("a", 0, ""), ("b", 0.5, "")])
    assert said(train_set=[("a", 0, "")], val=[("b", 1, "")], test=[("c", 1, "")]) == (
        "(0, 1) (1, 0)"
    )
    assert said(val=[("b", 1, ""), ("c", 0, "")]) == "(1, 1) (0, 0)"
    assert "part 'later' is not one of train, val and test" in said(
        later=[("a", 0, "")], test=[("b", 1, "")]
    )
    assert "1 picture is listed twice (first: a.png)" in said(test=[("a", 0, ""), ("a", 1, "")])
    assert said(test=[("a", 0, "m/a.png"), ("b", 1, "m/b.png")]) == "(1, 1) (0, 0)"


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

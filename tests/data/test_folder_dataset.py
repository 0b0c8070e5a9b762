"""A user's own datasets: folders in every recognised form, YAML files, and selections."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zsad.data import catalog
from zsad.data.catalog import load_spec, select_datasets
from zsad.data.index import DatasetIndex, load_index
from zsad.errors import DataError, RequestError


@pytest.fixture(autouse=True)
def _forget_own_datasets() -> Iterator[None]:
    with catalog.own_forgotten():
        yield


def _picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((6, 6), 9, np.uint8)).save(path)


def _index(folder: Path) -> DatasetIndex:
    return load_index(select_datasets(f"folder:{folder}")[0])


def test_normal_and_anomalous(tmp_path: Path) -> None:
    home = tmp_path / "metal_nut"
    for name in ("normal/a.png", "anomalous/b.JPG", "train/c.png", "masks/b_mask.png"):
        _picture(home / name)
    index = _index(home)
    assert index.categories["metal_nut"].class_name == "metal nut"
    assert (index.counts(), index.counts("train")) == ((1, 1), (1, 0))
    bad = next(s for s in index.samples if s.label)
    assert bad.mask == str(home / "masks" / "b_mask.png")
    assert [s.uid for s in index.samples] == ["anomalous/b.JPG", "normal/a.png", "train/c.png"]


def test_types_of_defects_in_sub_folders(tmp_path: Path) -> None:
    home = tmp_path / "screws"
    for name in ("good/1.png", "bad/scratch/1.png", "bad/dent/1.png"):
        _picture(home / name)
    index = _index(home)
    assert {s.defect for s in index.samples if s.label} == {"scratch", "dent"}
    assert all(s.mask is None for s in index.samples)


def test_a_folder_for_each_category(tmp_path: Path) -> None:
    for category in ("nut", "bolt"):
        _picture(tmp_path / "parts" / category / "normal" / "1.png")
        _picture(tmp_path / "parts" / category / "anomalous" / "1.png")
    index = _index(tmp_path / "parts")
    assert sorted(index.categories) == ["bolt", "nut"]
    assert index.counts(category="nut") == (1, 1)


def test_the_layout_of_mvtec(tmp_path: Path) -> None:
    home = tmp_path / "mine"
    for name in ("test/good/1.png", "test/cut/1.png", "ground_truth/cut/1_mask.png"):
        _picture(home / "cup" / name)
    assert _index(home).counts() == (1, 1)
    single = _index(home / "cup")
    assert list(single.categories) == ["cup"]
    assert single.counts() == (1, 1)
    assert single.fingerprint != _index(home).fingerprint


def test_a_prepared_index(tmp_path: Path) -> None:
    home = tmp_path / "prepared"
    _picture(home / "x" / "1.png")
    entry = {"img_path": "x/1.png", "mask_path": "", "cls_name": "x", "anomaly": 0}
    (home / "meta.json").write_text(json.dumps({"train": {}, "test": {"x": [entry]}}))
    assert _index(home).counts() == (1, 0)


def test_folders_that_are_nothing(tmp_path: Path) -> None:
    _picture(tmp_path / "photos" / "1.png")
    with pytest.raises(RequestError, match="sort the pictures into normal/ and anomalous/"):
        select_datasets(f"folder:{tmp_path / 'photos'}")
    with pytest.raises(RequestError, match="no such folder"):
        select_datasets(f"folder:{tmp_path / 'absent'}")


def test_a_mask_for_each_anomalous_image_or_none(tmp_path: Path) -> None:
    home = tmp_path / "half"
    for name in ("normal/1.png", "anomalous/1.png", "anomalous/2.png", "masks/1.png"):
        _picture(home / name)
    with pytest.raises(DataError, match="1 of 2 anomalous images without a mask"):
        _index(home)


def test_a_folder_named_like_a_bundled_dataset(tmp_path: Path) -> None:
    _picture(tmp_path / "mvtec" / "normal" / "1.png")
    assert select_datasets(f"folder:{tmp_path / 'mvtec'}") == ["mvtec-folder"]


YAML = """
title: Cups
root: pictures
categories: {cup: {prompt: tea cup}}
default_variant: all
variants:
  all: {title: all, layouts: [{indexer: folder}]}
"""


def test_a_definition_in_a_file(tmp_path: Path) -> None:
    _picture(tmp_path / "pictures" / "normal" / "1.png")
    (tmp_path / "cups.yaml").write_text(YAML)
    assert select_datasets(f"elpv,{tmp_path / 'cups.yaml'}") == ["elpv", "cups"]
    index = load_index("cups")
    assert index.categories["cup"].class_name == "tea cup"
    assert index.root == tmp_path / "pictures"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("title: Cups", "titel: Cups", "unknown key 'titel'.*did you mean 'title'"),
        ("prompt: tea cup", "prompt: 3", "categories.cup.prompt=3"),
        ("default_variant: all", "default_variant: most", "default_variant 'most'"),
        ("indexer: folder", "indexer: foldr", "did you mean 'folder'"),
        ("indexer: folder", "indexer: pairs, options: {image: x}", "option 'image' is not one of"),
    ],
)
def test_wrong_definitions_say_what_is_wrong(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    _picture(tmp_path / "pictures" / "normal" / "1.png")
    (tmp_path / "cups.yaml").write_text(YAML.replace(old, new))
    with pytest.raises(RequestError, match=message) as error:
        load_index(str(tmp_path / "cups.yaml"))
    assert "\n" not in str(error.value)


def test_selections() -> None:
    assert select_datasets("industrial")[:2] == ["mvtec", "visa"]
    assert select_datasets("cvc_*") == ["cvc_clinicdb", "cvc_colondb"]
    assert select_datasets("elpv,all")[0] == "elpv"
    assert len(select_datasets(["elpv", "all"])) == 19
    with pytest.raises(RequestError, match="did you mean 'mvtec'"):
        select_datasets("mvtecc")
    with pytest.raises(RequestError, match="no dataset chosen"):
        select_datasets(" , ")
    with pytest.raises(RequestError, match="variant of dataset sdd"):
        load_spec("sdd").variant("wole")


def test_planning_needs_no_torch() -> None:
    """Definitions, indexes and protocols come without importing torch."""
    import subprocess
    import sys

    code = (
        "import sys; from zsad.data.index import load_index; from zsad.protocols import "
        "load_protocol; from zsad.results.published import Published; Published.load(); "
        "load_protocol('faprompt'); load_index('synthetic'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

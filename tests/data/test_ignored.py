"""Parts of pictures that are not looked at: rules, definitions of every kind, refusals."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zsad.cli.main import main
from zsad.data import catalog
from zsad.data.catalog import select_datasets
from zsad.data.ignored import Ignored, of_sample, shrunk
from zsad.data.index import DatasetIndex, load_index
from zsad.data.loader import batches
from zsad.data.transforms import MaskPolicy, Preprocess
from zsad.errors import RequestError

SIZE = (30, 20)  # width, height


@pytest.fixture(autouse=True)
def _forget_own_datasets() -> Iterator[None]:
    with catalog.own_forgotten():
        yield


def put(path: Path, box: tuple[int, int, int, int] | None = None, grey: int = 90) -> Path:
    """A picture, or (with ``box``) a mask that is white there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full(SIZE[::-1], 0 if box else grey, np.uint8)
    if box:
        x, y, w, h = box
        pixels[y : y + h, x : x + w] = 255
    Image.fromarray(pixels).save(path)
    return path


def folder(home: Path) -> Path:
    for i, name in enumerate(("normal/a.png", "normal/b.png", "anomalous/c.png")):
        put(home / name, grey=80 + i)
    put(home / "masks" / "c.png", (4, 4, 6, 6))
    return home


def index(home: Path, ignore: str = "") -> DatasetIndex:
    """The folder under a name of its own, by way of a definition."""
    path = home.parent / f"{home.name}-{len(list(home.parent.glob('*.yaml')))}.yaml"
    path.write_text(
        f"root: {home}\ntitle: t\ncategories: {{nut: {{prompt: nut}}}}\n"
        f"default_variant: v\nvariants:\n  v:\n    title: t\n    ignore: '{ignore}'\n"
        "    layouts: [{indexer: own_folder}]\n"
    )
    found = load_index(select_datasets(str(path))[0])
    return found


# ------------------------------------------------------------------------------------ rules
def test_a_mask_of_the_folder_is_found_by_the_longest_common_path(tmp_path: Path) -> None:
    put(tmp_path / "hide" / "0.png", (0, 0, 1, 1))
    put(tmp_path / "hide" / "bad" / "0_mask.png", (0, 0, 2, 1))
    rule = Ignored.parse(tmp_path / "hide")
    bad, good = rule.file_of("x/bad/0.JPG"), rule.file_of("x/good/0.jpg")
    assert (bad and bad.name, good and good.name) == ("0_mask.png", "0.png")
    assert rule.file_of("x/good/1.jpg") is None
    found = rule.of("x/bad/0.jpg", SIZE[::-1])
    assert found is not None
    assert np.argwhere(found).tolist() == [[0, 0], [0, 1]]


def test_a_mask_that_two_pictures_share_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "hide" / "0.png", (0, 0, 1, 1))
    pictures = [put(tmp_path / name / "0.png") for name in ("left", "right")]
    with pytest.raises(RequestError, match=r"0\.png would be the mask of .*left.* and of .*right"):
        Ignored.parse(tmp_path / "hide").check(pictures)


def test_the_digest_follows_content_and_names(tmp_path: Path) -> None:
    put(tmp_path / "hide" / "0.png", (0, 0, 1, 1))
    put(tmp_path / "hide" / "1.png", (0, 0, 2, 1))
    before = Ignored.parse(tmp_path / "hide").digest
    (tmp_path / "hide" / "1.png").rename(tmp_path / "hide" / "2.png")
    renamed = Ignored.parse(tmp_path / "hide").digest
    put(tmp_path / "hide" / "2.png", (0, 0, 3, 1))
    assert len({before, renamed, Ignored.parse(tmp_path / "hide").digest}) == 3
    assert Ignored.parse("0, 1,2,3").digest == "0,1,2,3"


def test_a_shrunk_mask_leaves_something_to_see() -> None:
    mask = np.ones((50, 50), dtype=bool)
    mask[31, 12] = False
    small = shrunk(mask, (5, 5))
    assert np.argwhere(~small).tolist() == [[3, 1]]
    assert shrunk(np.ones((50, 50), dtype=bool), (5, 5)).all()
    assert not shrunk(np.zeros((50, 50), dtype=bool), (5, 5)).any()


# ------------------------------------------------------------------------------ definitions
def test_what_says_what_is_ignored_is_no_picture_of_the_folder(tmp_path: Path) -> None:
    home = folder(tmp_path / "nut")
    put(home / "hide" / "normal" / "a.png", (0, 0, 7, 2))
    found = index(home, "hide")
    assert {s.uid: s.ignore for s in found.samples} == {
        "normal/a.png": str(home / "hide" / "normal" / "a.png"),
        "normal/b.png": None,
        "anomalous/c.png": None,
    }
    assert found.account is not None
    (entry,) = (e for e in found.account.entries if e.path.startswith("hide/"))
    assert (entry.role, entry.reason) == ("left out", "says what is not looked at")
    assert "2 of 3 pictures without a mask there" in found.notes[0]


def test_the_identity_changes_only_where_something_is_ignored(tmp_path: Path) -> None:
    home = folder(tmp_path / "nut")
    name = select_datasets(f"folder:{home}")[0]
    before = load_index(name).fingerprint
    with catalog.own_forgotten():
        from zsad.config import FolderSettings

        name = select_datasets(f"folder:{home}", FolderSettings(ignore="0,0,3,2"))[0]
        found = load_index(name)
    assert found.fingerprint != before
    assert {s.ignore for s in found.samples} == {(0, 0, 3, 2)}
    assert found.ignore == "0,0,3,2"
    with catalog.own_forgotten():
        name = select_datasets(f"folder:{home}", FolderSettings(ignore="0,0,4,2"))[0]
        assert load_index(name).fingerprint not in (before, found.fingerprint)


def test_lists_ignore_as_well(tmp_path: Path) -> None:
    """COCO and tables: what lies in the folder of masks needs no line in the list."""
    home = tmp_path / "nut"
    for name in ("0.png", "1.png"):
        put(home / name)
    put(home / "hide" / "0.png", (0, 0, 4, 4))
    images = [
        {"id": i, "file_name": f"{i}.png", "width": SIZE[0], "height": SIZE[1]} for i in (0, 1)
    ]
    marks = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 2, 5, 5]}]
    (home / "a.json").write_text(
        json.dumps({"images": images, "annotations": marks, "categories": []})
    )
    (home / "b.csv").write_text("image,label\n0.png,ok\n1.png,ng\n")
    for options in ("indexer: coco, options: {annotations: a.json}",
                    "indexer: csv, options: {file: b.csv}"):  # fmt: skip
        kind = options.split()[1].strip(",")
        path = tmp_path / f"{kind}.yaml"
        path.write_text(
            f"root: {home}\ntitle: t\ncategories: {{nut: {{prompt: nut}}}}\ndefault_variant: v\n"
            f"variants:\n  v: {{title: t, ignore: hide, layouts: [{{{options}}}]}}\n"
        )
        found = load_index(select_datasets(str(path))[0])
        assert [s.ignore and Path(s.ignore).name for s in found.samples] == ["0.png", None]  # type: ignore[arg-type]
        assert found.problems == ()


@pytest.mark.parametrize(
    ("ignore", "message"),
    [
        ("0,0,31,2", "reaches out of .*which has 30x20 pixels"),
        ("0,0,30,20", "nothing is left of .* to look at"),
        ("small.png", r"small\.png: has 3x3 pixels, .* has 30x20; give a mask of its size"),
        ("nowhere", "is neither a file nor a folder; give a mask file"),
        ("empty", "empty: no masks there"),
    ],
)
def test_what_does_not_fit_ends_the_command_with_2(
    ignore: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    home = folder(tmp_path / "nut")
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(tmp_path / "small.png")
    (tmp_path / "empty").mkdir()
    setting = str(tmp_path / ignore) if "," not in ignore else ignore
    for command in (
        ["data", "check", str(home), f"data.folder.ignore={setting}"],
        ["bench", "--methods", "winclip", "--datasets", f"folder:{home}", "--backbone", "zsad-tiny",
         "--results", str(tmp_path / "r"), "--dry-run", f"data.folder.ignore={setting}"],
    ):  # fmt: skip
        with catalog.own_forgotten():
            assert main(command) == 2
        err = capsys.readouterr().err
        assert re.search(message, err), err
        assert err.count("\n") == 1
    assert not (tmp_path / "r" / "cells").exists()


def test_a_written_definition_ignores_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = folder(tmp_path / "nut")
    target = tmp_path / "my.yaml"
    assert main(["data", "check", str(home), "--write", str(target),
                 "data.folder.ignore=0,0,3,2"]) == 0  # fmt: skip
    assert "not looked at: 0,0,3,2" in capsys.readouterr().out
    with catalog.own_forgotten():
        found = load_index(select_datasets(str(target))[0])
    assert {s.ignore for s in found.samples} == {(0, 0, 3, 2)}


# ----------------------------------------------------------------------------------- pixels
@pytest.mark.parametrize("policy", ["bilinear", "native"])
def test_batches_say_what_is_ignored(policy: str, tmp_path: Path) -> None:
    found = index(folder(tmp_path / "nut"), "0,0,15,20")
    preprocess = Preprocess(10, (0.5,) * 3, (0.5,) * 3)
    (batch,) = batches(found.samples, preprocess, MaskPolicy(policy))  # type: ignore[arg-type]
    assert batch.ignored is not None
    for plane in batch.ignored:
        half = plane.shape[1] // 2
        assert plane[:, :half].all()
        assert not plane[:, half:].any()
    part = batch.select(slice(0, 1)).ignored
    assert part is not None
    assert len(part) == 1
    plain = index(folder(tmp_path / "bolt"))
    (whole,) = batches(plain.samples, preprocess, MaskPolicy(policy))  # type: ignore[arg-type]
    assert whole.ignored is None


def test_a_piece_of_a_picture_ignores_its_piece_of_the_mask(tmp_path: Path) -> None:
    from dataclasses import replace

    found = index(folder(tmp_path / "nut"), "0,0,15,20")
    left, middle, right = (replace(found.samples[0], crop=(x, 0, x + 10, 20)) for x in (0, 10, 20))
    with pytest.raises(RequestError, match="nothing is left of"):
        of_sample(left, (20, 10))
    seen = of_sample(middle, (20, 10))
    assert seen is not None
    assert seen[:, :5].all()
    assert not seen[:, 5:].any()
    assert of_sample(right, (20, 10)) is None

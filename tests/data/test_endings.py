"""The one list of what a picture is: complete, read by its formats, and used by everybody."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

import zsad
from zsad.data import catalog
from zsad.data.catalog import select_datasets
from zsad.data.check import check
from zsad.data.images import FORMATS, endings, is_picture, read_image
from zsad.data.index import load_index
from zsad.data.indexers.base import listed
from zsad.errors import DataError
from zsad.inference import pictures
from zsad.runtime import pictures as of_exports

CORE = Path(zsad.__file__).parent
ALL = [(name, ending) for name, known in FORMATS.items() for ending in known]


@pytest.fixture(autouse=True)
def _forget_own_datasets() -> Iterator[None]:
    with catalog.own_forgotten():
        yield


def _save(path: Path, kind: str = "PNG", grey: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((16, 16, 3), grey, np.uint8)).save(path, kind)
    return path


def test_every_ending_that_pillow_knows_for_a_format_is_listed() -> None:
    """Pillow's own table is the reference; of formats that it was built without it says nothing."""
    Image.init()
    known = Image.registered_extensions()
    assert {ending: name for name, ending in ALL if ending in known} == {
        ending: name for ending, name in known.items() if name in FORMATS
    }
    assert len(set(endings())) == len(ALL)


@pytest.mark.parametrize(("kind", "ending"), ALL, ids=[e for _, e in ALL])
def test_a_picture_of_every_ending_is_found_and_read(
    tmp_path: Path, kind: str, ending: str
) -> None:
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow was built without AVIF")
    path = tmp_path / f"a{ending.upper()}"
    image = Image.fromarray(np.full((16, 16, 3), 90, np.uint8))
    if ending == ".pfm":  # one float a pixel
        image = Image.fromarray(np.full((16, 16), 90.0, np.float32))
    image.save(path, kind)
    assert [p.path for p in pictures.find([str(tmp_path)])] == [path]
    assert listed(tmp_path) == [str(path)]
    assert abs(int(np.asarray(read_image(path))[8, 8, 0]) - 90) <= 2  # lossy formats


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.png", True),
        ("a.b.JPeG", True),
        ("day/0.Avif", True),
        ("._a.jpg", False),  # what macOS puts beside a file on foreign disks
        (".hidden.png", False),
        (".thumbnails/a.png", False),
        ("__MACOSX/._a.png", False),
        ("a.png.txt", False),
        ("png", False),
        (".png", False),
        ("Thumbs.db", False),
        ("a.cr2", False),
        ("a.heic", "HEIF" in FORMATS),  # with the extra `heic`
    ],
)
def test_what_a_name_says(name: str, expected: bool) -> None:
    assert is_picture(name) is expected
    assert is_picture(Path(name)) is expected


def test_one_more_ending_is_one_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Datasets, their check, predict and calibrate follow the list."""
    home = tmp_path / "bolt"
    for name in ("normal/a.pix", "normal/b.pix", "anomalous/c.PIX"):
        _save(home / name)
    _save(home / "masks" / "c.pix", grey=255)

    def counts() -> tuple[Any, ...]:
        (spec,) = select_datasets(f"folder:{home}")
        return load_index(spec).counts(), check(spec, open_files=False).total

    with pytest.raises(DataError):
        counts()
    with pytest.raises(DataError, match="no pictures there"):
        pictures.find([str(home)])
    monkeypatch.setitem(FORMATS, "PNG", (*FORMATS["PNG"], ".pix"))
    assert counts() == ((2, 1), (2, 1))
    (spec,) = select_datasets(f"folder:{home}")
    (bad,) = (s for s in load_index(spec).samples if s.label)
    assert bad.mask == str(home / "masks" / "c.pix")
    assert len(pictures.find([str(home)])) == 3  # the mask is none
    assert ".pix" in endings()


def test_predict_and_calibrate_take_the_new_ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(2):
        _save(tmp_path / "good" / f"{i}.pix", grey=90 + i)
    _save(tmp_path / "photos" / "a.pix")
    monkeypatch.setitem(FORMATS, "PNG", (*FORMATS["PNG"], ".pix"))
    (found,) = zsad.predict(
        "clip",
        tmp_path / "photos",
        "bolt",
        calibrate=tmp_path / "good",
        backbone="zsad-tiny",
        device="cpu",
    )
    assert found.path == str(tmp_path / "photos" / "a.pix")
    assert found.thresholds is not None
    assert found.thresholds.normal_pictures == 2


def test_nobody_keeps_a_second_list() -> None:
    known = set(endings())
    second = [
        f"{path.relative_to(CORE)}, line {node.lineno}"
        for path in sorted(CORE.rglob("*.py"))
        if path not in (CORE / "data" / "images.py", CORE / "runtime" / "pictures.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, (ast.Tuple, ast.List, ast.Set))
        if sum(isinstance(e, ast.Constant) and e.value in known for e in node.elts) > 1
    ]
    assert second == []


def test_what_runs_without_the_rest_reads_a_part_of_the_list() -> None:
    """An exported file is run where zsad's data room may not be installed."""
    known = {ending for form in of_exports.FORMATS for ending in FORMATS[form]}
    assert set(of_exports.ENDINGS) <= known

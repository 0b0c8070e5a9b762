"""Small pictures and maps of a category: chosen, kept once, read again."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zsad.results import examples, gallery
from zsad.results.examples import CellExamples
from zsad.results.gallery import MapGallery
from zsad.results.records import CellKey
from zsad.types import Sample


def sample(folder: Path, uid: str, label: int = 0, defect: str = "") -> Sample:
    path = folder / f"{uid}.png"
    Image.new("RGB", (40, 20), (9 * len(uid), 40, 80)).save(path)
    return Sample(str(path), label, "c", defect=defect, uid=uid)


def test_every_type_of_defect_is_among_those_that_are_chosen(tmp_path: Path) -> None:
    kinds = ["good"] * 6 + ["hole"] * 3 + ["dent"]
    all_of = [sample(tmp_path, f"{i}", int(k != "good"), k) for i, k in enumerate(kinds)]
    assert gallery.chosen(all_of, 10) == all_of
    few = gallery.chosen(all_of, 4)
    assert [s.uid for s in few] == ["0", "1", "6", "9"]  # one of each, then another normal one


def test_pictures_are_made_once_and_again_for_other_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    read = gallery.read_image
    monkeypatch.setattr(
        gallery, "read_image", lambda path, *a: (made.append(Path(path).stem), read(path, *a))[1]
    )
    pictures = [sample(tmp_path, uid) for uid in ("a", "bb")]
    for _ in range(2):
        gallery.keep(tmp_path, "d", "c", "one", pictures)
    assert made == ["a", "bb"]
    held = gallery.load(tmp_path, "d", "c")
    assert sorted(held) == ["a", "bb"]
    assert held["a"][:2] == b"\xff\xd8"
    assert gallery.load(tmp_path, "d", "c", "two") == {}
    gallery.keep(tmp_path, "d", "c", "two", pictures[:1])
    assert made == ["a", "bb", "a"]
    assert list(gallery.load(tmp_path, "d", "c", "two")) == ["a"]


def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    broken = sample(tmp_path, "broken")
    Path(broken.image).write_bytes(b"nothing")
    gallery.keep(tmp_path, "d", "c", "f", [broken, sample(tmp_path, "a")])
    assert list(gallery.load(tmp_path, "d", "c")) == ["a"]
    gallery.path_of(tmp_path, "d", "c").write_bytes(b"nothing")
    assert gallery.load(tmp_path, "d", "c") == {}


def test_maps_come_back_to_half_a_step(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    maps = [rng.normal(size=(6, 5)).astype(np.float32) for _ in range(3)]
    held = MapGallery.of(["a", "b", "c"], maps)
    key = CellKey("clip", "d", "c", 0, "f" * 16)
    examples.save(tmp_path, key, CellExamples([], {}, held))
    found = examples.load(tmp_path, key)
    assert found is not None
    assert found.maps is not None
    assert found.maps.uids == ["a", "b", "c"]
    step = (held.high - held.low) / 255
    again = found.maps.low + found.maps.levels * step
    assert np.abs(again - np.stack(maps)).max() <= step / 2 + 1e-6


def test_equal_examples_make_equal_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = CellKey("m", "d", "c", 0, "f")
    held = MapGallery.of(["a"], [np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)])
    written = []
    for year in (2001, 2031):
        monkeypatch.setattr(time, "localtime", lambda *_, y=year: (y, 1, 1, 0, 0, 0))
        written.append(examples.save(tmp_path, key, CellExamples([], {}, held)).read_bytes())
    assert written[0] == written[1]


def test_a_constant_map_is_kept() -> None:
    held = MapGallery.of(["a"], [np.full((2, 2), 3.0)])
    assert (held.low, held.high, held.levels.max()) == (3.0, 3.0, 0)


def test_cells_of_before_have_none(tmp_path: Path) -> None:
    key = CellKey("clip", "d", "c", 0, "f" * 16)
    examples.save(tmp_path, key, CellExamples([], {}))
    found = examples.load(tmp_path, key)
    assert found is not None
    assert found.maps is None

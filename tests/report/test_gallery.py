"""What the page compares picture by picture, before a browser draws it."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from zsad.report import gallery
from zsad.results.examples import CellExamples
from zsad.results.gallery import MapGallery

# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
DEUTERANOPE = np.array(
    [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ]
)


def test_grey_says_how_rare_a_value_is() -> None:
    levels = np.zeros((1, 50, 20), np.uint8)
    levels[0, :10, 0] = 200  # ten in a thousand
    levels[0, 10, 0] = 255  # one in a thousand
    grey = gallery.rarity(levels)
    assert grey[0] == 0
    assert grey[255] == 255
    assert grey[200] == pytest.approx(255 * -np.log10(11 / 1000) / 3, abs=6)
    assert (np.diff(grey.astype(int)) >= 0).all()


def test_rarity_does_not_depend_on_a_methods_units() -> None:
    rng = np.random.default_rng(1)
    maps = [rng.random((28, 28)).astype(np.float32) for _ in range(4)]
    one = MapGallery.of(list("abcd"), maps)
    other = MapGallery.of(list("abcd"), [1000 * m - 7 for m in maps])
    assert np.array_equal(
        gallery.rarity(one.levels)[one.levels], gallery.rarity(other.levels)[other.levels]
    )


def test_tiles_lie_where_the_page_looks_for_them() -> None:
    maps = [np.full((28, 28), i, np.float32) for i in range(10)]
    held = MapGallery.of([f"{i}" for i in range(10)], maps)
    uids = ["9", "missing", "0"]
    found = gallery.of_cell(
        CellExamples([], {}, held), uids, {"9": 0.123456789, "0": 1.0}, {"9", "0"}
    )
    assert found["scores"] == [0.123457, None, 1.0]
    assert found["maps"]["tiles"] == [1, -1, 0]  # in the order of the maps, those that are shown
    raw = base64.b64decode(found["maps"]["sheet"].partition(",")[2])
    sheet = np.asarray(Image.open(io.BytesIO(raw)).convert("L"))
    assert sheet.shape == (28, 8 * 28)
    assert sheet[14, 28 + 14] > sheet[14, 14]  # "9" is hotter than "0"


def test_without_maps_there_are_scores() -> None:
    found = gallery.of_cell(CellExamples([]), ["a"], {"a": 2.0}, {"a"})
    assert found == {"scores": [2.0], "maps": None}


def lab(colour: str, matrix: np.ndarray) -> np.ndarray:
    """CIE Lab of a colour as somebody sees it."""
    values = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    ) @ np.clip(matrix @ linear, 0, 1)
    f = np.cbrt(xyz / np.array([0.9505, 1.0, 1.089]))
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("matrix", [np.eye(3), DEUTERANOPE], ids=["anybody", "deuteranope"])
def test_colours_of_methods_can_be_told_apart(matrix: np.ndarray) -> None:
    from zsad.report.page import ASSETS

    text = (ASSETS / "dom.js").read_text(encoding="utf-8")
    named = re.search(r"const COLOURS = \[(.*?)\]", text, re.S)
    assert named is not None
    colours = [lab(c, matrix) for c in re.findall(r"#\w{6}", named[1])]
    assert len(colours) == 8
    distances = [np.linalg.norm(a - b) for i, a in enumerate(colours) for b in colours[:i]]
    assert min(distances) > 15  # 2.3 is just noticeable

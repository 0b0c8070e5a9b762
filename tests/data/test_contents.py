"""A picture is known again by its file and by its pixels, and by nothing less."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zsad.data.contents import Twin, content, contents, twins
from zsad.types import Sample


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (40, 30)) -> Sample:
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **({"quality": 90} if path.suffix == ".jpg" else {}))
    return Sample(image=str(path), label=0, category="c", uid=path.name)


def test_copies_are_known_and_others_are_not(tmp_path: Path) -> None:
    known = [picture(tmp_path / "a.png", 1), picture(tmp_path / "b.jpg", 2)]
    table = contents(known)
    assert table == tuple(map(content, known))
    length, file, size, pixels = table[0].split("-")
    assert (int(length), size) == ((tmp_path / "a.png").stat().st_size, "40x30")
    assert (len(file), len(pixels)) == (32, 32)

    copy = tmp_path / "copy.bin"  # the ending says nothing
    copy.write_bytes((tmp_path / "b.jpg").read_bytes())
    anew = tmp_path / "anew.bmp"
    Image.open(known[1].image).save(anew)
    again = tmp_path / "again.jpg"  # compressed a second time: not known, as the docs say
    Image.open(known[1].image).save(again, quality=60)
    other = picture(tmp_path / "other.png", 3)
    asked = [replace(other, image=str(p), uid=p.name) for p in (copy, anew, again)]
    assert twins(table, [*asked, other]) == [
        Twin("copy.bin", 1, "the same file"),
        Twin("anew.bmp", 1, "the same pixels"),
    ]


def test_a_tile_is_its_own_picture(tmp_path: Path) -> None:
    whole = picture(tmp_path / "whole.png", 4)
    tile = replace(whole, crop=(0, 0, 20, 30), uid="whole.png#0")
    assert content(tile).startswith("0-0-20x30-")
    cut = tmp_path / "cut.png"
    Image.open(whole.image).crop((0, 0, 20, 30)).save(cut)
    assert twins([content(tile)], [replace(whole, image=str(cut), uid="cut")]) == [
        Twin("cut", 0, "the same pixels")
    ]
    assert twins([content(tile)], [whole]) == []  # the whole is not the tile


@pytest.mark.parametrize("spoilt", ["", "1-2-3", "x"])
def test_what_cannot_be_read_matches_nothing(tmp_path: Path, spoilt: str) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    sample = Sample(image=str(broken), label=0, category="c", uid="broken")
    assert content(sample) == ""
    assert twins([spoilt], [sample]) == []
    assert twins([content(picture(tmp_path / "a.png"))], [sample]) == []

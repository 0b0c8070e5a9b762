"""What zsad wrote is known by name and mark, or by the record beside it; others' files are not."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from zsad.data import own_outputs


@pytest.mark.parametrize(
    ("name", "marked", "record", "own"),
    [
        ("x.heat.webp", True, "", True),
        ("x.mask.png", True, "", True),
        ("x.heat.webp", False, "", False),
        ("x.mask.png", False, "", False),  # a mask that somebody drew
        ("x.mask.png", False, "{}", False),
        ("x.mask.png", False, "no JSON", False),
        ("x.heat.png", False, '{"image_score": 0.5, "files": {}}', True),  # of an earlier version
        ("x.png", True, '{"image_score": 0.5, "files": {}}', False),
        ("x.heat.webp.png", True, "", False),
    ],
)
def test_own_files(name: str, marked: bool, record: str, own: bool, tmp_path: Path) -> None:
    picture = Image.new("RGB", (4, 3))
    made_by = {"method": "clip", "class_name": "Schraube ä"}
    if not marked:
        picture.save(tmp_path / name)
    elif name.endswith(".webp"):
        picture.save(tmp_path / name, exif=own_outputs.exif(made_by))
    else:
        picture.save(tmp_path / name, pnginfo=own_outputs.png_text(made_by))
    if record:
        (tmp_path / "x.json").write_text(record)
    assert own_outputs.is_own_output(tmp_path / name) is own


def test_a_broken_file_is_nobodys(tmp_path: Path) -> None:
    (tmp_path / "x.heat.webp").write_bytes(b"no picture")
    assert not own_outputs.is_own_output(tmp_path / "x.heat.webp")
    assert not own_outputs.is_own_output(tmp_path / "absent.mask.png")


def test_a_record_without_end_is_none(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.mask.png")
    (tmp_path / "a.json").write_text("[" * 100_000)
    assert not own_outputs.is_own_output(tmp_path / "a.mask.png")

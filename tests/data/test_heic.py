"""Pictures of phones: read with the extra `heic`, and named without it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zsad.data import images
from zsad.data.images import image_size, is_picture, read_image
from zsad.data.indexers.left_out import left_out
from zsad.errors import DataError
from zsad.io.foreign import describe

ORIENTATION = 0x0112  # EXIF tag


def test_a_turned_picture_is_read_upright_once(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif", reason="needs the extra `heic`")
    heif.register_heif_opener()
    pixels = np.full((64, 128, 3), 90, np.uint8)
    pixels[:, :32] = 200  # the left quarter; turned to the right: the upper one
    picture = Image.fromarray(pixels)
    exif = picture.getexif()
    exif[ORIENTATION] = 6
    path = tmp_path / "IMG_1.HEIC"
    picture.save(path, "HEIF", exif=exif.tobytes(), quality=95)
    found = np.asarray(read_image(path)).astype(int)
    assert image_size(path) == found.shape[:2] == (128, 64)
    assert abs(found[:28] - 200).max() <= 6
    assert abs(found[36:] - 90).max() <= 6
    assert is_picture(path.name)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"IMG_1\.HEIC: "):
        read_image(path)


def test_without_the_extra_a_picture_of_a_phone_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(images.FORMATS, "HEIF", raising=False)
    assert not is_picture("a.heic")
    assert "pip install 'zsad[heic]'" in (left_out(tmp_path, "a.heic", ["a.heic"]) or "")
    said = describe(b"\0\0\0\x1cftypheic\0\0\0\0mif1heic")
    assert said == "a HEIC picture; `pip install 'zsad[heic]'` has it read"
    assert describe(b"\0\0\0\x1cftypavif\0\0\0\0mif1avif") != said

"""Masks that compression has changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from zsad.data.lossy import is_lossy


@pytest.mark.parametrize(
    ("name", "options", "lossy"),
    [
        ("m.png", {}, False),
        ("m.bmp", {}, False),
        ("m.tif", {}, False),
        ("m.tif", {"compression": "tiff_lzw"}, False),
        ("m.webp", {"lossless": True}, False),
        ("m.jp2", {}, False),
        ("m.jpg", {"quality": 75}, True),
        ("m.tif", {"compression": "jpeg", "quality": 60}, True),
        ("m.webp", {"quality": 50}, True),
        ("m.avif", {"quality": 30}, True),
        ("m.jp2", {"quality_mode": "rates", "quality_layers": [60], "irreversible": True}, True),
    ],
)
def test_what_may_hold_values_that_nobody_painted(
    tmp_path: Path, name: str, options: dict[str, Any], lossy: bool
) -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[20:31, 11:40] = 255
    Image.fromarray(mask).save(tmp_path / name, **options)
    assert is_lossy(tmp_path / name) == lossy
    assert not is_lossy(tmp_path / "absent.png")

"""Colour pictures of 16 bits each: nothing of a camera's 10 or 12 bits is lost, in any format."""

from __future__ import annotations

import logging
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from zsad.data import plausible
from zsad.data.images import image_range, mask_values, read_image

SHAPE = (9, 7, 3)
Save = Callable[[Path, np.ndarray], object]


@pytest.fixture(autouse=True)
def _said_anew() -> None:
    plausible.forget()


def png(path: Path, values: np.ndarray) -> None:
    """Written by hand: Pillow writes no PNG of this kind."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        mark = struct.pack(">I", zlib.crc32(kind + data))
        content += struct.pack(">I", len(data)) + kind + data + mark
    path.write_bytes(content)


def with_alpha(path: Path, values: np.ndarray) -> None:
    png(path, np.concatenate([values, np.full((*SHAPE[:2], 1), 65535, np.uint16)], axis=2))


def tiff(path: Path, values: np.ndarray) -> None:
    tifffile.imwrite(path, values, photometric="rgb")


def packed_tiff(path: Path, values: np.ndarray) -> None:
    tifffile.imwrite(path, values, photometric="rgb", compression="deflate")


def planar_tiff(path: Path, values: np.ndarray) -> None:
    planes = np.moveaxis(values, -1, 0)
    tifffile.imwrite(path, planes, photometric="rgb", planarconfig="separate")


def ppm(path: Path, values: np.ndarray) -> None:
    head = f"P6\n{SHAPE[1]} {SHAPE[0]}\n65535\n".encode()
    path.write_bytes(head + values.astype(">u2").tobytes())


SAVE = [png, with_alpha, tiff, packed_tiff, planar_tiff, ppm]


def drawn(bits: int) -> np.ndarray:
    values = np.random.default_rng(0).integers(0, 2**bits, SHAPE).astype(np.uint16)
    values[0, 0] = 2**bits - 1
    return values


@pytest.mark.parametrize("save", SAVE)
@pytest.mark.parametrize("bits", [10, 12])
def test_bits_say_what_is_white(
    save: Save, bits: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, values = tmp_path / "a.bin", drawn(bits)
    save(path, values)
    with caplog.at_level(logging.WARNING):
        assert np.asarray(read_image(path)).max() <= 16  # nearly black, and said so
    assert caplog.text.count(f"data.folder.bits={bits}") == 1
    right = np.rint(values * (255 / (2**bits - 1)))
    np.testing.assert_array_equal(np.asarray(read_image(path, bits=bits)), right)
    assert image_range(path)[1:] == (2**bits - 1, 65535)
    assert image_range(path, bits)[1:] == (2**bits - 1, 2**bits - 1)


@pytest.mark.parametrize("save", SAVE)
def test_full_range_is_read_as_ever(
    save: Save, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, values = tmp_path / "a.bin", drawn(16)
    save(path, values)
    with caplog.at_level(logging.WARNING):
        found = np.asarray(read_image(path)).astype(int)
    assert np.abs(found - values / 257).max() <= 1  # Pillow drops the lower byte or rounds
    assert caplog.text == ""


@pytest.mark.parametrize("save", SAVE)
def test_a_deep_mask_keeps_any_value_above_zero(save: Save, tmp_path: Path) -> None:
    values = np.zeros(SHAPE, np.uint16)
    values[2:5, 1:4] = 3
    save(tmp_path / "a.bin", values)
    np.testing.assert_array_equal(mask_values(tmp_path / "a.bin") > 0, values[..., 0] > 0)


def test_floating_point_colour(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random(SHAPE).astype(np.float32)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb")
    found = np.asarray(read_image(tmp_path / "a.tif"))
    np.testing.assert_array_equal(found, np.rint(values.astype(np.float64) * 255))


@pytest.mark.parametrize("high", [200, 4000])
def test_a_pgm_file_states_its_range(high: int, tmp_path: Path) -> None:
    """A dark picture of 16 bits is not stretched because all of its values are below 256."""
    values = np.linspace(0, high, 63).astype(">u2")
    (tmp_path / "a.pgm").write_bytes(b"P5\n7 9\n65535\n" + values.tobytes())
    assert np.asarray(read_image(tmp_path / "a.pgm")).max() == round(high / 257)
    (tmp_path / "b.pgm").write_bytes(b"P5\n7 9\n4095\n" + values.tobytes())
    assert abs(np.asarray(read_image(tmp_path / "b.pgm")).max() - high * 255 / 4095) <= 1

"""Pictures reach a package's graph as they reach the encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zsad.data.images import read_image
from zsad.data.transforms import Preprocess as Reference
from zsad.errors import DataError, RequestError
from zsad.runtime.package import Found, tiling
from zsad.runtime.pictures import Preprocess, found, open_picture
from zsad.runtime.thresholds import Thresholds

FLAT = Thresholds(0.5, 0.9)


def test_what_of_a_folder_is_a_picture(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Hidden files and outputs of an earlier run were scored as pictures, and others left out
    without a word."""
    for name in ("a.png", ".b.png", "a.heat.webp", "a.mask.png", "sub/c.JPG", "d.heic", ".e/f.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert [Path(p).name for p in found([str(tmp_path)])] == ["a.png", "c.JPG"]
    assert "passed over 5 files that are not pictures: " in caplog.text
    assert "and 2 more" in caplog.text
    with pytest.raises(RequestError, match=r"--out .*: is the folder of the pictures"):
        found([str(tmp_path)], f"{tmp_path}/sub/..")
    with pytest.raises(RequestError, match=r"absent: no such file or folder"):
        found([str(tmp_path / "absent")])


def test_frames_behind_the_first_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = (Image.fromarray(np.full((8, 8, 3), v, np.uint8)) for v in (40, 90))
    for name in ("a.gif", "b.tif"):
        caplog.clear()
        first.save(tmp_path / name, save_all=True, append_images=[second])
        open_picture(tmp_path / name)
        assert f"{name}: holds several pictures" in caplog.text


@pytest.mark.parametrize(
    ("anomalous", "share", "note"),
    [
        (True, 0.0, "anomalous as a whole, nothing stands out"),
        (False, 0.0, None),
        (True, None, None),
    ],
)
def test_a_note_says_what_predict_says(
    anomalous: bool, share: float | None, note: str | None
) -> None:
    values = np.zeros((4, 4), np.float32)
    one = Found(0.7, values, (4, 4), FLAT, anomalous, (), 0, share)
    assert one.plain()["note"] == note


TOLD = {
    "size": 24,
    "interpolation": "bicubic",
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
}
RANDOM = np.random.default_rng(3)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "1", "CMYK"])
def test_every_8_bit_picture_is_read_as_predict_does(mode: str, tmp_path: Path) -> None:
    pixels = RANDOM.integers(0, 256, (20, 30, 4), dtype=np.uint8)
    path = tmp_path / ("p.tif" if mode == "CMYK" else "p.png")
    Image.fromarray(pixels).convert(mode).save(path)
    mine, right = open_picture(path), read_image(path)
    np.testing.assert_array_equal(np.asarray(mine), np.asarray(right))


def test_a_turned_photograph_is_upright(tmp_path: Path) -> None:
    picture = Image.fromarray(RANDOM.integers(0, 256, (20, 30, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "p.jpg", exif=exif)
    assert open_picture(tmp_path / "p.jpg").size == (20, 30)
    np.testing.assert_array_equal(
        np.asarray(open_picture(tmp_path / "p.jpg")), np.asarray(read_image(tmp_path / "p.jpg"))
    )


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_the_input_is_that_of_the_encoder(interpolation: str) -> None:
    picture = Image.fromarray(RANDOM.integers(0, 256, (37, 51, 3), dtype=np.uint8))
    right = Reference(24, tuple(TOLD["mean"]), tuple(TOLD["std"]), interpolation)(picture)  # type: ignore[arg-type]
    mine = Preprocess({**TOLD, "interpolation": interpolation})(picture)
    assert mine.dtype == np.float32
    np.testing.assert_allclose(mine[0], right.numpy(), rtol=0, atol=1e-6)


def test_what_is_no_picture_is_said_in_one_line(tmp_path: Path) -> None:
    deep = tmp_path / "deep.png"
    Image.fromarray(np.full((4, 4), 40000, np.uint16)).save(deep)
    (tmp_path / "text.png").write_text("no picture")
    Image.new("RGB", (64, 64), "red").save(tmp_path / "cut.jpg")
    whole = (tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    for name, words in (
        ("deep.png", "more than 8 bits a value"),
        ("text.png", "not an image of a known format"),
        ("cut.jpg", "broken or truncated"),
        ("none.png", "no such file"),
    ):
        with pytest.raises(DataError, match=rf"{name}: .*{words}") as error:
            open_picture(tmp_path / name)
        assert "\n" not in str(error.value)
    with pytest.raises(RequestError, match="must be uint8"):
        open_picture(np.zeros((2, 2)))


def test_words_name_files_folders_and_patterns(tmp_path: Path) -> None:
    for name in ("b.png", "a.jpg", "notes.txt", "deeper/c.bmp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = [Path(p).name for p in found([str(tmp_path)])]
    assert names == ["a.jpg", "b.png", "c.bmp"]
    assert found([str(tmp_path / "*.png")]) == [str(tmp_path / "b.png")]
    for wrong in (tmp_path / "*.gif", tmp_path / "deeper" / "empty"):
        if "*" not in str(wrong):
            wrong.mkdir()
        with pytest.raises(RequestError, match=r"no (file matches|pictures there)"):
            found([str(wrong)])


@pytest.mark.parametrize("told", ["4", -1, 65, True, None, 2.0])
def test_a_tiling_that_is_none_is_refused(told: object) -> None:
    with pytest.raises(ValueError, match="tiles"):
        tiling(told)
    assert [tiling(n) for n in (0, 3, "auto")] == [0, 3, "auto"]

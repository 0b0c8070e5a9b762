"""Images and masks of every kind that archives hold, against answers known beforehand."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from zsad.data import images, pixel_values
from zsad.data.images import (
    image_digest,
    image_size,
    mask_values,
    read_image,
    read_mask,
    whole_size,
)
from zsad.errors import DataError, RequestError
from zsad.types import Sample

ORIENTATION = 0x0112


def _pixels(path: Path) -> np.ndarray:
    return np.asarray(read_image(path))


def _masked(image: Path, mask: Path, **more: object) -> Sample:
    return Sample(str(image), 1, "thing", str(mask), **more)  # type: ignore[arg-type]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    Image.fromarray(np.full((6, 10, 3), 80, dtype=np.uint8)).save(path)
    return path


def _save_mask(path: Path, values: np.ndarray) -> Path:
    Image.fromarray(values).save(path)
    return path


# ---------------------------------------------------------------------------------- images
def test_grey(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 100, 255]], dtype=np.uint8)).save(tmp_path / "a.png")
    assert _pixels(tmp_path / "a.png").tolist() == [[[0] * 3, [100] * 3, [255] * 3]]


def test_bilevel(tmp_path: Path) -> None:
    Image.fromarray(np.array([[False, True]])).save(tmp_path / "a.png")
    assert _pixels(tmp_path / "a.png").tolist() == [[[0] * 3, [255] * 3]]


def test_deep_grey_keeps_its_range(tmp_path: Path) -> None:
    """16 bits: 257 grey steps of the file are one of ours; nothing is clipped at 255."""
    deep = np.array([[0, 257, 257 * 100, 65535]], dtype=np.uint16)
    for name in ("a.png", "a.tif"):
        Image.fromarray(deep).save(tmp_path / name)
        assert _pixels(tmp_path / name)[0, :, 0].tolist() == [0, 1, 100, 255]


def test_float_tiff(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.array([[0.0, 0.5, 1.0]], dtype=np.float32))
    assert _pixels(tmp_path / "a.tif")[0, :, 0].tolist() == [0, 128, 255]
    tifffile.imwrite(tmp_path / "b.tif", np.array([[0.0, np.nan]], dtype=np.float32))
    with pytest.raises(DataError, match=r"b\.tif: pixel values .* have no 8-bit meaning"):
        _pixels(tmp_path / "b.tif")


def test_palette(tmp_path: Path) -> None:
    """Colours, not indices."""
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([0, 1])
    image.save(tmp_path / "a.png")
    assert _pixels(tmp_path / "a.png").tolist() == [[[10, 20, 30], [200, 100, 50]]]


def test_alpha_is_composited_on_black(tmp_path: Path) -> None:
    """Trap 4: neither dropped nor laid on white; the rule is stated."""
    rgba = np.array([[[200, 100, 50, 255], [200, 100, 50, 0], [200, 100, 50, 51]]], dtype=np.uint8)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    assert _pixels(tmp_path / "a.png").tolist() == [[[200, 100, 50], [0, 0, 0], [40, 20, 10]]]
    assert images.DECODING_RULES["alpha"] == "composited on black"


def test_transparent_palette(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([0, 1])
    image.save(tmp_path / "a.png", transparency=1)
    assert _pixels(tmp_path / "a.png").tolist() == [[[10, 20, 30], [0, 0, 0]]]


def test_cmyk(tmp_path: Path) -> None:
    """Trap, made up: full cyan ink is not red."""
    Image.new("CMYK", (16, 16), (255, 0, 0, 0)).save(tmp_path / "a.jpg", quality=100)
    red, green, blue = _pixels(tmp_path / "a.jpg")[8, 8]
    assert red < 10
    assert green > 245
    assert blue > 245


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int) -> None:
    """Trap, made up: all eight orientations come out upright, and so does the size."""
    upright = np.zeros((4, 6, 3), dtype=np.uint8)
    upright[0, :] = 90
    upright[:, 0] = 200
    image = Image.fromarray(upright)
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = image if orientation == 1 else image.transpose(undo[orientation])
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    assert (_pixels(tmp_path / "a.png") == upright).all()
    assert image_size(tmp_path / "a.png") == (4, 6)


@pytest.mark.parametrize("where", ["before", "behind", "text", "xmp"])
def test_the_size_of_a_turned_png(tmp_path: Path, where: str) -> None:
    """Whatever chunk says that it is turned, before the pixels or behind them."""
    from PIL.PngImagePlugin import PngInfo

    exif, info = Image.Exif(), PngInfo()
    exif[ORIENTATION] = 6
    picture, path = Image.new("RGB", (6, 4), (9, 99, 199)), tmp_path / "a.png"
    if where == "text":
        content = exif.tobytes()
        info.add_text("Raw profile type exif", f"\nexif\n{len(content)}\n{content.hex()}")
    if where == "xmp":
        info.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')
    picture.save(path, exif=exif if where in ("before", "behind") else None, pnginfo=info)
    if where == "behind":
        data = path.read_bytes()
        start = data.index(b"eXIf") - 4
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        pixels = data[:start] + data[end:]
        path.write_bytes(pixels[:-12] + data[start:end] + pixels[-12:])  # before IEND
    assert image_size(path) == _pixels(path).shape[:2] == (6, 4)


def test_the_size_of_a_png_takes_its_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (60, 40)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image.Image, "load", None)
    assert image_size(tmp_path / "a.png") == (40, 60)


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_multi_sample_tiff_under_a_grey_tag(tmp_path: Path, planar: str) -> None:
    """Trap 1: three samples tagged as greyscale are colours, in both arrangements."""
    colour = np.zeros((5, 7, 3), dtype=np.uint8)
    colour[...] = (111, 69, 40)
    stored = colour if planar == "contig" else np.moveaxis(colour, -1, 0)
    path = tmp_path / "1.tif"
    tifffile.imwrite(path, stored, photometric="minisblack", planarconfig=planar)
    assert (_pixels(path) == colour).all()
    assert image_size(path) == (5, 7)


def test_endings_that_lie(tmp_path: Path) -> None:
    """Trap 4: a PNG called .jpg and a JPEG called .PNG open by their content."""
    Image.new("RGBA", (3, 3), (50, 60, 70, 255)).save(tmp_path / "a.jpg", format="PNG")
    Image.new("L", (8, 8), 90).save(tmp_path / "b.PNG", format="JPEG")
    assert _pixels(tmp_path / "a.jpg")[0, 0].tolist() == [50, 60, 70]
    assert _pixels(tmp_path / "b.PNG")[0, 0].tolist() == [90, 90, 90]


def test_blanks_in_names(tmp_path: Path) -> None:
    Image.new("L", (2, 2), 9).save(tmp_path / "a b  c.JPEG", format="PNG")
    assert _pixels(tmp_path / "a b  c.JPEG").max() == 9


def test_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("L", (2, 2), v) for v in (10, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert _pixels(tmp_path / "a.gif").max() == 10


def test_crop(picture: Path) -> None:
    assert read_image(picture, (2, 1, 9, 5)).size == (7, 4)
    with pytest.raises(DataError, match=r"the piece \(2, 1, 11, 5\) lies outside of 10x6"):
        read_image(picture, (2, 1, 11, 5))


# ---------------------------------------------------------------------------- broken files
def _broken_files(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    whole = Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8))
    paths = []
    for ending in ("png", "jpg", "bmp", "tif", "gif", "webp"):
        path = tmp_path / f"whole.{ending}"
        whole.save(path)
        content = path.read_bytes()
        for part in (0.03, 0.5):
            cut = tmp_path / f"cut-{part}.{ending}"
            cut.write_bytes(content[: int(len(content) * part)])
            paths.append(cut)
    return paths


def test_truncated_files_name_themselves(tmp_path: Path) -> None:
    """Trap, made up: one clear line for every format and cut, never another exception."""
    for path in _broken_files(tmp_path):
        with pytest.raises(DataError) as caught:
            read_image(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_garbage_is_refused_not_guessed(tmp_path: Path) -> None:
    """Random damage to a whole file either decodes or is a DataError."""
    rng = np.random.default_rng(1)
    _broken_files(tmp_path)
    for whole in sorted(tmp_path.glob("whole.*")):
        content = bytearray(whole.read_bytes())
        for _ in range(20):
            damaged = bytearray(content)
            for at in rng.integers(0, len(damaged), 30):
                damaged[at] = int(rng.integers(0, 256))
            path = tmp_path / f"damaged{whole.suffix}"
            path.write_bytes(bytes(damaged))
            with contextlib.suppress(DataError):
                assert read_image(path).mode == "RGB"


def test_empty_absent_and_foreign_files(tmp_path: Path) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(DataError, match="the file is empty"):
        read_image(tmp_path / "empty.png")
    with pytest.raises(DataError, match="not an image of a known format"):
        read_image(tmp_path / "text.png")
    with pytest.raises(DataError, match=r"absent\.png: no such file"):
        read_image(tmp_path / "absent.png")
    with pytest.raises(DataError, match="no reader is registered for 'nowhere://'"):
        read_image("nowhere://1")


def test_huge_images_are_refused_before_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZSAD_MAX_PIXELS", "100")
    Image.new("L", (11, 10)).save(tmp_path / "a.png")
    colour = np.zeros((10, 11, 3), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", colour, photometric="minisblack", planarconfig="contig")
    for name in ("a.png", "a.tif"):
        with pytest.raises(DataError, match="11x10 pixels, more than the limit of 100"):
            read_image(tmp_path / name)
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    with pytest.raises(DataError, match="more pixels than the limit"):
        read_image(tmp_path / "bomb.png")


def test_the_limit_of_pixels_can_be_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("1", (20_000, 10_000)).save(tmp_path / "wide.png")
    with pytest.raises(DataError, match="ZSAD_MAX_PIXELS raises the limit"):
        read_image(tmp_path / "wide.png")
    monkeypatch.setenv("ZSAD_MAX_PIXELS", "250_000_000")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    assert read_image(tmp_path / "wide.png").size == (20_000, 10_000)
    for wrong in ("many", "-1", "0", "1.5", "9" * 40):
        monkeypatch.setenv("ZSAD_MAX_PIXELS", wrong)
        with pytest.raises(RequestError, match=r"ZSAD_MAX_PIXELS=.*: not a whole number above 0"):
            read_image(tmp_path / "wide.png")


def test_files_that_are_no_pictures_are_called_what_they_are(tmp_path: Path) -> None:
    for content, words in (
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
        (b"<!doctype html><title>404</title>", "an HTML or XML page"),
        (b"7z\xbc\xaf\x27\x1c\0\0", "a 7z archive"),
    ):
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(DataError, match=rf"a\.png: not an image .*\(it is {words}"):
            read_image(tmp_path / "a.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_pipes_and_folders_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match=r"pipe\.png: not a regular file"):
        read_image(tmp_path / "pipe.png")
    with pytest.raises(DataError, match=r"not a regular file|cannot be read"):
        read_image(tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        read_image("a\0.png")


class Unheard(Exception):
    """Of no kind that anybody lists."""


def test_whatever_a_decoder_raises_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def reader(uri: str) -> Image.Image:
        raise Unheard("first line\nand the cause")

    images.register_reader("unheard", reader)
    try:
        for read in (read_image, image_size, mask_values):
            with pytest.raises(DataError, match=r"unheard://1: .*first line \.\.\. and the cause"):
                read("unheard://1")
    finally:
        del images.READERS["unheard"]


def test_deep_pictures_are_converted_in_stripes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same values, whatever the stripe."""
    array = np.random.default_rng(0).integers(0, 65536, (23, 9)).astype(np.uint16)
    Image.fromarray(array).save(tmp_path / "deep.png")
    whole, levels = _pixels(tmp_path / "deep.png"), mask_values(tmp_path / "deep.png")
    monkeypatch.setattr(pixel_values, "STRIPE", 20)
    assert np.array_equal(_pixels(tmp_path / "deep.png"), whole)
    assert np.array_equal(mask_values(tmp_path / "deep.png"), levels)
    assert whole[..., 0].tolist() == np.rint(array / 257).astype(int).tolist()


# ----------------------------------------------------------------------------------- masks
def test_class_indices_are_anomalous(picture: Path, tmp_path: Path) -> None:
    """Trap 15 and 17: masks of 1 and 2 are not emptied by a threshold of one half."""
    values = np.zeros((6, 10), dtype=np.uint8)
    values[0, :3] = (1, 2, 5)
    sample = _masked(picture, _save_mask(tmp_path / "m.png", values))
    assert read_mask(sample)[0].tolist() == [True] * 3 + [False] * 7
    assert read_mask(sample).sum() == 3


def test_palette_mask_counts_indices(picture: Path, tmp_path: Path) -> None:
    """Trap 15: class 2 may be painted black; the index says that it is marked."""
    image = Image.new("P", (10, 6))
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 0])
    image.putdata([1, 2, *[0] * 58])
    image.save(tmp_path / "m.png")
    assert read_mask(_masked(picture, tmp_path / "m.png")).sum() == 2


def test_deep_and_bilevel_masks(picture: Path, tmp_path: Path) -> None:
    deep = np.zeros((6, 10), dtype=np.uint16)
    deep[0, :2] = (1, 65535)
    assert read_mask(_masked(picture, _save_mask(tmp_path / "deep.png", deep))).sum() == 2
    one = np.zeros((6, 10), dtype=bool)
    one[2, 3] = True
    assert (read_mask(_masked(picture, _save_mask(tmp_path / "one.png", one))) == one).all()


def test_threshold_is_explicit(picture: Path, tmp_path: Path) -> None:
    """Traps 2 and 3: grey masks are cut above the stated value, 0 unless stated."""
    values = np.zeros((6, 10), dtype=np.uint8)
    values[0, :4] = (1, 127, 128, 255)
    sample = _masked(picture, _save_mask(tmp_path / "m.png", values))
    assert read_mask(sample).sum() == 4
    assert read_mask(replace(sample, mask_threshold=127)).sum() == 2


def test_no_mask_has_height_before_width(picture: Path) -> None:
    """Trap 10: the zero mask of a normal image is (height, width), and boolean."""
    mask = read_mask(Sample(str(picture), 0, "thing"))
    assert mask.shape == (6, 10)
    assert mask.dtype == bool
    assert not mask.any()


def test_masks_of_another_size(picture: Path, tmp_path: Path) -> None:
    """Made up: equal proportions are scaled, others are an error that names both files."""
    values = np.zeros((12, 20), dtype=np.uint8)
    values[:2, :2] = 255
    half = _masked(picture, _save_mask(tmp_path / "double.png", values))
    assert read_mask(half).sum() == 1
    turned = _masked(picture, _save_mask(tmp_path / "turned.png", values.T[:10, :6].copy()))
    with pytest.raises(DataError, match=r"turned\.png: mask of 6x10 .* image of 10x6 \(.*picture"):
        read_mask(turned)


def test_mask_follows_the_turn_of_its_image(tmp_path: Path) -> None:
    """Made up: the image carries an EXIF turn, its mask file does not."""
    stored = np.zeros((4, 6, 3), dtype=np.uint8)
    stored[0, 0] = 255
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    sample = _masked(tmp_path / "a.png", _save_mask(tmp_path / "m.png", stored[..., 0].copy()))
    assert (read_mask(sample) == (_pixels(tmp_path / "a.png")[..., 0] == 255)).all()


def test_all_zero_mask_of_an_anomalous_image(picture: Path, tmp_path: Path) -> None:
    """Made up: it stays empty; `zsad data check` reports it."""
    sample = _masked(picture, _save_mask(tmp_path / "m.png", np.zeros((6, 10), dtype=np.uint8)))
    assert not read_mask(sample).any()


def test_extra_masks_are_united(picture: Path, tmp_path: Path) -> None:
    """Trap 16: a strip with two mask files."""
    first, second = (np.zeros((6, 10), dtype=np.uint8) for _ in range(2))
    first[0, 0] = second[5, 9] = 255
    paths = [_save_mask(tmp_path / f"{i}.png", m) for i, m in enumerate((first, second))]
    sample = _masked(picture, paths[0], extra_masks=(str(paths[1]),))
    assert read_mask(sample).sum() == 2
    assert read_mask(replace(sample, crop=(5, 0, 10, 6))).sum() == 1


def test_the_size_of_a_piece_is_not_taken_for_that_of_the_whole_picture(
    picture: Path, tmp_path: Path
) -> None:
    values = np.zeros((6, 10), dtype=np.uint8)
    values[2, 7] = 255
    sample = _masked(picture, _save_mask(tmp_path / "m.png", values))
    piece = replace(sample, crop=(5, 0, 10, 6))
    assert whole_size(sample, (6, 10)) == whole_size(piece, (6, 5)) == whole_size(piece) == (6, 10)
    assert np.argwhere(read_mask(piece, seen_hw=(6, 5))).tolist() == [[2, 2]]
    assert np.argwhere(read_mask(sample, seen_hw=(6, 10))).tolist() == [[2, 7]]
    assert read_mask(replace(piece, mask=None), seen_hw=(6, 5)).shape == (6, 5)


def test_mask_values_of_an_alpha_file(tmp_path: Path) -> None:
    rgba = np.array([[[255, 255, 255, 255], [255, 255, 255, 0]]], dtype=np.uint8)
    Image.fromarray(rgba).save(tmp_path / "m.png")
    assert mask_values(tmp_path / "m.png").tolist() == [[255, 0]]


def test_digest_follows_content_and_crop(picture: Path, tmp_path: Path) -> None:
    """Trap 5: a byte-identical copy has the same digest whatever it is called."""
    copy = tmp_path / "copy.jpg"
    copy.write_bytes(picture.read_bytes())
    first, second = (Sample(str(p), 0, "thing") for p in (picture, copy))
    assert image_digest(first) == image_digest(second)
    assert image_digest(first) != image_digest(replace(first, crop=(0, 0, 2, 2)))


def _mutants() -> Iterator[tuple[str, bytes]]:
    """Damaged files of the formats whose decoders raise types of their own; always the same."""
    scene = np.random.default_rng(0).integers(0, 255, (24, 32, 3)).astype(np.uint8)
    sources: dict[str, bytes] = {}
    for kind, options in (
        ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("TIFF", {"compression": "jpeg"}),
        ("TIFF", {"compression": "tiff_adobe_deflate"}), ("AVIF", {}), ("WEBP", {}),
        ("JPEG2000", {}), ("GIF", {}), ("SGI", {}), ("PCX", {}), ("ICO", {}), ("PNG", {}),
    ):  # fmt: skip
        buffer = io.BytesIO()
        Image.fromarray(scene).save(buffer, kind, **options)
        sources[f"{kind}-{options.get('compression', '')}"] = buffer.getvalue()
    for planar in ("contig", "separate"):
        buffer = io.BytesIO()
        pixels = scene if planar == "contig" else np.moveaxis(scene, -1, 0)
        tifffile.imwrite(buffer, pixels, photometric="minisblack", planarconfig=planar,
                         compression="zlib")  # fmt: skip
        sources[f"tifffile-{planar}"] = buffer.getvalue()
    rng = np.random.default_rng(1)
    for name, whole in sources.items():
        for i in range(30):
            content = bytearray(whole)
            for place in rng.integers(4, len(content), rng.integers(1, 12)):
                # Heads and directories decide more than pixels do.
                at = int(place) if i % 2 else int(place) % min(len(content), 260)
                content[at] = int(rng.integers(256))
            yield f"{name}-{i}", bytes(content[: len(content) // 2] if i % 10 == 9 else content)


@pytest.mark.filterwarnings("ignore")
def test_whatever_a_decoder_raises_names_the_file(tmp_path: Path) -> None:
    problems: list[str] = []
    refused = 0
    for name, content in _mutants():
        path = tmp_path / "odd"
        path.write_bytes(content)
        for read in (read_image, image_size, mask_values):
            try:
                read(path)
            except Exception as error:
                refused += 1
                if not isinstance(error, DataError) or str(path) not in str(error):
                    problems.append(f"{name}, {read.__name__}: {type(error).__name__}: {error}")
    assert problems == []
    assert refused > 150


def test_a_tiff_of_many_planes_is_measured_with_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One page may hold a volume, of which a picture is the first plane: all of it is decoded."""
    path = tmp_path / "volume.tif"
    tifffile.imwrite(
        path,
        np.zeros((1600, 16, 16, 3), np.float32),
        volumetric=True,
        tile=(16, 16, 16),
        photometric="rgb",
        compression="zlib",
    )
    monkeypatch.setenv("ZSAD_MAX_PIXELS", "100000")
    with pytest.raises(DataError, match=r"volume.tif: .*ZSAD_MAX_PIXELS raises the limit"):
        read_image(path)

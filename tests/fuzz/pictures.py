"""Some hundred image files: sound ones of every kind, broken ones, and things that are none."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import tifffile
from PIL import Image

HEIGHT, WIDTH = 30, 40


@dataclass(frozen=True)
class Case:
    """``expected``: the RGB pixels within ``tolerance`` where the file is sound; "refused"; or
    "either", where damage may or may not leave something to decode."""

    name: str
    content: bytes
    expected: np.ndarray | str
    tolerance: float = 0.0


def scene(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Smooth colours that differ in every direction, uint8 [H, W, 3]."""
    y, x = np.mgrid[:height, :width]
    red = 255 * x / max(1, width - 1)
    green = 255 * y / max(1, height - 1)
    blue = 255 - (red + green) / 2
    return np.stack([red, green, blue], -1).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(array: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def cases() -> list[Case]:
    """All of them; the same every time."""
    found = [*modes(), *sizes(), *turned(), *animated(), *endings()]
    found += [*damaged(), *zeros(), *huge(), *foreign(), *bombs()]
    names = [c.name for c in found]
    assert len(set(names)) == len(names)
    return found


# -------------------------------------------------------------------------------------- sound
def modes() -> Iterator[Case]:
    colour = Image.fromarray(scene())
    pixels = np.asarray(colour)
    grey = colour.convert("L")
    of_grey = np.asarray(grey.convert("RGB"))
    deep = np.asarray(grey).astype(np.uint16) * 257
    for kind in ("PNG", "BMP", "TIFF", "PPM"):
        yield Case(f"rgb.{kind.lower()}", encoded(colour, kind), pixels)
        yield Case(f"grey.{kind.lower()}", encoded(grey, kind), of_grey)
    yield Case("lossless.webp", encoded(colour, "WEBP", lossless=True), pixels)
    yield Case("lossy.webp", encoded(colour, "WEBP", quality=95), pixels, 16)
    yield Case("rgb.jp2", encoded(colour, "JPEG2000"), pixels, 3)
    for name, options in {
        "rgb": {},
        "progressive": {"progressive": True},
        "subsampled": {"subsampling": 2},
    }.items():
        content = encoded(colour, "JPEG", quality=95, **options)
        yield Case(f"{name}.jpg", content, pixels, 24)
    yield Case("grey.jpg", encoded(grey, "JPEG", quality=95), of_grey, 12)
    cmyk = colour.convert("CMYK")
    yield Case("cmyk.jpg", encoded(cmyk, "JPEG", quality=95), pixels, 40)
    yield Case("cmyk.tif", encoded(cmyk, "TIFF"), pixels, 3)
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits"):
        content = encoded(colour, "TIFF", compression=compression)
        yield Case(f"{compression}.tif", content, pixels)
    yield Case("big.tif", tiff(pixels, bigtiff=True, photometric="rgb"), pixels)
    yield Case("tiled.tif", tiff(pixels, tile=(16, 16), photometric="rgb"), pixels)
    yield Case("big-endian.tif", tiff(deep, byteorder=">"), of_grey)
    yield Case("16-bit.tif", tiff(deep), of_grey)
    yield Case("16-bit.png", encoded(Image.fromarray(deep), "PNG"), of_grey)
    yield Case("16-bit.pgm", encoded(Image.fromarray(deep), "PPM"), of_grey)
    yield Case("32-bit.tif", tiff(deep.astype(np.uint32)), of_grey)
    yield Case("float.tif", tiff((np.asarray(grey) / 255).astype(np.float32)), of_grey)
    rgb16 = pixels.astype(np.uint16) * 257
    yield Case("16-bit-rgb.tif", tiff(rgb16, photometric="rgb"), "either")
    yield Case("not-a-number.tif", tiff(np.full((8, 8), np.nan, np.float32)), "refused")
    yield Case("negative.tif", tiff(np.full((8, 8), -5, np.int32)), "refused")
    bilevel = grey.convert("1")
    of_bilevel = np.asarray(bilevel.convert("RGB"))
    for kind in ("PNG", "BMP", "TIFF", "PPM"):
        yield Case(f"bilevel.{kind.lower()}", encoded(bilevel, kind), of_bilevel)
    yield from _transparent(colour)


def _transparent(colour: Image.Image) -> Iterator[Case]:
    """Alpha is composited on black, wherever it comes from."""
    alpha = np.zeros((HEIGHT, WIDTH), np.uint8)
    alpha[:, WIDTH // 2 :] = 255
    image = colour.copy()
    image.putalpha(Image.fromarray(alpha))
    shown = np.asarray(colour) * (alpha > 0)[..., None]
    for kind in ("PNG", "TIFF"):
        yield Case(f"alpha.{kind.lower()}", encoded(image, kind), shown)
    yield Case("alpha.webp", encoded(image, "WEBP", lossless=True), shown)
    grey = colour.convert("L")
    both = Image.merge("LA", (grey, Image.fromarray(alpha)))
    of_grey = np.asarray(grey.convert("RGB")) * (alpha > 0)[..., None]
    yield Case("grey-alpha.png", encoded(both, "PNG"), of_grey)
    palette = colour.quantize(16)
    known = np.asarray(palette.convert("RGB"))
    yield Case("palette.png", encoded(palette, "PNG"), known)
    yield Case("palette.gif", encoded(palette, "GIF"), known)
    yield Case("palette.bmp", encoded(palette, "BMP"), known)
    hidden = known * (np.asarray(palette) != 3)[..., None]
    yield Case("palette-index.png", encoded(palette, "PNG", transparency=3), hidden)
    yield Case("palette-index.gif", encoded(palette, "GIF", transparency=3), hidden)
    levels = bytes([255] * 3 + [0] + [255] * 12)
    yield Case("palette-alpha.png", encoded(palette, "PNG", transparency=levels), hidden)


def sizes() -> Iterator[Case]:
    """One pixel, and one pixel wide or high."""
    for kind in ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM"):
        for height, width in ((1, 1), (1, 50), (50, 1)):
            value = np.full((height, width, 3), 77, np.uint8)
            content = encoded(Image.fromarray(value), kind)
            yield Case(f"{width}x{height}.{kind.lower()}", content, value, 4)


def turned() -> Iterator[Case]:
    """Every EXIF orientation: the picture comes out upright."""
    upright = Image.fromarray(scene())
    operation = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    for kind, options in (
        ("JPEG", {"quality": 95}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
    ):
        for orientation in range(1, 9):
            stored = upright.transpose(operation[orientation]) if orientation > 1 else upright
            exif = Image.Exif()
            exif[0x0112] = orientation
            content = encoded(stored, kind, exif=exif, **options)
            name = f"orientation-{orientation}.{kind.lower()}"
            yield Case(name, content, scene(), 24 if kind == "JPEG" else 0)
    exif = Image.Exif()
    for odd in (0, 9, 77):
        exif[0x0112] = odd
        yield Case(f"orientation-{odd}.png", encoded(upright, "PNG", exif=exif), scene())


def animated() -> Iterator[Case]:
    """The first frame is the picture."""
    frames = [Image.fromarray(np.full((12, 16, 3), v, np.uint8)) for v in (10, 120, 240)]
    first = np.asarray(frames[0])
    for kind in ("GIF", "PNG", "WEBP", "TIFF"):
        options: dict[str, Any] = {"save_all": True, "append_images": frames[1:]}
        if kind == "WEBP":
            options["lossless"] = True
        content = encoded(frames[0], kind, **options)
        yield Case(f"animated.{kind.lower()}", content, first, 1)


def endings() -> Iterator[Case]:
    """Files go by their content, whatever they are called."""
    image = Image.fromarray(scene())
    kinds = {"PNG": "png", "JPEG": "jpg", "BMP": "bmp", "TIFF": "tif", "WEBP": "webp"}
    for kind in kinds:
        content = encoded(image, kind, **({"lossless": True} if kind == "WEBP" else {}))
        for ending in (e for k, e in kinds.items() if k != kind):
            name = f"really-{kind.lower()}.{ending}"
            yield Case(name, content, scene(), 40 if kind == "JPEG" else 0)


# ------------------------------------------------------------------------------------- broken
def _sound() -> dict[str, bytes]:
    image = Image.fromarray(scene())
    return {
        "png": encoded(image, "PNG"),
        "jpg": encoded(image, "JPEG", quality=90),
        "bmp": encoded(image, "BMP"),
        "gif": encoded(image, "GIF"),
        "tif": encoded(image, "TIFF", compression="tiff_lzw"),
        "webp": encoded(image, "WEBP"),
        "jp2": encoded(image, "JPEG2000"),
        "ppm": encoded(image, "PPM"),
        "multi.tif": tiff(scene(), photometric="minisblack", planarconfig="contig"),
    }


def damaged() -> Iterator[Case]:
    rng = np.random.default_rng(2026)
    for ending, content in _sound().items():
        for share in (0.02, 0.1, 0.2, 0.3, 0.5, 0.7):
            cut = content[: max(1, int(share * len(content)))]
            yield Case(f"cut-at-{int(100 * share)}.{ending}", cut, "refused")
        for number in range(4):
            flipped = bytearray(content)
            for at in rng.integers(0, len(flipped), 1 + 4 * number):
                flipped[at] ^= 1 << int(rng.integers(0, 8))
            yield Case(f"flipped-{number}.{ending}", bytes(flipped), "either")
        noise = bytearray(content)
        start = len(noise) // 3
        noise[start : 2 * start] = rng.bytes(start)
        yield Case(f"noise.{ending}", bytes(noise), "either")


def zeros() -> Iterator[Case]:
    for length in (0, 1, 8, 4096):
        yield Case(f"zeros-{length}.png", bytes(length), "refused")
    for ending, content in _sound().items():
        half = len(content) // 2
        yield Case(f"zero-half.{ending}", content[:half] + bytes(len(content) - half), "either")
        yield Case(f"zero-head.{ending}", bytes(16) + content[16:], "refused")


def huge() -> Iterator[Case]:
    """Headers that claim 60,000 x 60,000 pixels in front of a few bytes."""
    side = 60_000
    found = _sound()
    png = bytearray(found["png"])
    png[16:24] = struct.pack(">II", side, side)
    png[29:33] = struct.pack(">I", zlib.crc32(bytes(png[12:29])))
    bmp = bytearray(found["bmp"])
    bmp[18:26] = struct.pack("<ii", side, side)
    gif = bytearray(found["gif"])
    gif[6:10] = struct.pack("<HH", side, side)
    at = found["jpg"].index(b"\xff\xc0") + 5
    jpg = bytearray(found["jpg"])
    jpg[at : at + 4] = struct.pack(">HH", side, side)
    yield Case("huge.png", bytes(png), "refused")
    yield Case("huge.bmp", bytes(bmp), "refused")
    yield Case("huge.gif", bytes(gif), "refused")
    yield Case("huge.jpg", bytes(jpg), "refused")
    yield Case("huge.ppm", b"P6 %d %d 255\n" % (side, side) + bytes(100), "refused")
    flat = tiff(np.zeros((8, 8), np.uint8))
    for old, new in ((256, side), (257, side)):
        flat = _with_tag(flat, old, new)
    yield Case("huge.tif", flat, "refused")
    yield Case("huge-samples.tif", _with_tag(_sound()["multi.tif"], 256, side), "refused")


def _with_tag(content: bytes, tag: int, value: int) -> bytes:
    """A little-endian TIFF with another value of a tag."""
    changed = bytearray(content)
    (start,) = struct.unpack_from("<I", changed, 4)
    (count,) = struct.unpack_from("<H", changed, start)
    for i in range(count):
        at = start + 2 + 12 * i
        if struct.unpack_from("<H", changed, at)[0] == tag:
            struct.pack_into("<HII", changed, at + 2, 4, 1, value)
    return bytes(changed)


def bombs() -> Iterator[Case]:
    """Little files that become large."""
    plain = Image.new("1", (20_000, 20_000))
    yield Case("bomb.png", encoded(plain, "PNG"), "refused")
    yield Case("bomb.tif", encoded(plain, "TIFF", compression="group4"), "refused")
    text = zlib.compress(bytes(200_000_000), 9)
    chunk = b"zTXt" + b"Comment\0\0" + text
    packed = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    png = _sound()["png"]
    yield Case("bomb-in-a-comment.png", png[:33] + packed + png[33:], "either")
    yield Case("many-frames.gif", _many_frames(), "either")


def _many_frames() -> bytes:
    """2,000 frames: only the first may be looked at."""
    frames = [Image.new("L", (64, 64), i % 256) for i in range(2)]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    start = content.rindex(b"\x21\xf9")  # the last frame, with its extension
    return content[:start] + content[start:-1] * 2000 + b";"


def foreign() -> Iterator[Case]:
    """Files of other programs under the name of a picture."""
    for name, content in {
        "page.png": b"<!doctype html><title>404</title>",
        "drawing.png": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        "postscript.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshow\n",
        "document.png": b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\ntrailer\n<<>>\n%%EOF\n",
        "archive.png": b"PK\x03\x04" + bytes(60),
        "program.png": b"\x7fELF\x02\x01\x01" + bytes(60),
        "pickle.png": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00]\x94.",
        "script.png": b"#!/bin/sh\nexit 1\n",
        "metafile.png": b"\xd7\xcd\xc6\x9a\x00\x00" + bytes(60),
        "sky.png": b"SIMPLE  =                    T" + b" " * 50 + b"END" + b" " * 77,
        "pointer.png": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "blanks.png": b" \n\t" * 100,
    }.items():
        yield Case(name, content, "refused")

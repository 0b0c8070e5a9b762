"""Picture files to what a graph takes, exactly as ``zsad predict`` does for 8-bit pictures."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from zsad.errors import DataError, RequestError, gist
from zsad.runtime.package_file import numbers

ENDINGS = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".gif", ".tif", ".tiff"),
    *(".webp", ".ppm", ".pgm", ".pbm", ".pnm"),
)
FORMATS = ("PNG", "JPEG", "MPO", "BMP", "DIB", "GIF", "TIFF", "WEBP", "PPM")
MOST_PIXELS = 80_000_000
FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


class Preprocess:
    """A picture to [1, 3, S, S] float32: resized, scaled to 0..1, normalised.  ``stored``: it is
    resized in the mode of its file, and becomes RGB afterwards.

    Raises ``ValueError`` or ``KeyError`` for a description that is not one.
    """

    def __init__(self, told: Mapping[str, Any]) -> None:
        self.size = int(told["size"])
        if not 1 <= self.size <= 1 << 14:
            raise ValueError(f"size {self.size}")
        self.stored = bool(told.get("stored", False))
        self.filter = FILTERS[told["interpolation"]]
        self.mean, self.std = (
            np.array(numbers(told[k], 3), np.float32)[:, None, None] for k in ("mean", "std")
        )

    def __call__(self, picture: Image.Image) -> NDArray[np.float32]:
        if picture.size != (self.size, self.size):
            picture = picture.resize((self.size, self.size), self.filter)
        pixels = np.asarray(picture.convert("RGB")).transpose(2, 0, 1).astype(np.float32)
        return np.ascontiguousarray(((pixels / np.float32(255) - self.mean) / self.std)[None])


def open_picture(item: Any, stored: bool = False) -> Image.Image:
    """A path, a PIL image or an array [H, W] or [H, W, 3] uint8 as an upright RGB picture, or, of a
    file, in the mode that it is ``stored`` in.

    Raises :class:`DataError` for a file that is not a picture or is deeper than 8 bits, and
    :class:`RequestError` for anything else.
    """
    if isinstance(item, np.ndarray):
        if item.dtype != np.uint8 or item.ndim not in (2, 3):
            raise RequestError(
                f"an array picture must be uint8 [H, W] or [H, W, 3], not {item.dtype} {item.shape}"
            )
        return Image.fromarray(item).convert("RGB")
    if isinstance(item, Image.Image):
        return item if stored else item.convert("RGB")
    if isinstance(item, (str, Path)):
        return _read(str(item), stored)
    raise RequestError(
        f"cannot read a picture from '{type(item).__name__}'; give a path, a PIL image or an array"
    )


def _read(path: str, stored: bool) -> Image.Image:
    try:
        with Image.open(path, formats=_formats()) as image:
            if image.width * image.height > MOST_PIXELS:
                raise DataError(f"{path}: more than {MOST_PIXELS:,} pixels")
            image.load()
            return _rgb(ImageOps.exif_transpose(image), path, stored)
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except UnidentifiedImageError:
        raise DataError(f"{path}: not an image of a known format") from None
    except Exception as error:  # decoders raise whatever they like
        raise DataError(f"{path}: broken or truncated image ({gist(error)})") from None


@cache
def _formats() -> tuple[str, ...]:
    """Those of :data:`FORMATS` that this Pillow can read."""
    Image.init()
    return tuple(f for f in FORMATS if f in Image.OPEN)


def _rgb(image: Image.Image, path: str, stored: bool) -> Image.Image:
    """8-bit RGB, transparent pictures composited on black; or the picture as it is ``stored``."""
    mode, seen_through = image.mode, "transparency" in image.info
    if mode.startswith("I") or mode == "F":
        raise DataError(f"{path}: has more than 8 bits a value; convert it, or use `zsad predict`")
    if stored:
        return image
    if seen_through or mode == "PA" or "A" in mode or "a" in mode:
        whole = image.convert("RGBA")
        ground = Image.new("RGBA", whole.size, (0, 0, 0, 255))
        return Image.alpha_composite(ground, whole).convert("RGB")
    return image if mode == "RGB" else image.convert("RGB")


def found(words: Iterable[str]) -> list[str]:
    """The files that words name: files, folders (all pictures below them) and patterns.

    Raises :class:`RequestError` for a word that names none."""
    out: list[str] = []
    for word in words:
        path = Path(word)
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in ENDINGS)
            out += [str(p) for p in inside if p.is_file()]
            if not inside:
                raise RequestError(f"{word}: no pictures there ({', '.join(ENDINGS)})")
        elif path.is_file() or not glob.has_magic(word):
            out.append(word)
        else:
            matches = [p for p in sorted(glob.glob(word, recursive=True)) if Path(p).is_file()]
            if not matches:
                raise RequestError(f"{word}: no file matches")
            out += matches
    return list(dict.fromkeys(out))

"""Picture files to what a graph takes, exactly as ``zsad predict`` does for 8-bit pictures."""

from __future__ import annotations

import contextlib
import glob
import io
import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from zsad.errors import DataError, RequestError, counted, gist, shown
from zsad.runtime.package_file import numbers

log = logging.getLogger(__name__)

# What `zsad predict --out` writes beside, or of, a picture.
WRITTEN = re.compile(r".+\.(?:heat|mask|prompts|thumb|layer)\.(?:png|webp|jpg)", re.IGNORECASE)
FIRST_ALONE = (
    "holds several pictures (frames or pages), and the first one alone is looked at; save the "
    "others as files of their own"
)
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
            content = Path(path).read_bytes() if image.format == "TIFF" else b""
            if holds_more(image, content):
                log.warning("%s: %s", shown(path), FIRST_ALONE)
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


Below = Callable[[Path], tuple[list[Path], list[Path]]]  # a folder -> (pictures, other files)


def found(words: Iterable[str], out: str | None = None, below: Below | None = None) -> list[str]:
    """The files that words name: files, folders (all pictures below them) and patterns.

    Hidden files, and what ``zsad predict`` and ``zsad run`` write, are passed over in folders; one
    line on standard error says how many files that were.  ``out``: where maps are written;
    ``below``: what of a folder is a picture, where the names of files are not to decide that.
    Raises :class:`RequestError` for a word that names none, and where ``out`` is such a folder."""
    taken: list[str] = []
    passed_over: list[str] = []
    for word in words:
        path = Path(word)
        if path.is_dir():
            if out is not None and os.path.realpath(out) == os.path.realpath(path):
                raise RequestError(f"--out {out}: is the folder of the pictures; give another")
            inside, others = (below or _by_name)(path)
            passed_over += map(str, others)
            taken += map(str, inside)
            if not inside:
                raise RequestError(f"{word}: no pictures there ({', '.join(ENDINGS)})")
        elif path.is_file():
            taken.append(word)
        elif glob.has_magic(word):
            matches = [p for p in sorted(glob.glob(word, recursive=True)) if Path(p).is_file()]
            if not matches:
                raise RequestError(f"{word}: no file matches")
            taken += matches
        else:
            raise RequestError(f"{word}: no such file or folder")
    if passed_over:
        more = f" and {len(passed_over) - 3} more" if len(passed_over) > 3 else ""
        log.warning(
            "passed over %s: %s%s; give a file by its name to have it read",
            counted(len(passed_over), "file that is not a picture", "files that are not pictures"),
            ", ".join(map(shown, passed_over[:3])),
            more,
        )
    return list(dict.fromkeys(taken))


def _by_name(folder: Path) -> tuple[list[Path], list[Path]]:
    """The pictures below a folder, and the other files, by what their names say."""
    files = [p for p in sorted(folder.rglob("*")) if p.is_file()]
    inside = [p for p in files if _is_picture(p.relative_to(folder))]
    return inside, [p for p in files if p not in set(inside)]


def _is_picture(path: Path) -> bool:
    """Whether a file of a folder is taken for a picture, by its name below the folder."""
    hidden = any(part.startswith(".") for part in path.parts)
    return not hidden and path.suffix.lower() in ENDINGS and not WRITTEN.fullmatch(path.name)


def holds_more(image: Image.Image, content: bytes) -> bool:
    """Whether an opened file holds further pictures of its size: an animation, pages of a TIFF.
    Previews are none, nor is the second picture of a phone (MPO)."""
    if image.format != "TIFF":
        return image.format != "MPO" and bool(getattr(image, "is_animated", False))
    with contextlib.suppress(Exception), Image.open(io.BytesIO(content), formats=["TIFF"]) as copy:
        copy.seek(1)
        return copy.size == image.size
    return False

"""Pictures known by their content, so that a copy under another name is known again.

A picture's content is written as ``BYTES-FILE-WxH-PIXELS``: the size of its file and the
beginning of its SHA-256, the size of the picture and the beginning of the SHA-256 of its decoded
pixels (8-bit RGB, upright, cut out of its file where it is a tile).  A copy has the same file; a
picture that was saved anew without loss, cut out or renamed has the same pixels.  One that was
compressed again with loss, scaled or changed in a single value is *not* known again.

Sizes come first: a file is read only where its size is that of a known one, and decoded only
where its picture's size is.  No torch.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

from zsad.data.images import open_header, read_image
from zsad.errors import ZsadError
from zsad.io import sha256_file
from zsad.types import Sample

DIGITS = 32  # of a hash: 128 bits
THREADS = 4
KEPT = 20_000  # pictures whose hashes are kept in memory


@dataclass(frozen=True)
class Twin:
    """A picture of a dataset that is one of the known ones.  ``how``: what is the same."""

    uid: str
    place: int  # among the known ones
    how: str


def content(sample: Sample) -> str:
    """The content of a picture; "" for one that cannot be read."""
    try:
        return "-".join([*_file(sample), *_pixels(sample)])
    except (ZsadError, OSError):
        return ""


def contents(samples: Sequence[Sample]) -> tuple[str, ...]:
    """The contents of pictures, in their order."""
    with ThreadPoolExecutor(THREADS, thread_name_prefix="zsad-contents") as pool:
        return tuple(pool.map(content, samples))


def twins(known: Sequence[str], samples: Iterable[Sample]) -> list[Twin]:
    """Those of ``samples`` whose file or pixels are among the ``known`` contents.

    Generated pictures ("scheme://...") are left out: their names say what they are.
    """
    files: dict[tuple[str, str], int] = {}
    pixels: dict[tuple[str, str], int] = {}
    for place, one in enumerate(known):
        parts = one.split("-")
        if len(parts) == 4:
            files.setdefault((parts[0], parts[1]), place)
            pixels.setdefault((parts[2], parts[3]), place)
    lengths = {length for length, _ in files if length != "0"}
    sizes = {size for size, _ in pixels}

    def look(sample: Sample) -> Twin | None:
        try:
            if sample.crop is None and str(os.stat(sample.image).st_size) in lengths:
                place = files.get(_file(sample))
                if place is not None:
                    return Twin(sample.uid, place, "the same file")
            if not _may_match(sample, sizes):
                return None
            place = pixels.get(_pixels(sample))
            return None if place is None else Twin(sample.uid, place, "the same pixels")
        except (ZsadError, OSError):  # whoever reads it for its score says so
            return None

    with ThreadPoolExecutor(THREADS, thread_name_prefix="zsad-contents") as pool:
        found = pool.map(look, (s for s in samples if "://" not in s.image))
        return [twin for twin in found if twin is not None]


def _may_match(sample: Sample, sizes: set[str]) -> bool:
    """Whether the size of a picture, upright or turned, is among ``sizes``; what cannot be told
    without decoding may be."""
    if sample.crop is not None:
        left, top, right, bottom = sample.crop
        return f"{right - left}x{bottom - top}" in sizes
    try:
        with open_header(sample.image) as picture:
            width, height = picture.size
    except Exception:  # a decoder raises whatever it likes
        return True
    return f"{width}x{height}" in sizes or f"{height}x{width}" in sizes


def _file(sample: Sample) -> tuple[str, str]:
    """Size and hash of the file; zeros for a tile, whose file holds other pictures, and for what
    has no file."""
    if sample.crop is not None or "://" in sample.image:
        return "0", "0"
    return _file_of(sample.image, *_stamp(sample.image))


def _pixels(sample: Sample) -> tuple[str, str]:
    """Size and hash of the decoded picture."""
    return _pixels_of(sample.image, sample.crop, sample.bits, *_stamp(sample.image))


def _stamp(image: str) -> tuple[int, int]:
    if "://" in image:
        return 0, 0
    found = os.stat(image)
    return found.st_size, found.st_mtime_ns


# Several methods and seeds ask for the same pictures; they are read once for all of them.
@lru_cache(maxsize=KEPT)
def _file_of(image: str, size: int, time: int) -> tuple[str, str]:
    return str(size), sha256_file(image)[:DIGITS]


@lru_cache(maxsize=KEPT)
def _pixels_of(
    image: str, crop: tuple[int, int, int, int] | None, bits: int, size: int, time: int
) -> tuple[str, str]:
    picture = read_image(image, crop, bits)
    digest = hashlib.sha256(picture.tobytes()).hexdigest()[:DIGITS]
    return f"{picture.width}x{picture.height}", digest

"""Which masks compression has changed: around every edge it leaves values that nobody painted."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np

from zsad.data.images import mask_values, open_header

LOSSY_CUT = 127  # threshold of lossy masks: compression rings around every edge
_EITHER = ("AVIF", "HEIF", "JPEG2000")  # formats that may keep every value, or not
_TIFF_BY_JPEG = ("jpeg", "tiff_jpeg", "webp", "jpeg2000")  # as Pillow calls the compression


def is_lossy(path: str | Path) -> bool:
    """Whether compression may have changed a mask: a JPEG, a lossy WebP, a TIFF compressed by one
    of these, or an AVIF, HEIF or JPEG 2000 file with more than two values."""
    head = b""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        head = file.read(16)
    if head.startswith(b"\xff\xd8\xff") or (head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8 "):
        return True
    if head[:4] == b"RIFF" or head.startswith((b"\x89PNG", b"BM", b"GIF8")):
        return False
    with contextlib.suppress(Exception):  # what cannot be read is told where it is read
        with open_header(path) as image:
            if image.format == "TIFF":
                return image.info.get("compression") in _TIFF_BY_JPEG
            either = image.format in _EITHER
        return either and len(np.unique(mask_values(path))) > 2
    return False

"""Reads picture files whole: no pipe is waited for, and none of a size that no picture has."""

from __future__ import annotations

import os
import stat

from zsad.errors import DataError
from zsad.io import is_address
from zsad.io.bounds import PICTURE

PIXEL_BYTES = 16  # of a file, at most, for each pixel that a picture may have: four floats
METADATA = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")  # in a PNG
FILE_BYTES = 64 * 2**20  # that a file may have in any case


def read_bytes(path: str) -> bytes:
    """The content of a regular file.  Raises :class:`DataError` that names it."""
    most = max(FILE_BYTES, PIXEL_BYTES * PICTURE.value())
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise DataError(f"{path}: not a regular file")
            if status.st_size > most:
                raise DataError(
                    f"{path}: {status.st_size:,} bytes, more than any picture of "
                    f"{PICTURE.value():,} pixels has; {PICTURE.raised()}"
                )
            return file.read(most)
    except FileNotFoundError:
        if is_address(path):
            raise DataError(f"{path}: an address; save the picture, and give its file") from None
        raise DataError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        why = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be read ({why})") from None


def has_metadata(path: str) -> bool:
    """Whether a PNG file may say how its picture is turned.  Raises :class:`DataError`."""
    content = read_bytes(path)
    return any(mark in content for mark in METADATA)


def _without_waiting(path: str, flags: int) -> int:
    """Open a file; it is not waited for somebody to write to a pipe."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))

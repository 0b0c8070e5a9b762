"""Says what a file is that is not what its reader looks for: a page, a pointer, an archive.

A download that failed leaves such files under the name of what was wanted.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

from zsad.errors import DataError
from zsad.io.bounds import ARCHIVE_RATIO, RATIO_FROM

HEAD = 512  # bytes that are looked at

_POINTER = b"version https://git-lfs.github.com/spec/"
_PAGES = (b"<!doctype html", b"<html", b"<head", b"<?xml", b"<!--")
_BEGINNINGS = {
    b"\x1f\x8b": "a gzip file; unpack it first",
    b"BZh": "a bzip2 file; unpack it first",
    b"\xfd7zXZ\0": "an xz file; unpack it first",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive; unpack it first",
    b"Rar!": "a rar archive; unpack it first",
    b"\x89PNG\r\n\x1a\n": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"%PDF-": "a PDF document",
    b"\x7fELF": "a program",
    b"\x93NUMPY": "a NumPy array",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file",
}
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx")  # brands


def describe(head: bytes) -> str:
    """Return what the first bytes of a file (:data:`HEAD` or fewer) show it to be, or ``""``.

    Named are: nothing, zeros, Git LFS pointers, HTML and XML pages, archives, some binary formats,
    and text (with its first words).
    """
    if not head:
        return "empty"
    if not head.strip(b"\0"):
        return "nothing but zeros"
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(_POINTER):
        return "a Git LFS pointer, not the file itself; run `git lfs pull` where it comes from"
    if start.lower().startswith(_PAGES):
        return "an HTML or XML page, as a download that failed leaves it; fetch it again"
    for beginning, name in _BEGINNINGS.items():
        if head.startswith(beginning):
            return name
    if head[4:8] == b"ftyp" and head[8:12] in _HEIC:
        return "a HEIC picture; `pip install 'zsad[heic]'` has it read"
    return _text(head)


def describe_file(path: Path | str) -> str:
    """The same of a file on disk; ``""`` for one that cannot be read."""
    try:
        with open(os.fspath(path), "rb") as file:
            return describe(file.read(HEAD))
    except OSError:
        return ""


def refuse_bomb(path: Path | str) -> None:
    """Raise :class:`DataError` for a zip file (an ``.npz`` is one) that unpacks to far more than
    its size; anything but a zip file is left to its reader."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(info.file_size for info in archive.infolist())
        size = os.path.getsize(path)
    except (OSError, ValueError, zipfile.BadZipFile):
        return
    if unpacked > max(RATIO_FROM, ARCHIVE_RATIO.value() * size):
        what = f"{size:,} bytes that unpack to {unpacked:,}"
        raise DataError(f"{path}: {what}; refused ({ARCHIVE_RATIO.raised()})")


def _text(head: bytes) -> str:
    """A word on bytes that are text: nothing but letters, signs, blanks and line ends."""
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # a letter may be cut at the end of the head
            return ""
        text = head[: error.start].decode("utf-8")
    if not all(c.isprintable() or c in "\r\n\t" for c in text):
        return ""
    words = " ".join(text.split())
    return f"text: '{words[:60]}{'...' if len(words) > 60 else ''}'" if words else "blank text"

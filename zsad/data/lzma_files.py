"""LZMA with a bound on its memory: the header of a file says how large a window its reader sets up,
and a file of 200 bytes may ask for 4 GB."""

from __future__ import annotations

import io
import lzma
import struct
import zipfile
from pathlib import Path
from typing import IO

from zsad.errors import DataError
from zsad.io.bounds import ARCHIVE_WINDOW

_BESIDE = 2**20  # bytes that a decoder takes besides its window
_STEP = 1 << 16
_ZIP_HEADER = 30  # bytes of a member's own header before its name


def _too_large(path: Path, what: str) -> DataError:
    return DataError(
        f"{path}: {what} was packed with a window of more than {ARCHIVE_WINDOW.value():,} bytes, "
        f"which reading it would take; refused ({ARCHIVE_WINDOW.raised()})"
    )


class XzReader(io.RawIOBase):
    """What an ``.xz`` or ``.lzma`` file unpacks to, one stream after the other.

    Raises :class:`DataError` where it asks for a window beyond the bound, ``EOFError`` for a file
    that is cut, ``lzma.LZMAError`` for a damaged one.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, path.open("rb")
        self._limit = ARCHIVE_WINDOW.value() + _BESIDE
        self._begin()

    @classmethod
    def open(cls, path: Path) -> io.BufferedReader:
        """The content of ``path``, buffered."""
        return io.BufferedReader(cls(path))

    def _begin(self) -> None:
        self._file.seek(0)
        self._at, self._first, self._done = 0, True, False
        self._decoder = lzma.LZMADecompressor(memlimit=self._limit)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        while not self._done:
            if self._decoder.eof:
                rest = self._decoder.unused_data.lstrip(b"\0")  # zeros may pad a stream
                while not rest and (more := self._file.read(_STEP)):
                    rest = more.lstrip(b"\0")
                if not rest:
                    break
                self._decoder, self._first = lzma.LZMADecompressor(memlimit=self._limit), False
            elif self._decoder.needs_input:
                rest = self._file.read(_STEP)
                if not rest:
                    raise EOFError("the file ends before its stream does")
            else:
                rest = b""
            try:
                found = self._decoder.decompress(rest, len(buffer))
            except lzma.LZMAError as error:
                if "limit" in str(error):
                    raise _too_large(self._path, "it") from None
                if self._first:
                    raise
                break  # something else behind the last stream, as lzma has it
            if found:
                buffer[: len(found)] = found
                self._at += len(found)
                return len(found)
        self._done = True
        return 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place: forwards by reading, backwards by beginning again."""
        if whence == io.SEEK_END:
            raise io.UnsupportedOperation("the end is not known")
        target = offset + (self._at if whence == io.SEEK_CUR else 0)
        if target < self._at:
            self._begin()
        while self._at < target:
            if not self.read(min(_STEP, target - self._at)):
                break
        return self._at

    def tell(self) -> int:
        return self._at

    def close(self) -> None:
        self._file.close()
        super().close()


def refuse_window(path: Path, info: zipfile.ZipInfo) -> None:
    """Raise :class:`DataError` for a member of a zip that asks for a window beyond the bound."""
    if info.compress_type != zipfile.ZIP_LZMA:
        return
    with path.open("rb") as file:
        window = _window(file, info)
    if window > ARCHIVE_WINDOW.value():
        raise _too_large(path, f"member {info.filename}")


def _window(file: IO[bytes], info: zipfile.ZipInfo) -> int:
    """Bytes of the window, from the properties before a member's data; 0 where there are none."""
    file.seek(info.header_offset + _ZIP_HEADER - 4)
    lengths = file.read(4)
    if len(lengths) < 4:
        return 0
    name, extra = struct.unpack("<HH", lengths)
    file.seek(name + extra, io.SEEK_CUR)
    properties = file.read(9)  # version, their length, one byte, then the window
    return int(struct.unpack("<I", properties[5:])[0]) if len(properties) == 9 else 0

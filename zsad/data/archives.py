"""Reads zip and tar archives member by member, whatever they claim.

Both libraries read headers into memory as large as the archive says they are (a tar of 1.5 MB can
hold one of 1.5 GB), so they read through :class:`_Counted`, which gives them no more than a bound.
"""

from __future__ import annotations

import bz2
import contextlib
import errno
import gzip
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from zsad.data.lzma_files import XzReader, refuse_window
from zsad.errors import DataError, ZsadError, gist
from zsad.io import foreign
from zsad.io.bounds import ARCHIVE_FILES, ARCHIVE_HEADER, Bound

ENTRY = 1024  # bytes of a zip's directory for each file that an archive may hold
_BLOCK = 1 << 16  # the largest step in which a library skips what it does not read

_PACKED: tuple[tuple[bytes, Callable[[Path], Any]], ...] = (
    (b"\x1f\x8b", gzip.GzipFile),
    (b"BZh", bz2.BZ2File),
    (b"\xfd7zXZ\0", XzReader.open),
    (b"\x5d\0\0", XzReader.open),
)


class Member(NamedTuple):
    """A regular file of an archive; ``source`` is valid until the next one is asked for."""

    name: str
    size: int
    source: IO[bytes]


class _Counted:
    """A readable file that gives no more than ``left`` bytes (None: any number of them)."""

    def __init__(self, file: Any, archive: Path, bound: Bound, left: int | None) -> None:
        self._file, self._archive, self._bound = file, archive, bound
        self.left = left

    def read(self, size: int = -1) -> bytes:
        if self.left is None:
            return bytes(self._file.read(size))
        # what is asked for counts, before it is there: it is what memory would be taken for
        found = bytes(self._file.read(self.left + 1)) if size < 0 else b""
        asked = len(found) if size < 0 else size
        if asked > self.left:
            raise DataError(
                f"{self._archive}: holds a header or directory beyond the limit of "
                f"{self._bound.value():,} {self._bound.unit}; refused ({self._bound.raised()})"
            )
        self.left -= asked
        return found if size < 0 else bytes(self._file.read(size))

    def seek(self, offset: int, whence: int = 0) -> int:
        found: int = self._file.seek(offset, whence)
        return found

    def tell(self) -> int:
        found: int = self._file.tell()
        return found

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()


@contextlib.contextmanager
def reading(archive: Path) -> Iterator[None]:
    """Let whatever is wrong with an archive be a :class:`DataError` that names it.

    Errors of the disk pass.
    """
    try:
        yield
    except ZsadError:
        raise
    except OSError as error:
        # gzip's and tarfile's own have no number; EINVAL is a place before the file's beginning.
        if error.errno not in (None, errno.EINVAL):
            raise
        raise _unreadable(archive, gist(error)) from None
    except MemoryError:
        raise _unreadable(archive, "it takes more memory than there is") from None
    except Exception as error:  # zlib.error, LZMAError, BadZipFile, ... have no type in common
        raise _unreadable(archive, gist(error)) from None


def members(archive: Path) -> Iterator[Member]:
    """The regular files of an archive, in its order.

    Raises :class:`DataError` for a link or a device, and headers beyond the bound; what else is
    wrong (also while ``source`` is read) is for :func:`reading`.
    """
    return _zipped(archive) if zipfile.is_zipfile(archive) else _taped(archive)


def _unreadable(archive: Path, why: str) -> DataError:
    return DataError(f"{archive}: broken or unreadable archive ({why})")


def _zipped(archive: Path) -> Iterator[Member]:
    with archive.open("rb") as file:
        counted: Any = _Counted(file, archive, ARCHIVE_FILES, ENTRY * ARCHIVE_FILES.value())
        with zipfile.ZipFile(counted) as zipped:
            counted.left = None  # its own headers are below 200 kB each
            for info in zipped.infolist():
                if stat.S_ISLNK(info.external_attr >> 16):
                    raise DataError(f"{archive}: member {info.filename} is a link; refused")
                if not info.is_dir():
                    refuse_window(archive, info)
                    with zipped.open(info) as source:
                        yield Member(info.filename, info.file_size, source)


def _taped(archive: Path) -> Iterator[Member]:
    with contextlib.closing(_unpacked(archive)) as stream:
        counted: Any = _Counted(stream, archive, ARCHIVE_HEADER, ARCHIVE_HEADER.value() + _BLOCK)
        try:
            tape = tarfile.TarFile(fileobj=counted)
        except tarfile.ReadError as error:
            words = _hint(archive)
            if words or "empty" not in str(error):
                raise DataError(f"{archive}: neither zip nor tar{words}") from None
            raise
        with tape:
            while True:
                counted.left = ARCHIVE_HEADER.value() + _BLOCK
                entry = tape.next()
                if entry is None:
                    return
                vars(tape)["members"].clear()  # it would keep all headers
                held = sum(len(k) + len(str(v)) for k, v in tape.pax_headers.items())
                if held > ARCHIVE_HEADER.value():
                    raise _unreadable(archive, "headers for all members beyond the limit")
                if entry.isdir():
                    continue
                if not entry.isreg():
                    raise DataError(f"{archive}: member {entry.name} is a link or device; refused")
                counted.left = None
                source = tape.extractfile(entry)
                if source is not None:
                    with source:
                        yield Member(entry.name, entry.size, source)


def _unpacked(archive: Path) -> Any:
    with archive.open("rb") as file:
        head = file.read(6)
    opened = next((how for start, how in _PACKED if head.startswith(start)), None)
    return opened(archive) if opened else archive.open("rb")


def _hint(archive: Path) -> str:
    with archive.open("rb") as file:
        head = file.read(foreign.HEAD)
    for start, name, program in ((b"7z\xbc\xaf", "7z", "7z x"), (b"Rar!", "rar", "unrar x")):
        if head.startswith(start):
            return (
                f"; a {name} archive: extract it with `{program}` into the dataset's folder below "
                "--data-root"
            )
    if head.startswith(b"PK"):
        return " (it begins as a zip, but its end is missing: a part of it; fetch it again)"
    words = foreign.describe(head)
    return f" (it is {words})" if words else ""

"""A folder of results, which several processes write to: its lock, and a disk that refuses."""

from __future__ import annotations

import contextlib
from pathlib import Path

from zsad.errors import CellError
from zsad.io import atomic_write_bytes, file_lock


def lock(root: Path) -> contextlib.AbstractContextManager[None]:
    """The lock of the folder: held while something in it is replaced."""
    return file_lock(root / ".lock")


def write(root: Path, path: Path, content: bytes) -> Path:
    """Write a file below ``root``, whole or not at all.  Raises :class:`CellError` if the disk
    refuses."""
    try:
        with lock(root):
            return atomic_write_bytes(path, content)
    except OSError as error:
        raise refused(path, error) from error


def refused(path: Path, error: OSError) -> CellError:
    """The error for a file that the disk refuses."""
    return CellError(f"{path}: cannot be written ({error.strerror or error}); check the disk")

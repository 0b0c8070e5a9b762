"""Files that are never half written: atomic writes, locks between processes, stable JSON.

What a killed process leaves behind (a temporary file, a scratch folder) is known by its lock,
which ended with the process, and goes when somebody writes in the same place again.

===============  ========================================================
``schema``       foreign values into dataclasses: where types are checked
``bounds``       how much of foreign input is taken in
``foreign``      what a file is that is not what its reader looks for
``names``        foreign names as parts of paths, and as words
``digests``      hashes of large files, remembered
``caches``       the cache folder
``cells``        values as cells of a CSV file
``environment``  variables that settings refer to: used, never stored
===============  ========================================================
"""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, SoftFileLock, Timeout, lock_descriptor

from zsad.errors import DataError, RequestError, Withheld
from zsad.io.names import shortened
from zsad.strict_json import parse_json as parse_json

POLL_SECONDS = 0.01  # between two attempts at a lock
# Windows removes no file that somebody has open: there it is closed first, and whoever opens it
# in that moment keeps it.
REMOVES_OPEN_FILES = os.name != "nt"


# ------------------------------------------------------------------------------- writing
def atomic_write_bytes(path: Path | str, content: bytes) -> Path:
    """Write ``content`` so that ``path`` holds either the old or the whole new content.

    The bytes go to a temporary name in the same folder, are flushed to the disk and renamed.
    Missing folders are made.  Raises ``OSError``; nothing temporary is left then.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path)
    handle, name = _temporary(path)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.chmod(name, 0o666 & ~_umask())  # mkstemp makes files that only their owner reads
            if REMOVES_OPEN_FILES:  # while its lock is held: nobody takes it for a leftover
                os.replace(name, path)
        if not REMOVES_OPEN_FILES:
            os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
    return path


def atomic_write_text(path: Path | str, text: str) -> Path:
    """Write UTF-8 ``text`` atomically; see :func:`atomic_write_bytes`.

    What cannot be written so (half a character, a byte of a name that is not UTF-8) is escaped.
    """
    return atomic_write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: Path | str, value: Any) -> Path:
    """Write ``value`` as JSON atomically, with sorted keys and without NaN or infinity."""
    return atomic_write_text(path, dump_json(value) + "\n")


_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{1,30}:/")  # two letters at least: C:/ is a drive


def is_address(place: Path | str) -> bool:
    """Whether a text is one such as ``https://host/a.png``, be it as a path (``https:/host``)."""
    return _ADDRESS.match(os.fspath(place)) is not None


def refuse_address(place: Path | str, given: str) -> None:
    """Raise :class:`RequestError` where ``place``, for something to be written, is an address such
    as ``s3://bucket``: it would become a folder of that name."""
    if is_address(place) and not os.path.lexists(place):
        raise RequestError(f"{given}: an address; give a place on this machine")


def require_writable(folder: Path | str, given: str) -> None:
    """Make ``folder`` where it is missing, and see before any work that files can be made there.

    ``given``: the option that named it, with its value.  Raises :class:`RequestError`.
    """
    refuse_address(folder, given)
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, ValueError) as error:  # a name with a null byte is a ValueError
        raise not_writable(given, error) from None


def not_writable(given: str, error: Exception) -> RequestError:
    """The refusal of a folder in which nothing can be written."""
    why = getattr(error, "strerror", None) or error
    if isinstance(error, FileExistsError):  # a file, where a folder was to be made
        why = os.strerror(errno.ENOTDIR)
    return RequestError(f"{given}: cannot be written ({why}); give another folder")


def dump_json(value: Any, indent: int | None = 1) -> str:
    """Return ``value`` as JSON with sorted keys; NaN and infinities become null.

    Letters stay as they are.  What does not print is an escape of JSON (``\\u202e``): reading
    gives back the same text, and no terminal acts upon it.
    """
    text = json.dumps(
        finite(value), indent=indent, sort_keys=True, ensure_ascii=False, allow_nan=False
    )
    lines = text.split("\n")  # of the layout: a line end inside of a text is escaped
    return "\n".join(line if line.isprintable() else _escaped(line) for line in lines)


def _escaped(text: str) -> str:
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def finite(value: Any) -> Any:
    """Return ``value`` in plain JSON types, numbers that are not finite as None.

    Numpy scalars and zero-dimensional tensors become Python numbers, paths become text.
    """
    if isinstance(value, Mapping):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        items = sorted(value) if isinstance(value, (set, frozenset)) else value
        return [finite(v) for v in items]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Path):
        return value.as_posix()
    if callable(getattr(value, "item", None)):
        return finite(value.item())
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def remove_leftovers(path: Path | str) -> None:
    """Remove what killed processes left of their attempts to write ``path``."""
    path = Path(path)
    for left in path.parent.glob(f".{glob.escape(_short(path.name))}.*.tmp"):
        remove_leftover(left)


def _short(name: str) -> str:
    """What a temporary file beside ``name`` is called by: it must be short of 255 bytes."""
    return shortened(name, 200)


def remove_leftover(path: Path) -> None:
    """Remove a temporary or lock file unless a living process holds it."""
    with contextlib.suppress(OSError):
        with _abandoned(path) as mine:
            if mine and REMOVES_OPEN_FILES:
                path.unlink(missing_ok=True)
        if mine and not REMOVES_OPEN_FILES:
            path.unlink(missing_ok=True)


def _temporary(path: Path) -> tuple[int, str]:
    """A temporary file beside ``path``: (open handle that holds its lock, name)."""
    while True:
        handle, name = tempfile.mkstemp(
            prefix=f".{_short(path.name)}.", suffix=".tmp", dir=path.parent
        )
        if _claimed(handle, name):
            return handle, name
        os.close(handle)


def remove_scratch(parent: Path | str, prefix: str) -> None:
    """Remove the scratch folders ``<parent>/<prefix>...`` that killed processes left."""
    for left in Path(parent).glob(f"{glob.escape(prefix)}*"):
        with _abandoned(left) as mine:
            if mine and left.is_dir():
                shutil.rmtree(left, ignore_errors=True)


@contextlib.contextmanager
def scratch_folder(parent: Path | str, prefix: str) -> Iterator[Path]:
    """Make a folder ``<parent>/<prefix>...`` for as long as the context lasts.

    Those that killed processes left there are removed first.  The folder may be renamed within
    the context: it then stays.  Raises ``OSError``.
    """
    parent = Path(parent)
    parent.mkdir(parents=True, exist_ok=True)
    remove_scratch(parent, prefix)
    while True:
        try:
            folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
            handle = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:  # whoever is done in the same place removes the empty parent
            parent.mkdir(parents=True, exist_ok=True)
            continue
        except PermissionError:  # Windows opens no folders: it is never taken for a leftover
            handle = -1
            break
        if _claimed(handle, folder):
            break
        os.close(handle)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if handle >= 0:
            os.close(handle)


def _claimed(handle: int, path: Path | str) -> bool:
    """Lock what was just made; False if somebody took it for a leftover in that moment."""
    with contextlib.suppress(OSError):  # without locks nothing is ever taken for a leftover
        lock_descriptor(handle, poll_interval=POLL_SECONDS)
    return os.path.exists(path)


@contextlib.contextmanager
def _abandoned(path: Path) -> Iterator[bool]:
    """Whether the process that made ``path`` is gone; if so, it is ours within the context."""
    handle = -1
    mine = False
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        mine = lock_descriptor(handle, blocking=False)
    try:
        yield mine
    finally:
        if handle >= 0:
            os.close(handle)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


# ------------------------------------------------------------------------------- reading
def read_json(path: Path | str) -> Any:
    """Read a JSON file.  Raises :class:`DataError` that names the file and the line."""
    try:
        # Editors of Windows put a byte-order mark in front.
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (NotADirectoryError, IsADirectoryError, ValueError) as error:
        # not UTF-8, or a name that no file can have
        why = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be read ({why})") from None
    except OSError as error:
        raise Withheld(f"{path}: cannot be read ({error.strerror or error})") from None
    return parse_json(text, str(path))


def sha256_file(path: Path | str) -> str:
    """Return the SHA-256 of a file's content as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


# --------------------------------------------------------------------------------- locks
_HELD_FOR_EVER: set[Path] = set()  # locks that were waited for in vain


@contextlib.contextmanager
def file_lock(path: Path | str, timeout: float = 60.0) -> Iterator[None]:
    """Hold the lock file ``path`` against all other processes and threads.

    The lock ends with the process, also when it is killed; the file goes with the lock.
    Raises :class:`DataError` after ``timeout`` seconds, or after one where this process has waited
    in vain before: whoever holds the lock has stopped.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path in _HELD_FOR_EVER:
        timeout = min(timeout, 1.0)
    lock = FileLock(path, timeout=timeout, poll_interval=POLL_SECONDS)
    try:
        lock.acquire()
    except Timeout:
        _HELD_FOR_EVER.add(path)
        raise DataError(
            f"{path}: locked by another process for too long (a stopped one?); end it or let it "
            "go on, then try again"
        ) from None
    _HELD_FOR_EVER.discard(path)
    # Where a file system has no locks, FileLock becomes one whose file is the lock itself.
    own = not isinstance(lock, SoftFileLock)
    try:
        yield
    finally:
        if own and REMOVES_OPEN_FILES:
            path.unlink(missing_ok=True)  # while it is held: whoever waits for it finds it gone
        lock.release()
        if own and not REMOVES_OPEN_FILES:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

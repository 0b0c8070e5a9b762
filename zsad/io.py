"""Files that are never half written: atomic writes, locks between processes, stable JSON."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from zsad.errors import DataError

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]


# ------------------------------------------------------------------------------- writing
def atomic_write_bytes(path: Path | str, content: bytes) -> Path:
    """Write ``content`` so that ``path`` holds either the old or the whole new content.

    The bytes go to a temporary name in the same folder, are flushed to the disk and renamed.
    Missing folders are made.  Raises ``OSError``; nothing temporary is left then.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())  # mkstemp makes files that only their owner reads
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
    return path


def atomic_write_text(path: Path | str, text: str) -> Path:
    """Write UTF-8 ``text`` atomically; see :func:`atomic_write_bytes`."""
    return atomic_write_bytes(path, text.encode("utf-8"))


def write_json(path: Path | str, value: Any) -> Path:
    """Write ``value`` as JSON atomically, with sorted keys and without NaN or infinity."""
    return atomic_write_text(path, dump_json(value) + "\n")


def dump_json(value: Any, indent: int | None = 1) -> str:
    """Return ``value`` as JSON with sorted keys; NaN and infinities become null."""
    return json.dumps(
        finite(value), indent=indent, sort_keys=True, ensure_ascii=False, allow_nan=False
    )


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


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


# ------------------------------------------------------------------------------- reading
def read_json(path: Path | str) -> Any:
    """Read a JSON file.  Raises :class:`DataError` that names the file and the line."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: not valid JSON ({error.msg})") from None


def sha256_file(path: Path | str) -> str:
    """Return the SHA-256 of a file's content as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


# --------------------------------------------------------------------------------- locks
@contextlib.contextmanager
def file_lock(path: Path | str, timeout: float = 60.0) -> Iterator[None]:
    """Hold the lock file ``path`` against all other processes and threads.

    The lock ends with the process, also when it is killed.  Raises :class:`DataError` after
    ``timeout`` seconds.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if fcntl is None:
        with _exclusive_file(path, timeout):
            yield
        return
    deadline = time.monotonic() + timeout
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                _wait(path, deadline)
        yield
    finally:
        os.close(handle)  # gives the lock back


@contextlib.contextmanager
def _exclusive_file(path: Path, timeout: float) -> Iterator[None]:
    """The lock where there is no flock: whoever creates ``path.held`` has it."""
    held = path.with_name(path.name + ".held")
    deadline = time.monotonic() + timeout
    while True:
        try:
            os.close(os.open(held, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            break
        except FileExistsError:
            _wait(held, deadline)
    try:
        yield
    finally:
        held.unlink(missing_ok=True)


def _wait(path: Path, deadline: float) -> None:
    if time.monotonic() > deadline:
        raise DataError(f"{path}: locked by another process for too long; end it, then try again")
    time.sleep(0.01)

"""Hashes of large files, remembered: a weight file is read once, not in every run.

A file is taken for the same one while its place, size, time, inode and time of change are.  One
that was written within the last seconds is not remembered, since a second writing could leave all
of these as they are.  What is remembered lies in one small file; where that is damaged or cannot
be written, files are hashed again.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from zsad.errors import ZsadError
from zsad.io import read_json, sha256_file, write_json
from zsad.io.caches import cache_folder

MOST = 200  # files that are remembered, the last ones first
SETTLED = 5.0  # seconds after which a file's time tells a second writing from the first

Stamp = list[int]
in_this_process: dict[str, tuple[Stamp, str]] = {}  # of this process


def memory_file() -> Path:
    """``$ZSAD_CACHE/digests.json``, else below the user's cache folder."""
    return cache_folder() / "digests.json"


def remembered_sha256(path: Path | str) -> str:
    """Return the SHA-256 of a file's content, in hex.

    Raises :class:`OSError` where the file cannot be read.
    """
    real = Path(path).resolve()
    stamp = _stamp(real)
    held = in_this_process.get(str(real)) or _stored().get(str(real))
    if held is not None and held[0] == stamp:
        in_this_process[str(real)] = held
        return held[1]
    digest = sha256_file(real)
    if stamp == _stamp(real) and time.time() - max(stamp[1:3]) / 1e9 > SETTLED:
        in_this_process[str(real)] = (stamp, digest)
        _keep(str(real), stamp, digest)
    return digest


def _stamp(path: Path) -> Stamp:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _stored() -> dict[str, tuple[Stamp, str]]:
    """What earlier runs remembered, the entries that are whole."""
    try:
        content = read_json(memory_file())
        entries = content["sha256"].items()
    except (ZsadError, OSError, KeyError, TypeError, AttributeError):
        return {}
    return {
        str(path): (entry[:-1], entry[-1])
        for path, entry in entries
        if isinstance(entry, list)
        and len(entry) == 5
        and isinstance(entry[-1], str)
        and len(entry[-1]) == 64
    }


def _keep(path: str, stamp: Stamp, digest: str) -> None:
    """Remember a file.  Two processes at once may lose an entry, never more than that."""
    entries = {p: [*s, d] for p, (s, d) in _stored().items() if p != path}
    entries[path] = [*stamp, digest]
    newest = dict(list(entries.items())[-MOST:])
    with contextlib.suppress(OSError, ZsadError):
        write_json(memory_file(), {"format": 1, "sha256": newest})

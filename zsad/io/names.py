"""Foreign names as parts of paths: the one place that says how a name becomes a file name, and how
it becomes words.

A name comes from somebody's folder, archive or ``meta.json`` and may hold anything: other
alphabets, line ends, terminal codes, bytes that are not UTF-8, thousands of letters.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from zsad.errors import shown

PLAIN = " +,=()[]@"  # besides letters, digits and _.-~; everything else is percent-encoded
LONGEST = 230  # bytes of a part: with "@<fingerprint>.parquet" it fits the 255 of a file system
LONGEST_PICTURE = 200  # bytes, of what is written about a picture
WINDOWS = os.name == "nt"
_DEVICES = frozenset(  # of Windows: names of no files, whatever follows after a point
    ["con", "prn", "aux", "nul", "conin$", "conout$"]
    + [f"{name}{digit}" for name in ("com", "lpt") for digit in "0123456789¹²³"]
)
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-~")
_REFUSED = frozenset('<>:"/\\|?*')  # by Windows and its file systems, wherever they are mounted
_LOOKS_ENCODED = re.compile(r"%(?=[0-9A-Fa-f]{2}|u[0-9A-F]{4}|~)")


def safe_name(name: str, plain: str = PLAIN) -> str:
    """Return ``name`` as one path component of ASCII; different names stay different.

    ``plain``: what is kept besides letters, digits and ``_.-~``.  On Windows, names that it
    refuses are encoded, too.  Raises ``ValueError`` for an empty name.
    """
    kept = _UNRESERVED | set(plain)
    encoded = "".join(c if c in kept else _percent(c) for c in str(name))
    if not encoded:
        raise ValueError("a method, dataset or category needs a name")
    if encoded.startswith("."):
        encoded = "%2E" + encoded[1:]
    return shortened(_for_windows(encoded) if WINDOWS else encoded, LONGEST)


def readable_name(name: str) -> str:
    """Return ``name`` as one path component that keeps letters of all alphabets.

    What does not print, what a file system may refuse and what is too long is encoded as by
    :func:`safe_name`.  Different names stay different.
    """
    text = _LOOKS_ENCODED.sub("%25", name)
    encoded = "".join(c if _is_readable(c) else _percent(c) for c in text)
    if encoded in ("", ".", ".."):
        encoded = encoded.replace(".", "%2E") or "%~"
    return shortened(_for_windows(encoded), LONGEST_PICTURE)


def is_refused_by_windows(name: str) -> bool:
    """Whether Windows takes a path component for a device (``aux.png``), or for another name: it
    drops points and blanks at the end."""
    return name[-1:] in (".", " ") or name.partition(".")[0].rstrip(" ").lower() in _DEVICES


def _for_windows(name: str) -> str:
    """An encoded name as Windows keeps it, too."""
    if name[-1:] in (".", " "):
        name = name[:-1] + _percent(name[-1])
    return _percent(name[0]) + name[1:] if is_refused_by_windows(name) else name


def shortened(name: str, longest: int) -> str:
    """Return a file name of at most ``longest`` bytes: a longer one loses its end to a hash.

    No encoded name holds the mark ``%~`` before the hash, so nothing else is called that.
    """
    raw = name.encode("utf-8", "surrogatepass")
    if len(raw) <= longest:
        return name
    tail = f"%~{hashlib.sha256(raw).hexdigest()[:16]}"
    return raw[: longest - len(tail)].decode("utf-8", "ignore") + tail


def in_words(name: str) -> str:
    """Return a name as words in lower case: ``Metal_Nut`` and ``metal-nut`` are ``metal nut``."""
    return " ".join(name.lower().replace("_", " ").replace("-", " ").split())


def at_home(path: str | os.PathLike[str]) -> Path:
    """Return a path with ``~`` replaced by the home folder, or as it is where nobody knows that."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # ~somebody who does not exist; neither HOME nor an entry for the user
        return Path(path)


def plain_path(path: Path | str) -> Path:
    """Return an absolute path without ``.`` and ``..``, links kept where no ``..`` follows them.

    ``link/..`` is the folder that holds what the link leads to, as the system reads it.
    """
    found = Path(path).absolute()
    parts = found.parts
    if ".." not in parts:
        return found
    last = len(parts) - parts[::-1].index("..")
    return Path(os.path.realpath(Path(*parts[:last])), *parts[last:])


def _is_readable(c: str) -> bool:
    return c not in _REFUSED and shown(c) == c


def _percent(c: str) -> str:
    """The UTF-8 bytes of a character, or the raw byte that it stands for, percent-encoded."""
    code = ord(c)
    if 0xDC80 <= code <= 0xDCFF:  # how Python holds a byte that is not UTF-8
        return f"%{code - 0xDC00:02X}"
    if 0xD800 <= code <= 0xDFFF:  # half a character, out of JSON
        return f"%u{code:04X}"
    return "".join(f"%{byte:02X}" for byte in c.encode())

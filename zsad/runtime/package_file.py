"""One file: ``zsad.json``, which describes the rest, and a graph as ONNX or OpenVINO.

An uncompressed zip archive.  Members are read by name into memory and nothing is unpacked, so no
path of the archive is ever followed; no member is code.  ``zsad.json`` holds the size and the hash
of every other member and a hash of itself.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from zsad.errors import DataError, RequestError, reason
from zsad.strict_json import parse_json

FORMAT = 2  # of the package, 1 without boxes; a reader refuses newer ones
MANIFEST = "zsad.json"
MEMBERS = {"onnx": ("model.onnx",), "openvino": ("model.xml", "model.bin")}
MOST_MANIFEST = 64 * 2**20  # bytes
Kept = dict[str, Any]


class Contents(NamedTuple):
    """``manifest``: see :func:`described`; ``parts``: the bytes of the graph's members."""

    manifest: Kept
    parts: dict[str, bytes]


def described(manifest: Mapping[str, Any], parts: Mapping[str, bytes]) -> Kept:
    """Return the description of a package with the hashes of its parts and of itself."""
    held = {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in parts.items()
    }
    version = FORMAT if manifest.get("boxes") else 1
    kept = {**manifest, "package": version, "members": held}
    return {**kept, "digest": _digest(kept)}


def write(path: Path | str, manifest: Mapping[str, Any], parts: Mapping[str, bytes]) -> bytes:
    """Return the bytes of a package; ``path`` names it in errors."""
    text = json.dumps(described(manifest, parts), indent=1, sort_keys=True, allow_nan=False)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, content in ((MANIFEST, text.encode()), *parts.items()):
            archive.writestr(zipfile.ZipInfo(name), content)  # no clock: equal content, equal file
    return out.getvalue()


def read(path: Path | str) -> Contents:
    """Read and check a package.

    Raises :class:`RequestError` for a file that is not one, is damaged, was changed, or was written
    by a newer version.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _checked(path, archive)
    except FileNotFoundError:
        raise RequestError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise RequestError(f"{path}: is a folder; give the file that `zsad export` wrote") from None
    except RequestError:
        raise
    except (zipfile.BadZipFile, EOFError) as error:
        raise RequestError(f"{path}: not a package, or damaged ({reason(error)})") from None
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise RequestError(f"{path}: cannot be read ({reason(error)})") from None


def _checked(path: Path | str, archive: zipfile.ZipFile) -> Contents:
    names = archive.namelist()
    if MANIFEST not in names:
        raise RequestError(f"{path}: not a package of `zsad export`: it has no {MANIFEST}")
    manifest = _manifest(path, _member(path, archive, MANIFEST, MOST_MANIFEST))
    members = manifest.get("members")
    wanted = MEMBERS.get(str(manifest.get("format")))
    if wanted is None or not isinstance(members, dict) or set(members) != set(wanted):
        raise _changed(path, MANIFEST)
    if set(names) != {MANIFEST, *wanted} or len(names) != len(set(names)):
        raise RequestError(f"{path}: holds what its description does not name; export it again")
    parts = {}
    for name in wanted:
        told = members[name]
        parts[name] = content = _member(path, archive, name, int(told["bytes"]))
        if hashlib.sha256(content).hexdigest() != told["sha256"]:
            raise _changed(path, name)
    return Contents(manifest, parts)


def _member(path: Path | str, archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """Read a member; one that is packed could be of any size when it is unpacked."""
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED or info.file_size > most:
        raise _changed(path, name)
    return archive.read(name)


def _manifest(path: Path | str, content: bytes) -> Kept:
    try:
        found = parse_json(content, MANIFEST)
    except DataError:
        raise _changed(path, MANIFEST) from None
    if not isinstance(found, dict):
        raise _changed(path, MANIFEST)
    version = found.get("package")
    if isinstance(version, int) and version > FORMAT:
        raise RequestError(
            f"{path}: was written by a newer zsad ({found.get('zsad')}, format {version}); this "
            f"one reads up to format {FORMAT}: update zsad"
        )
    told = found.pop("digest", None)
    if version not in range(1, FORMAT + 1) or told != _digest(found):
        raise _changed(path, MANIFEST)
    return {**found, "digest": told}


def _digest(manifest: Mapping[str, Any]) -> str:
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _changed(path: Path | str, name: str) -> RequestError:
    return RequestError(f"{path}: {name} is damaged or was changed; export it again")


def numbers(value: Any, count: int) -> tuple[float, ...]:
    """``count`` finite numbers.  Raises ``ValueError``."""
    found = tuple(float(v) for v in value)
    if len(found) != count or not all(map(math.isfinite, found)):
        raise ValueError(f"{value!r} are not {count} numbers")
    return found

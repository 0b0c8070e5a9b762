"""``zsad data prepare``: extract a downloaded archive safely, or say where to get it."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from zsad.data.catalog import list_specs, load_spec
from zsad.data.definition import DatasetSpec
from zsad.data.index import DatasetIndex, load_index
from zsad.errors import DataError, RequestError
from zsad.io import scratch_folder, sha256_file

MAX_FILES = 1_000_000
MAX_BYTES = 200 * 2**30
MAX_RATIO = 200  # times the archive's own size, minded above RATIO_FROM: small masks pack well
RATIO_FROM = 256 * 2**20
_BLOCK = 1 << 20


@dataclass(frozen=True)
class PreparedDataset:
    """What was done: ``files`` extracted, ``size`` bytes, below ``target``; what is there now."""

    dataset: str
    target: Path | None
    files: int
    size: int
    index: DatasetIndex

    def lines(self) -> list[str]:
        """The outcome as lines of text."""
        out = []
        if self.files:
            out.append(f"{self.dataset}: {self.files} files ({self.size:,} bytes) in {self.target}")
        normal, anomalous = self.index.counts()
        where = self.index.root or "generated"
        out.append(
            f"{self.dataset}: variant {self.index.variant} in {where}, {normal} normal and "
            f"{anomalous} anomalous test images; `zsad data check {self.dataset}` checks every file"
        )
        out += [f"{self.dataset}: {text}" for text in (*self.index.problems, *self.index.notes)]
        return out


def prepare(
    name: str | DatasetSpec,
    root: Path | str | None,
    archive: Path | str | None = None,
    *,
    max_files: int = MAX_FILES,
    max_bytes: int = MAX_BYTES,
) -> PreparedDataset:
    """Extract ``archive`` into ``root/<name>`` and index what is there.

    Without ``archive``, one of the usual name that lies in ``root`` is taken; if the dataset is
    there already, nothing is done.  Raises :class:`DataError` for an archive that is broken,
    unsafe or another one than expected, and :class:`RequestError` that says where to get it.
    """
    spec = load_spec(name)
    if archive is None:
        with contextlib.suppress(DataError):
            return PreparedDataset(spec.name, None, 0, 0, load_index(spec, root, strict=False))
    if root is None:
        raise RequestError(
            f"dataset {spec.name}: give --data-root DIR, the folder for datasets; "
            f"{where_to_get(spec)}"
        )
    found = Path(archive) if archive is not None else _lying_there(spec, Path(root))
    if found is None:
        raise RequestError(f"dataset {spec.name} is not in {root}: {where_to_get(spec)}")
    if not found.is_file():
        raise RequestError(f"--archive {found}: no such file; {where_to_get(spec)}")
    _check_sum(spec, found)
    target = Path(root) / spec.name
    files, size = extract(found, target, max_files=max_files, max_bytes=max_bytes)
    return PreparedDataset(spec.name, target, files, size, load_index(spec, root, strict=False))


def where_to_get(spec: DatasetSpec) -> str:
    """One line that says how a person gets the data."""
    archive = spec.archive
    if archive is None:
        return f"see {spec.home or 'its publisher'}"
    if archive.package:
        state = "is installed" if importlib.util.find_spec(archive.package) else "is not installed"
        return f"{archive.how}; the package {state}"
    place = archive.url or spec.home
    then = f", then `zsad data prepare {spec.name} --data-root DIR --archive FILE`"
    return f"{archive.how}" + (f" ({place})" if place else "") + then


def _lying_there(spec: DatasetSpec, root: Path) -> Path | None:
    """An archive of a usual name; one that several datasets share only in our own folder."""
    names = spec.archive.files if spec.archive is not None else ()
    others = [load_spec(n).archive for n in list_specs() if n != spec.name]
    shared = {name for archive in others if archive is not None for name in archive.files}
    places = [(root, tuple(n for n in names if n not in shared))]
    places += [(root / folder, names) for folder in spec.folder_names]
    return next((p / n for p, usual in places for n in usual if (p / n).is_file()), None)


def _check_sum(spec: DatasetSpec, path: Path) -> None:
    expected = spec.archive.sha256.get(path.name) if spec.archive is not None else None
    if expected is not None and sha256_file(path) != expected:
        raise DataError(f"{path}: its SHA-256 is not the known one ({expected}); download it again")


# ---------------------------------------------------------------------------- extraction
class _Member(NamedTuple):
    name: str
    size: int
    source: IO[bytes]


def extract(
    archive: Path | str,
    target: Path | str,
    *,
    max_files: int = MAX_FILES,
    max_bytes: int = MAX_BYTES,
) -> tuple[int, int]:
    """Extract a zip or tar archive into the folder ``target``; (files, bytes) written.

    Members that would leave the target, links and devices are refused, and so is anything
    beyond the limits (counted while writing, not as the archive claims).  Everything is written
    to a temporary folder first: after an error the target is as it was.  Existing files are
    never replaced.  Raises :class:`DataError`.
    """
    archive, target = Path(archive), Path(target)
    max_bytes = min(max_bytes, max(RATIO_FROM, MAX_RATIO * _size_of(archive)))
    try:
        with scratch_folder(target.parent, f".{target.name}.partial-") as partial:
            files, size = _write_members(archive, partial, max_files, max_bytes)
            _merge(partial, target, archive)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{archive}: cannot be extracted to {target} ({reason})") from None
    return files, size


def _size_of(archive: Path) -> int:
    try:
        return archive.stat().st_size
    except OSError as error:
        raise DataError(f"{archive}: cannot be read ({error.strerror or error})") from None


def _write_members(archive: Path, folder: Path, max_files: int, max_bytes: int) -> tuple[int, int]:
    files = size = 0
    try:
        for member in _members(archive):
            files += 1
            if files > max_files:
                raise DataError(f"{archive}: holds more than {max_files:,} files; refused")
            size = _write(member, folder, archive, size, max_bytes)
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        EOFError,
        RuntimeError,
    ) as error:
        raise DataError(f"{archive}: broken or unreadable archive ({error})") from None
    except Exception as error:  # zlib.error and lzma.LZMAError have no type in common
        if type(error).__module__ not in ("zlib", "lzma", "_lzma", "bz2"):
            raise
        raise DataError(f"{archive}: broken or unreadable archive ({error})") from None
    if not files:
        raise DataError(f"{archive}: holds no files")
    return files, size


def _members(archive: Path) -> Iterator[_Member]:
    """Regular files of an archive; raises :class:`DataError` for anything else in it."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            for info in zipped.infolist():
                mode = info.external_attr >> 16
                if stat.S_ISLNK(mode):
                    raise DataError(f"{archive}: member {info.filename} is a link; refused")
                if not info.is_dir():
                    with zipped.open(info) as source:
                        yield _Member(info.filename, info.file_size, source)
    elif tarfile.is_tarfile(archive):
        with tarfile.open(archive) as tape:
            for entry in tape:
                if entry.isdir():
                    continue
                if not entry.isreg():
                    raise DataError(f"{archive}: member {entry.name} is a link or device; refused")
                stream = tape.extractfile(entry)
                if stream is not None:
                    with stream as source:
                        yield _Member(entry.name, entry.size, source)
    else:
        raise DataError(f"{archive}: neither zip nor tar{_hint(archive)}")


def _hint(archive: Path) -> str:
    with archive.open("rb") as file:
        head = file.read(6)
    if head == b"7z\xbc\xaf\x27\x1c":
        return "; a 7z archive: extract it with `7z x` into the dataset's folder below --data-root"
    if head[:4] == b"Rar!":
        return (
            "; a rar archive: extract it with `unrar x` into the dataset's folder below --data-root"
        )
    return ""


def _write(member: _Member, folder: Path, archive: Path, size: int, max_bytes: int) -> int:
    """Copy one member; returns the bytes written so far."""
    path = folder / _safe(member.name, archive)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        raise DataError(f"{archive}: holds {member.name} twice")
    if shutil.disk_usage(folder).free < member.size:
        raise DataError(f"{archive}: no room on the disk for {member.name} ({member.size:,} bytes)")
    with path.open("xb") as out:
        while block := member.source.read(_BLOCK):
            size += len(block)
            if size > max_bytes:
                raise DataError(f"{archive}: holds more than {max_bytes:,} bytes; refused")
            out.write(block)
    return size


def _safe(name: str, archive: Path) -> PurePosixPath:
    """A member's relative path, or :class:`DataError` if it leads out of the target."""
    plain = name.replace("\\", "/")
    path = PurePosixPath(plain)
    if path.is_absolute() or ".." in path.parts or ":" in plain or "\0" in plain or not path.parts:
        raise DataError(f"{archive}: member {name!r} leads out of the target folder; refused")
    return path


def _merge(partial: Path, target: Path, archive: Path) -> None:
    """Move the extracted tree into place; nothing that exists is replaced."""
    if not target.exists():
        partial.chmod(0o755)
        partial.rename(target)
        return
    files = [p for p in sorted(partial.rglob("*")) if p.is_file()]
    clash = next((p for p in files if (target / p.relative_to(partial)).exists()), None)
    if clash is not None:
        raise DataError(
            f"{archive}: {target / clash.relative_to(partial)} exists already; "
            "remove the folder first to extract it anew"
        )
    for path in files:
        place = target / path.relative_to(partial)
        place.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, place)

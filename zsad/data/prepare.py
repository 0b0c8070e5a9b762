"""``zsad data prepare``: extract a downloaded archive safely, or say where to get it."""

from __future__ import annotations

import contextlib
import filecmp
import importlib.util
import os
import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from zsad.data.archives import Member, members, reading
from zsad.data.catalog import list_specs, load_spec
from zsad.data.definition import DatasetSpec
from zsad.data.index import DatasetIndex, load_index
from zsad.errors import DataError, RequestError, counted
from zsad.io import names, scratch_folder, sha256_file
from zsad.io.bounds import ARCHIVE_BYTES, ARCHIVE_FILES, ARCHIVE_RATIO, RATIO_FROM

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
            out.append(
                f"{self.dataset}: {counted(self.files, 'file')} ({counted(self.size, 'byte')}) "
                f"in {self.target}"
            )
        normal, anomalous = self.index.counts()
        where = self.index.root or "generated"
        out.append(
            f"{self.dataset}: variant {self.index.variant} in {where}, {normal} normal and "
            f"{counted(anomalous, 'anomalous test image')}; `zsad data check {self.dataset}` "
            "checks every file"
        )
        out += [f"{self.dataset}: {text}" for text in (*self.index.problems, *self.index.notes)]
        return out


def prepare(
    name: str | DatasetSpec,
    root: Path | str | None,
    archive: Path | str | None = None,
    *,
    max_files: int | None = None,
    max_bytes: int | None = None,
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
def extract(
    archive: Path | str,
    target: Path | str,
    *,
    max_files: int | None = None,
    max_bytes: int | None = None,
) -> tuple[int, int]:
    """Extract a zip or tar archive into the folder ``target``; (files, bytes) written.

    Members that would leave the target, links and devices are refused, and so is anything
    beyond the limits (counted while writing, not as the archive claims; None: those of
    :mod:`zsad.io.bounds`).  Everything is written to a temporary folder first: after an error the
    target is as it was.  Files that exist are never replaced; of the same content, they count as
    extracted.  Raises :class:`DataError`.
    """
    archive, target = Path(archive), Path(target)
    max_files = ARCHIVE_FILES.value() if max_files is None else max_files
    max_bytes = ARCHIVE_BYTES.value() if max_bytes is None else max_bytes
    max_bytes = min(max_bytes, max(RATIO_FROM, ARCHIVE_RATIO.value() * _size_of(archive)))
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
    with reading(archive):
        for member in members(archive):
            files += 1
            if files > max_files:
                raise DataError(
                    f"{archive}: holds more than {max_files:,} files; refused "
                    f"({ARCHIVE_FILES.raised()})"
                )
            size = _write(member, folder, archive, size, max_bytes)
    if not files:
        raise DataError(f"{archive}: holds no files")
    return files, size


def _write(member: Member, folder: Path, archive: Path, size: int, max_bytes: int) -> int:
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
                raise DataError(
                    f"{archive}: holds more than {max_bytes:,} bytes; refused "
                    f"({ARCHIVE_BYTES.variable} and {ARCHIVE_RATIO.variable} raise the limit)"
                )
            out.write(block)
    return size


def _safe(name: str, archive: Path) -> PurePosixPath:
    """A member's relative path, or :class:`DataError` if it leads out of the target."""
    plain = name.replace("\\", "/")
    path = PurePosixPath(plain)
    if path.is_absolute() or ".." in path.parts or ":" in plain or "\0" in plain or not path.parts:
        raise DataError(f"{archive}: member {name!r} leads out of the target folder; refused")
    if names.WINDOWS and any(map(names.is_refused_by_windows, path.parts)):
        raise DataError(f"{archive}: member {name!r} has a name that Windows refuses")
    return path


def _merge(partial: Path, target: Path, archive: Path) -> None:
    """Move the extracted tree into place; nothing that exists is replaced.

    A file that is there already with the same content is done: an extraction that was killed is
    finished by the same command.
    """
    if not os.path.lexists(target):
        partial.chmod(0o755)
        with contextlib.suppress(OSError):  # somebody else was faster: what is missing is added
            partial.rename(target)
            return
    files = [p for p in sorted(partial.rglob("*")) if p.is_file()]
    places = {path: target / path.relative_to(partial) for path in files}
    done = {path for path, place in places.items() if _is_there(path, place, target, archive)}
    for path, place in places.items():
        if path not in done:
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, place)


def _is_there(path: Path, place: Path, target: Path, archive: Path) -> bool:
    """Whether ``place`` holds the content of ``path`` already.

    Raises :class:`DataError` where it holds anything else, or lies below a file.
    """
    for folder in place.parents:
        if os.path.lexists(folder) and not folder.is_dir():
            raise DataError(
                f"{archive}: {folder} is not a folder; remove it to extract the archive"
            )
        if folder == target:
            break
    if not os.path.lexists(place):
        return False
    if place.is_file() and filecmp.cmp(path, place, shallow=False):
        return True
    raise DataError(
        f"{archive}: {place} exists already with other content; "
        "remove the folder first to extract it again"
    )

"""Remembers the content of the files that results were computed from.  No torch.

The fingerprint of an index hashes names, labels and sizes.  That is cheap, and blind to a file
that changes and keeps its size.  A results folder therefore remembers every file that was read::

    <results>/inputs/<dataset>/<variant>/<category>.json
        {"<path inside the dataset>": [size, time of change, SHA-256 at first, SHA-256 now]}

The next run compares sizes and times.  Only a file where they differ is read, and only if its
content differs, too, does the dataset get another fingerprint: what depends on it is computed
again.  With the first content back, the first results are found again.

Nor does the fingerprint hold what a user's own definition calls a category, which prompts are made
of.  That is remembered beside the files, and what it changes is computed again likewise::

    <results>/inputs/<dataset>/<variant>.words.json   {"<category>": [prompt, kind, domain]}
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import cast

from zsad import config as cfg
from zsad.data.catalog import is_folder, origin_of
from zsad.data.index import DatasetIndex
from zsad.errors import DataError
from zsad.io import file_lock, read_json, remove_leftover, sha256_file, write_json
from zsad.io.names import safe_name
from zsad.io.schema import SchemaError, convert
from zsad.types import Sample

log = logging.getLogger(__name__)

Entry = tuple[int, int, str, str]  # size, time of change in ns, SHA-256 at first and now
READERS = 4  # threads
LOCK = ".lock"  # of the whole results folder


def checked(results: Path, index: DatasetIndex) -> DatasetIndex:
    """Return ``index`` with a fingerprint that covers what changed in its files and in its
    definition since they were first read for ``results``.  A change that was not known yet is
    logged."""
    changed = _renamed(results, index)
    for category in index.categories if index.root is not None else ():
        path = _path(results, index, category)
        known = _read(path)
        fresh = _looked_at(known, index.root or Path())
        for name, entry in fresh.items():
            if entry[3] not in (known[name][3], known[name][2]):
                log.warning(
                    "%s: %s has changed since results were computed from it; they are computed "
                    "again",
                    index.spec.name,
                    name,
                )
        if fresh:
            with contextlib.suppress(OSError):  # a folder that is only read
                _merge(results, path, fresh)
        changed.update({n: e[3] for n, e in (known | fresh).items() if e[3] != e[2]})
    if not changed:
        return index
    identity = cfg.digest([index.fingerprint, sorted(changed.items())], 16)
    return replace(index, fingerprint=identity)


def note(results: Path, index: DatasetIndex, category: str, samples: Iterable[Sample]) -> None:
    """Remember the files of ``samples``, which results are computed from now.

    A file that cannot be read is left out: nothing will be computed from it.  Where ``results``
    cannot be written, a warning says so.
    """
    _note_words(results, index, category)
    if index.root is None:
        return
    names: dict[str, None] = {}
    for sample in samples:
        files = (sample.image, *([sample.mask] if sample.mask else []), *sample.extra_masks)
        names.update({os.path.relpath(f, index.root): None for f in files if "://" not in f})
    path = _path(results, index, category)
    known = _read(path)
    missing = {name: (-1, -1, "", "") for name in names if name not in known}
    fresh = _looked_at({**missing, **{n: known[n] for n in names if n in known}}, index.root)
    try:
        if fresh:
            _merge(results, path, fresh)
        else:
            remove_leftover(results / LOCK)  # of a process that was killed while it noted this
    except OSError as error:
        log.warning("%s: cannot be written (%s)", path, error.strerror or error)


def _looked_at(entries: Mapping[str, Entry], root: Path) -> dict[str, Entry]:
    """The entries whose files have another size or time by now, renewed."""
    stale: dict[str, os.stat_result] = {}
    for name, (size, time, _, _) in entries.items():
        with contextlib.suppress(OSError):
            found = os.stat(root / name)
            if (found.st_size, found.st_mtime_ns) != (size, time):
                stale[name] = found

    def look(name: str) -> tuple[str, Entry] | None:
        found, first = stale[name], entries[name][2]
        try:
            now = sha256_file(root / name)
        except OSError:
            return None
        return name, (found.st_size, found.st_mtime_ns, first or now, now)

    if not stale:
        return {}
    with ThreadPoolExecutor(READERS, thread_name_prefix="zsad-inputs") as pool:
        return dict(entry for entry in pool.map(look, stale) if entry is not None)


# ------------------------------------------------------------------------ the definition
def _words(index: DatasetIndex, category: str) -> list[str]:
    """What prompts make of a category: of a definition that its user may have edited since."""
    said = index.spec.categories[category]
    return [said.prompt, said.kind, index.spec.domain]


def _is_edited(index: DatasetIndex) -> bool:
    """Whether a definition is a user's file.  What is said of a folder is in its fingerprint, and a
    definition of ours has a revision."""
    return bool(origin_of(index.spec)) and not is_folder(index.spec)


def _renamed(results: Path, index: DatasetIndex) -> dict[str, str]:
    """The categories that are called otherwise than when results were first computed of them."""
    known = _read_words(results, index) if _is_edited(index) else {}
    now = {c: _words(index, c) for c in known if c in index.spec.categories}
    changed = {c: words for c, words in now.items() if words != known[c]}
    for category, words in changed.items():
        log.info(
            "%s: %s is %s now, and was %s when results were first computed from it; it is "
            "computed again",
            *(index.spec.name, category, ", ".join(words), ", ".join(known[category])),
        )
    return {f"words of {category}": cfg.digest(words) for category, words in changed.items()}


def _note_words(results: Path, index: DatasetIndex, category: str) -> None:
    if not _is_edited(index) or category in _read_words(results, index):
        return
    path = _words_path(results, index)
    try:
        with file_lock(results / LOCK):
            known = _read_words(results, index)
            write_json(path, {category: _words(index, category), **known})
    except OSError as error:
        log.warning("%s: cannot be written (%s)", path, error.strerror or error)


def _words_path(results: Path, index: DatasetIndex) -> Path:
    name, variant = (safe_name(n, " ") for n in (index.spec.name, index.variant))
    return results / "inputs" / name / f"{variant}.words.json"


def _read_words(results: Path, index: DatasetIndex) -> dict[str, list[str]]:
    """What is remembered; nothing where the file is absent or broken."""
    path = _words_path(results, index)
    try:
        return convert(read_json(path), dict[str, list[str]], key="") if path.exists() else {}
    except (DataError, SchemaError) as error:
        log.warning("%s: not a list of names (%s); a new one is begun", path, error)
        return {}


# ------------------------------------------------------------------------------ the files
def _path(results: Path, index: DatasetIndex, category: str) -> Path:
    parts = [safe_name(n, " ") for n in (index.spec.name, index.variant, category)]
    return results.joinpath("inputs", *parts[:2], f"{parts[2]}.json")


def _read(path: Path) -> dict[str, Entry]:
    """The entries of a file; none where it is absent or broken."""
    try:
        return cast("dict[str, Entry]", convert(read_json(path), dict[str, Entry], key=""))
    except DataError as error:
        if path.exists():
            log.warning("%s; a new one is begun", error)
    except SchemaError as error:
        log.warning("%s: not a list of files (%s); a new one is begun", path, error)
    return {}


def _merge(results: Path, path: Path, fresh: Mapping[str, Entry]) -> None:
    with file_lock(results / LOCK):
        write_json(path, {**_read(path), **fresh})

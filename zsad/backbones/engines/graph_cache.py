"""Graphs on disk (``backbone.engine_cache=true``): the folder ``graphs`` beside the stamps.

An entry is a folder, named by everything that its graph depends on, with the graph's files and a
description that repeats the name in full and holds their hashes.  It is put together elsewhere and
renamed, so a killed process leaves nothing that has the name of one.  What is damaged, or says that
it is of something else, counts for nothing and is made anew.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zsad import config as cfg
from zsad.errors import ZsadError, reason
from zsad.io import file_lock, read_json, scratch_folder, sha256_file

log = logging.getLogger(__name__)

DESCRIPTION = "graph.json"
MOST_BYTES = 4 * 2**30  # of all graphs; those that were used least lately go first
_SCRATCH = ".graph-"


@dataclass(frozen=True)
class Entry:
    """One graph on disk; ``of``: everything that it depends on."""

    folder: Path
    of: Mapping[str, Any]

    @property
    def path(self) -> Path:
        return self.folder / cfg.digest(dict(self.of), 32)

    def read(self) -> dict[str, bytes] | None:
        """The files by name, each as it was hashed; None: there is nothing that can be trusted."""
        told = self.path / DESCRIPTION
        if not told.is_file():
            return None
        try:
            kept = read_json(told)
            if kept["of"] != cfg.plain(dict(self.of)):
                raise ValueError("it belongs to another graph")
            found = {name: (self.path / Path(name).name).read_bytes() for name in kept["files"]}
            for name, content in found.items():
                if hashlib.sha256(content).hexdigest() != kept["files"][name]:
                    raise ValueError(f"{name} is damaged or was changed")
            told.touch()
        except (ZsadError, OSError, AttributeError, KeyError, TypeError, ValueError) as error:
            log.warning("the kept graph %s is made again: %s", self.path, reason(error))
            return None
        return found

    def write(self, save: Callable[[Path], None]) -> None:
        """Keep what ``save`` writes into a folder; a cache that cannot be written costs time
        alone."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with file_lock(self.folder / ".lock"), scratch_folder(self.folder, _SCRATCH) as new:
                save(new)
                files = {p.name: sha256_file(p) for p in sorted(new.iterdir())}
                told = {"of": cfg.plain(dict(self.of)), "files": files}
                (new / DESCRIPTION).write_text(json.dumps(told), encoding="utf-8")
                shutil.rmtree(self.path, ignore_errors=True)
                new.rename(self.path)
                shrink(self.folder, self.path)
        except (ZsadError, OSError) as error:
            log.debug("no graph kept: %s", reason(error))


def shrink(folder: Path, kept: Path, most: int = MOST_BYTES) -> None:
    """Remove what was used least lately until no more than ``most`` bytes lie in ``folder``;
    never ``kept``."""
    entries = [p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")]
    sizes = {p: sum(f.stat().st_size for f in p.iterdir()) for p in entries}
    total = sum(sizes.values())
    for path in sorted(entries, key=_used):
        if total <= most:
            return
        if path != kept:
            shutil.rmtree(path, ignore_errors=True)
            total -= sizes[path]


def _used(path: Path) -> float:
    """When an entry was read or written last; one without a description was never one."""
    told = path / DESCRIPTION
    return told.stat().st_mtime if told.is_file() else 0.0

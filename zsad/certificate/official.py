"""Which of the files at hand is which: told by their content, never by their names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zsad.certificate.recipe import Recipe
from zsad.checkpoints import sources
from zsad.checkpoints.released import Content, ReleasedFile, content_of, recognise, released_files
from zsad.errors import RequestError
from zsad.io.names import at_home


@dataclass(frozen=True)
class OfficialFile:
    """A file in its role.  ``role``: "checkpoint for visa", "detector for visa"; ``known_as``: the
    released file that it is, "" for one that nobody knows."""

    role: str
    path: Path
    content: Content
    known_as: str
    trained_on: str


@dataclass(frozen=True)
class Official:
    """The files of a reproduction by target: ``checkpoints``, and ``detectors`` where there are
    any."""

    files: tuple[OfficialFile, ...]
    checkpoints: dict[str, Path]
    detectors: dict[str, Path]


def find(
    folder: str, method: str, recipe: Recipe, targets: Sequence[str], detectors: bool
) -> Official:
    """Give every target the released files that serve it.

    ``folder``: where they lie under any names (also ``hf://OWNER/REPO@REVISION``); ``detectors``:
    whether they are wanted.  Raises :class:`RequestError` with the list of what is missing, and
    where it is published.
    """
    at = at_home(folder)
    # A folder without any weights is one where all of them are missing.
    place = sources.Place(folder, at) if at.is_dir() else sources.parse(folder, "--official").of("")
    held: dict[str, Path] = {}
    for path in place.files():
        if (row := recognise(path)) is not None:
            held.setdefault(row.file, path)
    files: list[OfficialFile] = []
    missing: list[str] = []
    checkpoints: dict[str, Path] = {}
    found_detectors: dict[str, Path] = {}
    for target in targets:
        roles = recipe.targets[target]
        wanted = [("checkpoint", roles.checkpoint, checkpoints)]
        if roles.detector and detectors:
            wanted.append(("detector", roles.detector, found_detectors))
        for kind, name, into in wanted:
            row = _row(name)
            if name not in held:
                missing.append(f"{name} ({kind} for {target}, {_hash_of(row.content)})")
                continue
            into[target] = held[name]
            files.append(_described(f"{kind} for {target}", held[name], row))
    if missing:
        there = f"of the weight files there ({len(place.files())}), {len(held)} are known"
        raise RequestError(
            f"--official {folder}: missing are {'; '.join(missing)}. {there}; published at "
            f"{recipe.where}"
        )
    return Official(tuple(files), checkpoints, found_detectors)


def one(path: Path, trained_on: str) -> OfficialFile:
    """A file of the authors' format that no table knows."""
    return OfficialFile("checkpoint", path, content_of(path), "", trained_on)


def _row(name: str) -> ReleasedFile:
    """The row of a released file.  Raises :class:`RequestError` for one that is not listed."""
    for row in released_files():
        if row.file == name:
            return row
    raise RequestError(f"no released file is called {name}: a recipe names files of the table")


def _described(role: str, path: Path, row: ReleasedFile) -> OfficialFile:
    return OfficialFile(role, path, content_of(path), row.name, " + ".join(row.trained_on))


def _hash_of(content: Content) -> str:
    if content.sha256:
        return f"SHA-256 {content.sha256[:12]}..."
    return f"git blob {content.git_blob[:12]}..."

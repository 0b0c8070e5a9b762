"""A folder of one's own: one pass that says of every file what it is taken for.

The names of the folders on the way to a picture decide (:mod:`zsad.data.indexers.words`), wherever
they stand: ``normal/``, ``test/good/``, ``bolt/val/OK/cam1/``, ``test_public/bad/``.  Masks are
paired by name (:mod:`zsad.data.indexers.mask_names`).  What nothing is known about has no role, and
no role is ever made up for it.
"""

from __future__ import annotations

import fnmatch
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os.path import isfile
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from zsad.data.account import Account, Entry, Role
from zsad.data.images import decodable, is_picture
from zsad.data.indexers.base import natural
from zsad.data.indexers.left_out import DISGUISED, is_hidden, left_out
from zsad.data.indexers.mask_names import NAMING, Named, beside, pair
from zsad.data.indexers.words import Kind, kind_of, mentions_normal, part_of
from zsad.errors import counted

# What a definition may say a folder is, beside what its name says.
NO_PICTURE = "a mask of no picture"
OF_NORMAL = "of normal pictures, which count as unmarked"
VALIDATION_LEFT_OUT = "ignored by rule: the validation part; test/ is tested"
ROLES = ("normal", "anomalous", "train", "test", "mask", "category", "ignore")


class Picture(NamedTuple):
    """A picture with a label.  ``path`` and ``masks``: below the folder, with forward slashes."""

    path: str
    category: str
    label: int
    split: Literal["train", "test"]
    defect: str
    masks: tuple[str, ...] = ()


@dataclass
class Understood:
    """What a folder was taken for.  ``categories``: by their folder, "" of the only one;
    ``pictures``: those with a label; ``masks_of_normal``: (mask, its normal picture);
    ``recognised``: whether any folder's name says something; ``candidates``: whatever calls itself
    a picture, with a role or without, masks included; ``mask_of``: {mask: its picture}."""

    categories: list[str]
    pictures: list[Picture]
    account: Account
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    masks_of_normal: list[tuple[str, str]] = field(default_factory=list)
    recognised: bool = True
    candidates: list[str] = field(default_factory=list)
    mask_of: dict[str, str] = field(default_factory=dict)


class _File(NamedTuple):
    """A picture file on its way to a role.  ``folders``: on the way to it below its category, with
    what they say."""

    path: str
    category: str
    folders: tuple[tuple[str, Kind | Literal["ignore", "category"]], ...]

    def says(self, *kinds: str) -> list[str]:
        """The names of the folders that say one of ``kinds``."""
        return [name for name, kind in self.folders if kind in kinds]

    @property
    def named(self) -> Named:
        within = tuple(n.casefold() for n in self.says("other"))
        label = 1 if self.says("anomalous") else 0 if self.says("normal") else None
        return Named(self.path, within, label, bool(self.says("train")))


def understand(
    home: Path,
    roles: Mapping[str, str] | None = None,
    ignore: Sequence[str] = (),
    ignore_masks: str = "",
) -> Understood:
    """Say of every file below ``home`` what it is.

    ``roles``: what folders are whose names do not say it, ``{"cam 1/gut": "normal"}``, one of
    :data:`ROLES`.  ``ignore``: patterns of files that are left out (``extra/*``).
    """
    given = {k.strip("/").casefold(): v for k, v in (roles or {}).items()}
    wrong = [v for v in given.values() if v not in ROLES]
    if wrong:
        raise ValueError(f"roles: '{wrong[0]}' is not one of: {', '.join(ROLES)}")
    files, folders, again = tree(home)
    entries: list[Entry] = []
    pictures: list[str] = []
    for path in files:
        reason = left_out(home, path, files, ignore_masks)
        if reason is None and any(fnmatch.fnmatchcase(path, p) for p in ignore):
            reason = "ignored by rule"
        if reason is None:
            pictures.append(path)
        else:
            entries.append(Entry(path, "left out", reason=reason))
    levels = _Levels(
        [f for f in folders if not (is_hidden(f) or f"{f}/".startswith(f"{ignore_masks or '/'}/"))],
        given,
    )
    sorted_out = _Sorting(levels)
    for path in pictures:
        sorted_out.add(path)
    found = sorted_out.finish(home, entries)
    if again:
        link, place = next(iter(again.items()))
        found.notes.append(
            f"{counted(len(again), 'linked folder is', 'linked folders are')} read where they lead "
            f"to, and not twice (first: {link} is {place or 'the folder itself'})"
        )
    return found


class Tree(NamedTuple):
    """What lies below a folder, with forward slashes, sorted.  ``again``: linked folders that lead
    to one that is read already, with that one."""

    files: dict[str, None]
    folders: list[str]
    again: dict[str, str]


def tree(home: Path) -> Tree:
    """All files and folders below ``home``; linked folders are followed, each once, and where it
    lies itself rather than through a link.  A file that is not there, or none, is among them if it
    is called like a picture: reading it says so.  Raises ``OSError`` for a folder that may not be
    read."""
    files: list[str] = []
    folders: list[str] = []
    again: dict[str, str] = {}
    seen: dict[str, str] = {}  # real path -> where it is read
    waiting = [str(home)]
    while waiting:
        links: list[str] = []
        for top, inner, names in _walks(waiting):
            below = "" if top == str(home) else os.path.relpath(top, home).replace(os.sep, "/")
            first = seen.setdefault(os.path.realpath(top), below)
            if first != below:
                again[below] = first
                inner.clear()
                continue
            within = f"{below}/" if below else ""
            folders += [within + name for name in inner]
            files += [within + n for n in names if is_picture(n) or isfile(os.path.join(top, n))]
            links += [at for name in sorted(inner) if os.path.islink(at := os.path.join(top, name))]
            inner[:] = sorted(n for n in inner if not os.path.islink(os.path.join(top, n)))
        waiting = links
    in_order = dict.fromkeys(sorted(files, key=natural))
    return Tree(in_order, sorted(folders, key=natural), again)


def _walks(starts: Iterable[str]) -> Iterator[tuple[str, list[str], list[str]]]:
    for start in starts:
        yield from os.walk(start, onerror=_refuse)


def _refuse(error: OSError) -> None:
    """What cannot be listed is reported, unless it has gone in the meantime."""
    if not isinstance(error, FileNotFoundError):
        raise error


class _Levels:
    """Which folders are categories, and what each folder's name says."""

    def __init__(self, folders: Sequence[str], given: Mapping[str, str]) -> None:
        self.given = given
        inside: set[tuple[str, ...]] = set()  # where folders called normal, good, bad, ... lie
        split: set[tuple[str, ...]] = set()  # where train, test, ... lie
        named: set[tuple[str, ...]] = set()
        for folder in folders:
            *above, (_, kind) = self.read(folder)
            if any(k in ("mask", "ignore", "private") for _, k in above):
                continue
            key = tuple(n for n, k in above if k in ("other", "category", "neutral"))
            deep = any(k in ("normal", "anomalous") for _, k in above)
            if kind == "category":
                named.add((*key, folder.rpartition("/")[2]))
            elif kind in ("normal", "anomalous") and not deep:
                inside.add(key)
            elif kind in ("train", "test", "val") and not deep:
                split.add(key)
        # ``test/bolt/good`` names the category bolt although test/ lies above it.
        keys = _plainer(named or (inside | {k for k in split if k} if inside else split))
        self.recognised = bool(keys)
        self.single = () in keys or not keys
        self.too_deep = not self.single and any(len(k) > 1 for k in keys)
        flat = {} if self.single else {k[0].casefold(): k[0] for k in sorted(keys, key=_natural)}
        self.categories = {} if self.too_deep else flat
        # ``train_cam1`` beside ``test_cam1`` may be categories or parts; who says so knows.
        parts = {name: part for name in flat.values() if (part := part_of(name))}
        self.parts = parts if len(set(parts.values())) == 2 and not named else {}

    def read(self, folder: str) -> list[tuple[str, Kind | Literal["ignore", "category"]]]:
        """Every folder of a path with what it says: what a definition states, or its name."""
        parts = PurePosixPath(folder).parts
        out: list[tuple[str, Kind | Literal["ignore", "category"]]] = []
        for i, name in enumerate(parts):
            stated = self.given.get("/".join(parts[: i + 1]).casefold())
            out.append((name, stated or kind_of(name)))  # type: ignore[arg-type]
        return out

    def placed(self, path: str) -> _File:
        """A file with its category ("" where it has none) taken out of its folders."""
        folders = self.read(str(PurePosixPath(path).parent)) if "/" in path else []
        for i, (name, kind) in enumerate(folders):
            if kind in ("other", "category", "neutral") and name.casefold() in self.categories:
                rest = (*folders[:i], *folders[i + 1 :])
                return _File(path, self.categories[name.casefold()], rest)
            if kind == "other":
                break
        return _File(path, "", tuple(folders))


def _plainer(keys: set[tuple[str, ...]]) -> set[tuple[str, ...]]:
    """``keys`` without folders such as ``images`` and ``data``, but where one is a category among
    others."""
    several = len({k[0].casefold() for k in keys if k}) > 1
    kept = 1 if several else 0  # how many folders from the top may be called anything
    return {(*k[:kept], *(n for n in k[kept:] if kind_of(n) != "neutral")) for k in keys}


def _natural(key: tuple[str, ...]) -> tuple[object, ...]:
    return tuple(natural(part) for part in key)


class _Sorting:
    """Gives every picture its role."""

    def __init__(self, levels: _Levels) -> None:
        self.levels = levels
        self.files: list[_File] = []
        self.strays: dict[str, str] = {}  # without a role, and why
        self.rules: dict[str, str] = {}  # left out, and why
        self.masks: list[_File] = []
        self.labelled: dict[str, Picture] = {}
        self.guessed: dict[str, tuple[str, str]] = {}  # by an unknown name: (category, it)

    def add(self, path: str) -> None:
        """Take up a picture file."""
        self.files.append(self.levels.placed(path))

    def finish(self, home: Path, entries: list[Entry]) -> Understood:
        """Decide, pair the masks, and account for everything."""
        tested = {f.category for f in self.files if f.says("test")}
        for file in self.files:
            self._sort(file, tested)
        self._beside()
        problems: list[str] = []
        of_normal: list[tuple[str, str]] = []
        mask_of = self._pair(problems, of_normal)
        self._doubt(set(mask_of.values()))
        for path in list(self.strays):
            if not decodable(home / path):
                del self.strays[path]
                self.rules[path] = "not a picture, whatever its name says"
        entries += self._entries(mask_of)
        categories = list(self.levels.categories.values()) or [""]
        pictures = [p for p in self.labelled.values() if p.path not in self.strays]
        return Understood(
            categories,
            pictures,
            Account.of(home, entries),
            problems,
            self._notes(entries),
            sorted(of_normal),
            self.levels.recognised,
            [f.path for f in self.files],
            mask_of,
        )

    def _notes(self, entries: Sequence[Entry]) -> list[str]:
        """What may be meant otherwise."""
        notes = []
        if disguised := [e.path for e in entries if e.reason == DISGUISED]:
            notes.append(
                f"{counted(len(disguised), 'file')} left out: {DISGUISED} (first: {disguised[0]})"
            )
        stems: dict[str, list[str]] = defaultdict(list)
        for path in self.labelled:
            stems[os.path.splitext(path)[0]].append(path)
        if twins := [paths for paths in stems.values() if len(paths) > 1]:
            notes.append(
                f"{counted(len(twins), 'name occurs', 'names occur')} with several endings "
                f"(first: {', '.join(twins[0])}): "
                "all are taken for pictures; a mask belongs in a folder masks/, or is called "
                f"{os.path.splitext(os.path.basename(twins[0][0]))[0]}_mask"
            )
        return notes

    def _sort(self, file: _File, tested: set[str]) -> None:
        """The role that the folders of a file state, or why there is none."""
        said = set(file.says("normal") and ["normal"]) | set(file.says("anomalous") and ["bad"])
        if file.says("ignore"):
            self.rules[file.path] = "ignored by rule"
        elif file.says("private"):
            self.rules[file.path] = "ignored by rule: a test part without labels"
        elif file.says("mask"):
            self.masks.append(file)
        elif not self.levels.single and not file.category:
            deep = self.levels.too_deep
            self.strays[file.path] = (
                "its category lies two folders deep" if deep else "it lies in no category"
            )
        elif file.category in self.levels.parts:
            part = self.levels.parts[file.category]
            self.strays[file.path] = (
                f"'{file.category}' may be a category or the {part} part; `roles:` of a definition "
                "say which"
            )
        elif file.says("val") and not file.says("test") and file.category in tested:
            self.rules[file.path] = VALIDATION_LEFT_OUT
        elif len(said) == 2:
            self.strays[file.path] = "its folders say both normal and anomalous"
        elif said and self.levels.single and (outer := _beside_classes(file)):
            self.strays[file.path] = f"{outer}/ lies beside the folders of the pictures"
        elif said:
            self._label(file, int("bad" in said))
        else:
            self._unnamed(file)

    def _label(self, file: _File, label: int) -> None:
        split: Literal["train", "test"] = "train" if file.says("train") else "test"
        defect = "good"
        if label:
            types = file.says("other")
            parted = file.says("train", "test", "val")
            plain = file.says("anomalous")[0] if parted else "anomaly"
            defect = types[0] if types else plain
        self.labelled[file.path] = Picture(file.path, file.category, label, split, defect)

    def _unnamed(self, file: _File) -> None:
        """A picture in no folder called normal, bad, ...: a reference, a defect, or a stray."""
        types = file.says("other")
        where = f"{'/'.join(n for n, _ in file.folders)}/" if file.folders else "the folder itself"
        if file.says("train") and not types:
            self.labelled[file.path] = Picture(file.path, file.category, 0, "train", "good")
        elif types and (word := mentions_normal(types[0])):
            self.strays[file.path] = f"'{types[0]}' may be normal (it says {word}) or a defect"
        elif file.says("test", "val") and types:
            self.labelled[file.path] = Picture(file.path, file.category, 1, "test", types[0])
            self.guessed[file.path] = (file.category, types[0])
        else:
            self.strays[file.path] = f"{where} says neither normal nor anomalous"

    def _beside(self) -> None:
        """Masks among the pictures of a class folder: ``bad/0.png`` with ``bad/0_mask.png``."""
        by_path = {f.path: f for f in self.files}
        for path, (name, picture) in beside(self.labelled).items():
            if picture:
                self.masks.append(by_path[path])
            else:
                self.strays[path] = f"named like a mask, but without a picture {name} beside it"
            del self.labelled[path]
            self.guessed.pop(path, None)

    def _pair(self, problems: list[str], of_normal: list[tuple[str, str]]) -> dict[str, str]:
        """``{mask: its picture}``; what cannot be paired is a problem of its category."""
        by_path = {f.path: f for f in self.files}
        mask_of: dict[str, str] = {}
        for category in dict.fromkeys(f.category for f in self.masks):
            masks = [f for f in self.masks if f.category == category]
            own = [p for p in self.labelled.values() if p.category == category]
            named = [by_path[p.path].named._replace(label=p.label) for p in own]
            found, failed = pair(named, [f.named for f in masks])
            mask_of.update(found)
            for path in failed:
                self.strays[path] = f"{NO_PICTURE}: {failed[path]}"
            if failed:
                problems.append(
                    f"{_first(failed)}: {len(failed)} of {counted(len(masks), 'mask')} without "
                    "an image "
                    f"(first: {os.path.basename(next(iter(failed)))}); {NAMING}"
                )
            bad = [p for p in own if p.label and p.split == "test"]
            pieces: dict[str, list[str]] = defaultdict(list)
            for mask, picture in found.items():
                pieces[picture].append(mask)
            for p in own:
                if p.path in pieces and p.label:
                    several = tuple(sorted(pieces[p.path], key=natural))
                    self.labelled[p.path] = p._replace(masks=several)
                elif p.path in pieces:
                    of_normal += [(m, p.path) for m in pieces[p.path]]
            without = [p.path for p in bad if p.path not in pieces]
            if without and (len(without) < len(bad) or failed):
                problems.append(
                    f"{_first(without)}: {len(without)} of {counted(len(bad), 'anomalous image')} "
                    f"without a mask of its own (first: {os.path.basename(without[0])}); {NAMING}"
                )
        return mask_of

    def _doubt(self, masked: set[str]) -> None:
        """Test folders of unknown names are defects only where something says what is normal."""
        sure = {p.category for p in self.labelled.values() if not p.label}
        for path, (category, name) in self.guessed.items():
            if category not in sure and path not in masked:
                self.strays[path] = f"no folder says whether '{name}' is normal or a defect"

    def _entries(self, mask_of: Mapping[str, str]) -> Iterator[Entry]:
        category = {f.path: f.category for f in self.files}
        for file in self.files:
            path = file.path
            role: Role = "left out"
            reason = self.rules.get(path, "")
            of = mask_of.get(path, "")
            if path in self.strays:
                role, reason = "no role", self.strays[path]
            elif of:
                role = "mask"
                if of in self.labelled and not self.labelled[of].label:
                    reason = OF_NORMAL
            elif path in self.labelled:
                found = self.labelled[path]
                role = "anomalous" if found.label else "normal"
                if found.split == "train":
                    role, reason = "training", "anomalous" if found.label else ""
            yield Entry(path, role, category[path], of, reason)


def _first(paths: Iterable[str]) -> str:
    """The folder of the first path."""
    return os.path.dirname(next(iter(paths))) or "."


def _beside_classes(file: _File) -> str:
    """A folder of unknown name above normal/ or anomalous/ and below no train/ or test/."""
    for name, kind in file.folders:
        if kind != "neutral":
            return name if kind == "other" else ""
    return ""

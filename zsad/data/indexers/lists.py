"""What lists of pictures share: recognising one in a folder, resolving its paths, its account."""

from __future__ import annotations

import csv
import fnmatch
import io
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from zsad.data.account import Account, Entry, Role
from zsad.data.definition import Layout
from zsad.data.images import is_picture
from zsad.data.indexers.base import Indexing, natural, posix
from zsad.data.indexers.left_out import left_out
from zsad.data.indexers.own_folder import OF_NORMAL, VALIDATION_LEFT_OUT, tree
from zsad.data.indexers.words import kind_of, says
from zsad.data.lossy import LOSSY_CUT, is_lossy
from zsad.errors import DataError, RequestError, counted, shown
from zsad.io import read_json
from zsad.types import Sample

# Names that columns of a table go by, compared without case; the first one is in our examples.
COLUMNS: dict[str, tuple[str, ...]] = {
    "image": ("image", "image_path", "img_path", "img", "path", "filename", "file_name", "file"),
    "label": ("label", "anomaly", "is_anomaly", "anomalous", "defective", "status", "target"),
    "mask": ("mask", "mask_path", "ground_truth", "segmentation"),
    "category": ("category", "object", "product", "class_name", "cls_name"),
    "split": ("split", "set", "subset", "part"),
    "defect": ("defect", "defect_type", "type", "specie_name"),
}


META_FORM = 'a meta.json of the form {"train": {CLASS: [ENTRY, ...]}, "test": {...}}'


def list_layout(home: Path) -> tuple[list[str], Layout] | None:
    """The list of pictures that lies at the top of a folder, with the categories that it names:
    ``meta.json``, COCO annotations, or a table.  Raises :class:`RequestError` for two of a kind."""
    for path in _top(home, ".json"):
        if path.name.lower() == "meta.json":
            options = {} if path.name == "meta.json" else {"file": path.name}
            return _meta_classes(path), Layout("meta_json", options, looks=path.name)
    found = [p for p in _top(home, ".json") if _is_coco(p)]
    layouts = [([home.name], Layout("coco", {"annotations": p.name}, looks=p.name)) for p in found]
    for path in _top(home, ".csv", ".tsv"):
        try:
            columns = _columns(path)
        except _UNREAD:
            continue  # told by :func:`unread`, where nothing else says what pictures are
        layout = Layout("csv", {"file": path.name, **columns}, looks=path.name)
        layouts.append((_table_categories(path, columns) or [home.name], layout))
    if len(layouts) > 1:
        names = " and ".join(layout.looks for _, layout in layouts)
        raise RequestError(
            f"folder:{home}: {names} both list pictures; keep one there, or write a definition "
            "that names it (docs/add-a-dataset.md)"
        )
    return layouts[0] if layouts else None


def unread(home: Path) -> list[str]:
    """Why tables and JSON files at the top of a folder are not read as lists of pictures."""
    found = []
    for path in _top(home, ".csv", ".tsv"):
        try:
            _columns(path)
        except _UNREAD as error:
            found.append(f"{path.name} is not read as a list of pictures ({_why_unread(error)})")
    for path in _top(home, ".json"):
        try:
            read_json(path)
        except DataError as error:
            found.append(str(error))
    return found


def _why_unread(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8; save it as UTF-8"
    return getattr(error, "strerror", None) or str(error)


def _top(home: Path, *suffixes: str) -> list[Path]:
    """The files at the top of a folder whose names end so, in any case."""
    return [p for p in sorted(home.iterdir()) if p.suffix.lower() in suffixes and p.is_file()]


def _meta_classes(path: Path) -> list[str]:
    try:
        content = read_json(path)
    except DataError as error:
        raise RequestError(str(error)) from None
    parts = list(content.values()) if isinstance(content, dict) else [content]
    if not all(isinstance(part, dict) for part in parts):
        raise RequestError(
            f"{path}: not {META_FORM}; a table list.csv with the columns image, label and mask "
            f"will do, too (docs/add-a-dataset.md)"
        )
    return _each_once(str(name) for part in parts for name in part)


def _each_once(names: Iterable[str]) -> list[str]:
    """Sorted names, the first spelling of those that differ in case alone."""
    found: dict[str, str] = {}
    for name in names:
        found.setdefault(name.casefold(), name)
    return sorted(found.values(), key=natural)


def _is_coco(path: Path) -> bool:
    try:
        content = read_json(path)
    except DataError:
        return False
    return isinstance(content, dict) and {"images", "annotations"} <= set(content)


# -------------------------------------------------------------------------------- tables
def table(path: Path, delimiter: str = "") -> tuple[list[str], list[list[str]]]:
    """(header, rows) of a delimited text file, cells without surrounding blanks.

    Byte-order marks are understood, UTF-16 included; the delimiter is the one of comma, semicolon
    and tab that the header has most of.  Raises ``ValueError``, also where two columns have one
    name, ``OSError`` or ``csv.Error``.
    """
    content = path.read_bytes()
    wide = content[:2] in (b"\xff\xfe", b"\xfe\xff")
    if not wide and b"\0" in content:
        raise ValueError("it holds zero bytes; save it as UTF-8")
    text = content.decode("utf-16" if wide else "utf-8-sig")
    head = text.partition("\n")[0]
    mark = delimiter or max(",;\t", key=head.count)
    read = csv.reader(io.StringIO(text, newline=""), delimiter=mark)
    rows = [cells for row in read if any(cells := [cell.strip() for cell in row])]
    if not rows:
        return [], []
    counts = Counter(name.casefold() for name in rows[0] if name)
    if twice := [name for name, n in counts.items() if n > 1]:
        raise ValueError(f"two of its columns are called '{shown(twice[0])}'; rename one")
    return rows[0], rows[1:]


_UNREAD = (OSError, ValueError, csv.Error)  # what reading a table raises


def _columns(path: Path) -> dict[str, str]:
    """Which columns of a table say what.  Raises as :func:`table` does, and ``ValueError`` for one
    that lists no pictures with labels, or says two things of one picture."""
    header, rows = table(path)
    by_name = {name.casefold(): name for name in header}
    found: dict[str, str] = {}
    for role, names in COLUMNS.items():
        known = [by_name[n] for n in names if n in by_name]
        if known:
            found[role] = known[0]
            _agree(role, [(name, header.index(name)) for name in known], rows)
    if {"image_score", "anomalous"} <= set(header):
        raise ValueError("it is a table of `zsad predict`, whose verdicts are not labels")
    if absent := [role for role in ("image", "label") if role not in found]:
        there = shown(", ".join(header)[:200]) or "none"
        raise ValueError(
            f"no column is called {' or '.join(repr(role) for role in absent)}; it has {there}"
        )
    return found


def _agree(role: str, columns: Sequence[tuple[str, int]], rows: Sequence[Sequence[str]]) -> None:
    """Raise ``ValueError`` where columns that may all be meant say different things.

    ``columns``: their names and places."""
    means = _MEANINGS.get(role)
    if means is None:
        return
    for number, row in enumerate(rows, start=2):
        said = [(n, value) for n, i in columns if i < len(row) and (value := means(row[i]))]
        for name, value in said[1:]:
            if value != said[0][1]:
                raise ValueError(
                    f"its columns '{shown(said[0][0])}' and '{shown(name)}' contradict each other "
                    f"in line {number}; rename the one that is not meant"
                )


def _file_name(text: str) -> str:
    """The name of a picture's file; "" for what is none, such as a folder."""
    name = PurePosixPath(posix(text)).name.casefold()
    return name if is_picture(name) else ""


# What a cell says, where several columns of a table may be the one that is meant.
_MEANINGS: dict[str, Callable[[str], object]] = {
    "image": _file_name,
    "label": says,
    "split": lambda text: kind_of(text) if text else "",
}


def _table_categories(path: Path, options: Mapping[str, str]) -> list[str]:
    if "category" not in options:
        return []
    header, rows = table(path)
    at = header.index(options["category"])
    return _each_once(row[at] for row in rows if at < len(row) and row[at])


# --------------------------------------------------------------------------------- paths
class Resolver:
    """Paths of a list as they lie below ``root``: Windows' backslashes and drive letters, doubled
    slashes, and leading folders that repeat the root are understood.  Where there is only one such
    file, a path below one of the folders is found, and case makes no difference."""

    def __init__(self, root: Path, images: str = "") -> None:
        self.root = root
        self.tops = [root / images, root] if images else [root]
        self._by_name: dict[str, list[str]] | None = None

    def __call__(self, text: str) -> str:
        """The path of a file; where there is none, the one that was looked for first.  Raises
        ``ValueError`` for an empty path or one that leads out of the folder."""
        parts = [p for p in PurePosixPath(posix(text)).parts if p not in ("/", ".")]
        if not parts:
            raise ValueError("the path is empty")
        if ".." in parts:
            raise ValueError(f"path '{text}' leads out of the dataset's folder")
        for drop in range(len(parts)):
            for top in self.tops:
                path = os.path.join(top, *parts[drop:])
                if os.path.isfile(path):
                    return path
        return self._searched("/".join(parts)) or os.path.join(self.tops[0], *parts)

    def _searched(self, text: str) -> str:
        """The only file whose path ends in ``text``, compared without case; "" for none."""
        if self._by_name is None:
            self._by_name = defaultdict(list)
            for path in tree(self.root).files:
                self._by_name[os.path.basename(path).casefold()].append(path)
        plain = f"/{text}".casefold()
        found = [
            p
            for p in self._by_name.get(os.path.basename(text).casefold(), ())
            if f"/{p}".casefold().endswith(plain)
        ]
        return os.path.join(self.root, found[0]) if len(found) == 1 else ""


# ------------------------------------------------------------------------------- account
def listed_account(
    at: Indexing, samples: Iterable[Sample], name: str, ignore: Sequence[str] = ()
) -> Account:
    """What every file below the root is, where the list ``name`` says so; a picture that it does
    not name has no role."""
    root = at.root
    known: dict[str, tuple[Role, str, str, str]] = {}
    for s in samples:
        role: Role = "anomalous" if s.label else "normal"
        path = at.relative(s.image)
        reason = ""
        if s.split == "train":
            role, reason = "training", "anomalous" if s.label else ""
        known.setdefault(path, (role, s.category, "", reason))
        for mask in [m for m in (s.mask, *s.extra_masks) if m and "://" not in m]:
            known.setdefault(at.relative(mask), ("mask", s.category, path, ""))
    for mask, picture in at.masks_of_normal:
        of = at.relative(picture)
        category = known[of][1] if of in known else ""
        known.setdefault(at.relative(mask), ("mask", category, of, OF_NORMAL))
    files = tree(root).files
    entries = []
    for path in files:
        if path in known:
            found, category, of, why = known[path]
            entries.append(Entry(path, found, category, of, why))
            continue
        out = at.by_rule.get(path) or left_out(root, path, files, at.ignore_masks)
        if out is None and any(fnmatch.fnmatchcase(path, p) for p in ignore):
            out = "ignored by rule"
        role = "no role" if out is None else "left out"
        why = at.refused.get(path) or f"{name} does not list it"
        entries.append(Entry(path, role, reason=out or why))
    return Account.of(root, entries)


def check_listed(at: Indexing, path: Path, samples: Sequence[Sample]) -> None:
    """Append to the problems what a list cannot mean: a picture that it names twice, a mask of two
    pictures, a mask that is a picture, masks for some of a category's anomalous pictures.

    A picture of two categories is named in each, with one label."""
    times = Counter((s.image, s.category) for s in samples)
    labels: dict[str, set[tuple[str, int]]] = {}
    for s in samples:
        labels.setdefault(s.image, set()).add((s.split, s.label))
    twice = dict.fromkeys(image for (image, _), n in times.items() if n > 1)
    twice |= dict.fromkeys(image for image, found in labels.items() if len(found) > 1)
    if twice:
        at.problems.append(
            f"{path}: {counted(len(twice), 'picture is', 'pictures are')} listed twice (first: "
            f"{at.relative(next(iter(twice)))})"
        )
    for category in dict.fromkeys(s.category for s in samples):
        bad = [s for s in samples if s.category == category and s.label]
        bare = [s for s in bad if not s.mask]
        if bare and len(bare) < len(bad):
            at.problems.append(
                f"{path}: {len(bare)} of {counted(len(bad), 'anomalous picture')} of '{category}' "
                f"without a mask (first: {bare[0].uid})"
            )
    users: dict[str, str] = {}
    for sample in samples:
        mask = sample.mask
        if not mask or "://" in mask:
            continue
        if users.setdefault(mask, sample.image) != sample.image:
            at.problems.append(f"{path}: mask {os.path.basename(mask)} is used by two images")
        if mask in labels:
            at.problems.append(f"{path}: mask {at.relative(mask)} is listed as a picture, too")


def cut_lossy(sample: Sample) -> Sample:
    """The sample of a user's own list; masks that compression has changed are cut in the middle."""
    masks = (m for m in (sample.mask, *sample.extra_masks) if m and "://" not in m)
    return replace(sample, mask_threshold=LOSSY_CUT) if any(map(is_lossy, masks)) else sample


def without_validation(at: Indexing, samples: Sequence[tuple[Sample, bool]]) -> list[Sample]:
    """The samples, of which each is said to be of the validation part or not; that part is tested
    where its category has no other, and left out elsewhere, as in folders."""
    tested = {s.category for s, validation in samples if s.split == "test" and not validation}
    kept = []
    for sample, validation in samples:
        if validation and sample.category in tested:
            for file in (sample.image, *([sample.mask] if sample.mask else [])):
                at.by_rule[at.relative(file)] = VALIDATION_LEFT_OUT
        else:
            kept.append(sample)
    return kept


def strays_problem(account: Account) -> list[str]:
    """The problem that pictures have no role; none where all have one."""
    strays = account.without_role
    if not strays:
        return []
    return [
        f"{counted(len(strays), 'picture has', 'pictures have')} no role (first: "
        f"{strays[0].path}: {strays[0].reason}); list "
        "them, or leave them out with the option `ignore: [PATTERN]`"
    ]

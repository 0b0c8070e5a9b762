"""What lists of pictures share: recognising one in a folder, resolving its paths, its account."""

from __future__ import annotations

import csv
import fnmatch
import io
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from zsad.data.account import Account, Entry, Role
from zsad.data.definition import Layout
from zsad.data.indexers.base import Indexing, natural, posix
from zsad.data.indexers.left_out import left_out
from zsad.data.indexers.own_folder import tree
from zsad.errors import DataError, RequestError, counted
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
    if (home / "meta.json").is_file():
        return _meta_classes(home / "meta.json"), Layout("meta_json", looks="meta.json")
    found = [p for p in sorted(home.glob("*.json")) if _is_coco(p)]
    layouts = [([home.name], Layout("coco", {"annotations": p.name}, looks=p.name)) for p in found]
    for path in sorted([*home.glob("*.csv"), *home.glob("*.tsv")]):
        if (options := _columns(path)) is not None:
            layout = Layout("csv", {"file": path.name, **options}, looks=path.name)
            layouts.append((_table_categories(path, options) or [home.name], layout))
    if len(layouts) > 1:
        names = " and ".join(layout.looks for _, layout in layouts)
        raise RequestError(
            f"folder:{home}: {names} both list pictures; keep one there, or write a definition "
            "that names it (docs/add-a-dataset.md)"
        )
    return layouts[0] if layouts else None


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
    return sorted({str(name) for part in parts for name in part})


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
    and tab that the header has most of.  Raises ``ValueError``, ``OSError`` or ``csv.Error``.
    """
    content = path.read_bytes()
    wide = content[:2] in (b"\xff\xfe", b"\xfe\xff")
    text = content.decode("utf-16" if wide else "utf-8-sig")
    head = text.partition("\n")[0]
    mark = delimiter or max(",;\t", key=head.count)
    read = csv.reader(io.StringIO(text, newline=""), delimiter=mark)
    rows = [cells for row in read if any(cells := [cell.strip() for cell in row])]
    return (rows[0], rows[1:]) if rows else ([], [])


def _columns(path: Path) -> dict[str, str] | None:
    """Which columns of a table say what; None where it lists no pictures with labels."""
    try:
        header, _ = table(path)
    except (OSError, ValueError, csv.Error):
        return None
    by_name = {name.casefold(): name for name in header}
    found = {
        role: by_name[known[0]]
        for role, names in COLUMNS.items()
        if (known := [n for n in names if n in by_name])
    }
    return found if {"image", "label"} <= set(found) else None


def _table_categories(path: Path, options: Mapping[str, str]) -> list[str]:
    if "category" not in options:
        return []
    header, rows = table(path)
    at = header.index(options["category"])
    return sorted({row[at] for row in rows if at < len(row) and row[at]}, key=natural)


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
            for path in tree(self.root)[0]:
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
        path = os.path.relpath(s.image, root).replace(os.sep, "/")
        reason = ""
        if s.split == "train":
            role, reason = "training", "anomalous" if s.label else ""
        known.setdefault(path, (role, s.category, "", reason))
        for mask in [m for m in (s.mask, *s.extra_masks) if m and "://" not in m]:
            below = os.path.relpath(mask, root).replace(os.sep, "/")
            known.setdefault(below, ("mask", s.category, path, ""))
    files, _ = tree(root)
    entries = []
    for path in files:
        if path in known:
            found, category, of, why = known[path]
            entries.append(Entry(path, found, category, of, why))
            continue
        out = left_out(root, path, files, at.ignore_masks)
        if out is None and any(fnmatch.fnmatchcase(path, p) for p in ignore):
            out = "ignored by rule"
        role = "no role" if out is None else "left out"
        entries.append(Entry(path, role, reason=out or f"{name} does not list it"))
    return Account.of(root, entries)


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

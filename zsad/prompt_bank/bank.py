"""The bank of texts about categories: generated or curated once, committed, read here.  No torch.

One YAML file per kind and dataset, ``prompts_cache/<kind>/<dataset>.yaml``::

    kind: filo
    dataset: mvtec
    provenance: {source: paper, ...}       # where the texts come from: any mapping
    categories:
      bottle:
        class_name: bottle                 # the name that goes with these texts
        anomaly_types: [cracked large, ...]

Every key of a category but ``class_name`` is a list of texts.  What each kind must hold says the
method that brings it along: :mod:`zsad.prompt_bank.kinds`.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from zsad import config as cfg
from zsad import registry
from zsad.errors import DataError
from zsad.io.names import in_words
from zsad.prompt_bank.kinds import PromptKind, find_kind, kinds
from zsad.types import Category

GENERIC_ANOMALIES: tuple[str, ...] = (
    "scratch",
    "crack",
    "dent",
    "hole",
    "stain",
    "discoloration",
    "contamination",
    "deformation",
    "missing part",
    "foreign object",
)
"""Anomaly types for a category that no bank knows."""


def generation_command(kind: str, category: Category) -> str:
    """A command that has a language model write a category's texts, and makes them found."""
    known = category.dataset in registry.yaml_names("datasets")
    what = f"--datasets {category.dataset}"
    what = what if known else f"--class-name {shlex.quote(category.class_name)}"
    make = f"zsad prompts generate --kind {kind} {what} --yes --out my-prompts"
    return f"{make} && export ZSAD_PROMPTS=my-prompts"


def article(words: str) -> str:
    """Return "a" or "an" for what follows, by its first letter."""
    return "an" if words[:1].lower() in tuple("aeiou") else "a"


@dataclass(frozen=True)
class BankEntry:
    """The texts about one category.  ``digest`` hashes the texts and the class name.
    ``origin``: the file that they stand in, below ``prompts_cache`` or ``$ZSAD_PROMPTS``;
    ``since``: the version of zsad that it came with, "" for those of the first."""

    kind: str
    dataset: str
    category: str
    class_name: str
    provenance: Mapping[str, Any]
    texts: Mapping[str, list[str]]
    digest: str
    origin: str = ""
    since: str = ""


class PromptBank:
    """Entries by kind, dataset and category.  Files are read when a kind is first asked for."""

    def __init__(self, root: Any, overlay: Any = None) -> None:
        self._roots = [root] if overlay is None else [overlay, root]
        self._kinds: dict[str, dict[tuple[str, str], BankEntry]] = {}

    def entries(self, kind: str) -> list[BankEntry]:
        """All entries of a kind, by dataset and category.  Raises :class:`DataError`."""
        return list(self._load(kind).values())

    def find(self, kind: str, category: Category) -> BankEntry | None:
        """Return the entry of a category, or None.

        In this order: the category's own dataset and key; a category of that name in any
        dataset; an entry whose class name is the category's.  Underscores, spaces and case
        make no difference.
        """
        return find_entry(self._load(kind).values(), category)

    def _load(self, kind: str) -> dict[tuple[str, str], BankEntry]:
        if kind not in self._kinds:
            find_kind(kind)  # a misspelt one is an error, not an empty bank
            found: dict[tuple[str, str], BankEntry] = {}
            for root in self._roots:  # the overlay first: it wins, by dataset and by name
                folder = root / kind
                paths = sorted(folder.iterdir(), key=lambda p: p.name) if folder.is_dir() else []
                own = "$ZSAD_PROMPTS" if root is not self._roots[-1] else "prompts_cache"
                for path in (p for p in paths if p.name.endswith(".yaml")):
                    for e in read_entries(path, kind):
                        e = replace(e, origin=f"{own}/{kind}/{path.name}")
                        found.setdefault((e.dataset, e.category), e)
            self._kinds[kind] = found
        return self._kinds[kind]


def find_entry(entries: Iterable[BankEntry], category: Category) -> BankEntry | None:
    """Return the entry of a category among ``entries``; see :meth:`PromptBank.find`."""
    known = list(entries)
    for entry in known:
        if (entry.dataset, entry.category) == (category.dataset, category.key):
            return entry
    names = [in_words(category.key), in_words(category.class_name)]
    for attribute in ("category", "class_name"):
        for name in names:
            for entry in known:
                if in_words(getattr(entry, attribute)) == name:
                    return entry
    return None


def read_entries(path: Any, kind: str | None = None) -> list[BankEntry]:
    """Read one file of the bank.  Raises :class:`DataError` that names file, category and key."""
    raw = cfg.read_yaml(path)
    for key in ("kind", "dataset", "provenance", "categories"):
        if key not in raw:
            raise DataError(f"{path}: key '{key}' is missing")
    known = kinds()
    found = known.get(raw["kind"]) if isinstance(raw["kind"], str) else None
    if found is None or (kind is not None and found.name != kind):
        raise DataError(f"{path}: kind is {raw['kind']!r}, expected {kind or ', '.join(known)}")
    if not isinstance(raw["provenance"], Mapping) or not raw["provenance"]:
        raise DataError(f"{path}: 'provenance' must say where the texts come from")
    if not isinstance(raw["categories"], Mapping):
        raise DataError(f"{path}: 'categories' must map names to texts")
    return [_entry(path, found, raw, str(name), value) for name, value in raw["categories"].items()]


def _entry(path: Any, kind: PromptKind, raw: Mapping[str, Any], name: str, value: Any) -> BankEntry:
    where = f"{path}: categories.{name}"
    if not isinstance(value, Mapping):
        raise DataError(f"{where} must be a mapping with class_name and lists of texts")
    texts: dict[str, list[str]] = {}
    for key, items in value.items():
        if key == "class_name":
            continue
        if not isinstance(items, list) or not items or not all(isinstance(t, str) for t in items):
            raise DataError(
                f"{where}.{key} must be a list of texts (quote what YAML reads otherwise)"
            )
        if any(not t.strip() for t in items):
            raise DataError(f"{where}.{key} holds an empty text")
        texts[str(key)] = list(items)
    missing = [k for k in kind.required if k not in texts]
    if missing:
        raise DataError(f"{where}: the list '{missing[0]}' is missing")
    class_name = str(value.get("class_name", name.replace("_", " ")))
    return BankEntry(
        kind=kind.name,
        dataset=str(raw["dataset"]),
        category=name,
        class_name=class_name,
        provenance=dict(raw["provenance"]),
        texts=texts,
        digest=cfg.digest({"class_name": class_name, "texts": texts}),
        since=str(raw.get("since", "")),
    )


def generic_entry(
    kind: str, category: Category, keys: Iterable[str] = ("anomaly_types",)
) -> BankEntry:
    """Return an entry of :data:`GENERIC_ANOMALIES` for a category that no bank knows."""
    texts = {key: list(GENERIC_ANOMALIES) for key in keys}
    return BankEntry(
        kind=kind,
        dataset="",
        category=category.key,
        class_name=category.class_name,
        provenance={"source": "generic list", "note": "no bank knows this category"},
        texts=texts,
        digest=cfg.digest({"class_name": category.class_name, "texts": texts}),
    )


@cache
def bank(root: Path | str | None = None) -> PromptBank:
    """Return the bundled bank, or one in the folder ``root``.

    Entries in the folder ``$ZSAD_PROMPTS`` (see ``zsad prompts generate``) take the place of
    bundled ones; the variable is read once.
    """
    if root is not None:
        return PromptBank(Path(root))
    own = os.environ.get("ZSAD_PROMPTS")
    return PromptBank(files("zsad.prompts_cache"), Path(own) if own else None)

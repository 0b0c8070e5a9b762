"""What a results folder holds, column by column, and how to take something out of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

from zsad.config import digest
from zsad.errors import RequestError, nearest
from zsad.results import examples, identity
from zsad.results.identity import Configuration, Files
from zsad.results.store import ResultStore, StoredCell, key_of


@dataclass(frozen=True)
class Holding:
    """All records of one configuration on the same files of one dataset.

    ``name``: short, the same in every call for the same content; ``title``: of the method with
    its configuration.  ``cells``: the records, newest first.
    """

    name: str
    title: str
    backbone: str
    configuration: Configuration
    files: Files
    cells: tuple[StoredCell, ...]

    @property
    def dataset(self) -> str:
        """The dataset's name."""
        return self.files.dataset

    @property
    def read(self) -> str:
        """The dataset's name, and what `data.folder.*` said of a folder."""
        return f"{self.dataset} [{self.files.said}]" if self.files.said else self.dataset

    @property
    def aside(self) -> int:
        """How many of the records a later run of the same cell has set aside."""
        return sum(not cell.current for cell in self.cells)

    @property
    def images(self) -> int:
        """How many images are behind the records, each category counted once."""
        found = {c.record.category: c.record.n_normal + c.record.n_anomalous for c in self.cells}
        return sum(found.values())

    def describe(self) -> dict[str, Any]:
        """A JSON-ready account of it."""
        return {
            "id": self.name,
            "method": self.configuration.method,
            "title": self.title,
            "overrides": dict(self.configuration.overrides),
            "settings": {k: v for k, v in self.configuration.settings if v},
            "dataset": self.dataset,
            "variant": self.files.variant,
            "read": self.files.said,
            "files": self.files.fingerprint,
            "backbone": self.backbone,
            "categories": sorted({c.record.category for c in self.cells}),
            "seeds": sorted({c.record.seed for c in self.cells}),
            "images": self.images,
            "records": len(self.cells),
            "set_aside": self.aside,
            "written": max(c.written for c in self.cells),
        }


def holdings(store: ResultStore) -> list[Holding]:
    """Everything that the folder holds, by backbone, method and dataset."""
    groups: dict[tuple[tuple[str, str], Configuration, Files], list[StoredCell]] = {}
    for cell in store.cells():
        record = cell.record
        place = (
            identity.backbone_of(record),
            identity.of_record(record),
            identity.files_of(record),
        )
        groups.setdefault(place, []).append(cell)
    siblings: dict[str, dict[Configuration, None]] = {}
    for _, one, _ in groups:
        siblings.setdefault(one.method, {})[one] = None
    suffixes = {
        one: heading.suffix
        for members in siblings.values()
        for one, heading in zip(members, identity.headings(list(members)))
    }
    names = [name for name, _ in dict.fromkeys(backbone for backbone, _, _ in groups)]
    made = []
    for (backbone, one, files), cells in groups.items():
        cells.sort(key=lambda c: -c.written)
        title = str(cells[0].record.info.get("title") or one.method)
        name = digest([backbone, astuple(one), files], 8)
        # Other weights under one name are told apart as the boards of tables are.
        of = "-".join(filter(None, backbone)) if names.count(backbone[0]) > 1 else backbone[0]
        made.append(Holding(name, f"{title}{suffixes[one]}", of, one, files, tuple(cells)))
    return sorted(made, key=lambda h: (h.backbone, h.configuration.method, h.dataset, h.title))


def chosen(found: Sequence[Holding], names: Sequence[str]) -> list[Holding]:
    """The holdings of these ids.  Raises :class:`RequestError` for one that is not there."""
    by_name = {holding.name: holding for holding in found}
    for name in names:
        if name not in by_name:
            raise RequestError(
                f"no results with the id '{name}'{nearest(name, by_name)}; `zsad results list` "
                "prints the ids"
            )
    return [by_name[name] for name in dict.fromkeys(names)]


def remove(store: ResultStore, holding: Holding) -> int:
    """Delete the records of a holding with all that belongs to them; return how many there were.

    Checkpoints stay: other records may rest on them.
    """
    for cell in holding.cells:
        examples.remove(store.root, key_of(cell.record))
        store.remove(cell)
    return len(holding.cells)

"""Sorts stored records into boards: one per backbone, never mixed.

A column is a method and its configuration (:mod:`zsad.results.identity`): every record of the
store has a place, those that a later run set aside as well.  Where a dataset's files differ between
runs, each state of them is a row.  Of records that are told apart by neither (the same cell
computed again after a text or a training set changed) the newest stands, and a note counts the
others.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from zsad.backbones.known_weights import UNKNOWN
from zsad.errors import ZsadError
from zsad.protocols import load_protocol
from zsad.results import identity
from zsad.results import weights as weights_said
from zsad.results.identity import Configuration
from zsad.results.records import CellRecord
from zsad.results.store import StoredCell

Cells = dict[tuple[str, int], CellRecord]  # by (category, seed)

GROUP_ORDER = {"baselines": 0, "papers": 1}


@dataclass(frozen=True)
class MatrixColumn:
    """A method (or one row of a protocol) under one configuration, as a column.

    ``label``: unique on a board, the stored name for the plainest configuration of a method;
    ``title``: as printed, unique, too; ``plain``: the method's title without configuration;
    ``overrides``: all overridden keys in words.  ``markers``: footnote signs; ``ablation``: a row
    that is compared with the other rows of its ``protocol`` only.
    """

    label: str
    title: str
    group: str
    configuration: Configuration
    plain: str = ""
    overrides: str = ""
    markers: str = ""
    ablation: bool = False
    protocol: str = ""

    @property
    def head(self) -> str:
        """The column's heading."""
        return f"{self.title}{self.markers}"

    @property
    def comparable(self) -> bool:
        """Whether it competes for best and second: zero-shot, trained as it should be."""
        return not self.markers


@dataclass(frozen=True)
class DatasetRow:
    """A dataset as a row.

    ``name``: unique on a board, that of the ``dataset`` for the newest state of its files (the
    one that means are made of, ``newest``).  ``categories``: those with a record; ``of``: how many
    the dataset has, 0 where that is not known.
    """

    name: str
    title: str
    domain: str
    order: int
    categories: tuple[str, ...]
    dataset: str = ""
    of: int = 0
    newest: bool = True

    @property
    def whole(self) -> bool:
        """Whether no category of the dataset is without a record."""
        return len(self.categories) >= self.of

    @property
    def size(self) -> str:
        """The number of categories: "15", or "3 of 15"."""
        own = len(self.categories)
        return str(own) if self.whole else f"{own} of {self.of}"


@dataclass
class Board:
    """All records of one backbone that tables are made of.

    ``cells`` by (column, row); ``left_out``: how many earlier records of the same cells and the
    same configuration stand behind none.
    """

    backbone: str
    weights: str
    banner: str
    columns: list[MatrixColumn]
    rows: list[DatasetRow]
    cells: dict[tuple[str, str], Cells]
    left_out: dict[tuple[str, str], int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """A short name, fit for a folder."""
        return self.backbone if not self.weights else f"{self.backbone}-{self.weights}"

    @property
    def heading(self) -> str:
        """The name as headings have it, which says of weights that they are unknown."""
        return f"{self.name} [{UNKNOWN}]" if UNKNOWN in self.banner else self.name

    def of(self, column: str, dataset: str) -> Cells:
        """Records of a column on a row, by (category, seed)."""
        return self.cells.get((column, dataset), {})


def boards(stored: Iterable[StoredCell]) -> list[Board]:
    """One board per backbone and weights, real backbones first.

    What was imported stands on every board that has its dataset, or on a board of its own.
    """
    by_backbone: dict[tuple[str, str], list[StoredCell]] = defaultdict(list)
    for cell in stored:
        by_backbone[identity.backbone_of(cell.record)].append(cell)
    alone = []
    for cell in by_backbone.pop((identity.IMPORTED, ""), []):
        beside = [
            cells
            for cells in by_backbone.values()
            if any(c.record.dataset == cell.record.dataset for c in cells)
        ]
        for cells in beside:
            cells.append(cell)
        alone += [] if beside else [cell]
    if alone:
        by_backbone[identity.IMPORTED, ""] = alone
    names = [name for name, _ in by_backbone]
    made = [
        _board(name, weights if names.count(name) > 1 else "", cells)
        for (name, weights), cells in by_backbone.items()
    ]
    return sorted(made, key=lambda b: (bool(b.banner), b.name))


def parted(board: Board) -> tuple[Board, Board]:
    """The board without the rows of ablations, and with these only."""
    ablations = {c.label for c in board.columns if c.ablation}
    others = {c.label for c in board.columns} - ablations
    return _restricted(board, others), _restricted(board, ablations)


def _restricted(board: Board, labels: set[str]) -> Board:
    """The board with these columns, and the datasets that they were measured on."""
    cells = {key: found for key, found in board.cells.items() if key[0] in labels}
    datasets = {dataset for _, dataset in cells}
    return replace(
        board,
        columns=[c for c in board.columns if c.label in labels],
        rows=[r for r in board.rows if r.name in datasets],
        cells=cells,
        left_out={what: n for what, n in board.left_out.items() if what[0] in labels},
    )


def trained_on_of(record: CellRecord) -> str:
    """The auxiliary dataset of a trained method, and how that is known, "" for none."""
    found = record.info.get("trained_on")
    if not isinstance(found, Mapping):
        return str(found or "")
    name = str(found.get("dataset") or found.get("name") or "")
    if name == "as released":
        return "what its authors' file does not say"
    file = found.get("recognised") or found.get("known_as")
    said = [f"recognised as {file}"] if file else []
    if found.get("said_by"):
        said.append(f"as {found['said_by']} says")
    if name and "by name only" in str(found.get("leaks") or ""):
        said.append("targets compared by name only")
    if given := identity.given_file(found):
        said.append(f"checkpoint {given}")
    return f"{name} [{', '.join(said)}]" if said else name


def _board(name: str, weights: str, stored: list[StoredCell]) -> Board:
    found = [(cell, identity.of_record(cell.record)) for cell in stored]
    columns = _columns(found)
    rows = _rows(stored)
    cells: dict[tuple[str, str], Cells] = defaultdict(dict)
    left_out: dict[tuple[str, str], int] = defaultdict(int)
    for cell, configuration in sorted(found, key=lambda pair: pair[0].written):
        record = cell.record
        place = columns[configuration].label, rows[identity.files_of(record)].name
        held = cells[place]
        # Sorted by time: the newest of a cell comes last and stays.
        left_out[place] += (record.category, record.seed) in held
        held[record.category, record.seed] = record
    banners = {weights_said.banner_of(c.record.info) for c in stored}
    return Board(
        name,
        weights,
        max(banners),
        list(dict.fromkeys(columns.values())),
        sorted(rows.values(), key=lambda r: (r.order, r.dataset, not r.newest, r.name)),
        {place: dict(sorted(held.items())) for place, held in cells.items()},
        {place: n for place, n in left_out.items() if n},
    )


def _columns(
    found: Sequence[tuple[StoredCell, Configuration]],
) -> dict[Configuration, MatrixColumn]:
    """The columns in their order: by group and method, the plainest configuration first."""
    newest: dict[Configuration, StoredCell] = {}
    for cell, configuration in found:
        held = newest.get(configuration)
        if held is None or held.written <= cell.written:
            newest[configuration] = cell
    measured: dict[Configuration, set[str]] = defaultdict(set)
    for cell, configuration in found:
        measured[configuration].add(cell.record.dataset)
    methods: dict[str, list[Configuration]] = defaultdict(list)
    for configuration in newest:
        methods[configuration.method].append(configuration)
    made: list[tuple[tuple[Any, ...], tuple[Configuration, ...], MatrixColumn]] = []
    for method, members in methods.items():
        members.sort(key=lambda c: (identity.plain_first(c), -newest[c].written))
        joined = _joined(members, measured)
        siblings = [identity.merged(parts) for parts in joined]
        for place, heading in enumerate(identity.headings(siblings)):
            one, parts = siblings[place], joined[place]
            record = newest[parts[0]].record
            column = MatrixColumn(
                method if place == 0 else f"{method} [{heading.key or place + 1}]",
                f"{record.info.get('title') or method}{heading.suffix}",
                str(record.info.get("group") or ""),
                one,
                str(record.info.get("title") or method),
                heading.overrides,
                _markers(record),
                _ablation(record),
                str(record.info.get("protocol") or ""),
            )
            order = (GROUP_ORDER.get(column.group, 2), column.group, method, place)
            made.append((order, tuple(parts), column))
    made.sort(key=lambda entry: entry[0])
    shared = Counter(_place(column) for *_, column in made)
    return {
        part: _told_apart(column) if shared[_place(column)] > 1 else column
        for _, parts, column in made
        for part in parts
    }


def _place(column: MatrixColumn) -> tuple[str, str]:
    """A column's title, and the page on which it is to be the only one of that title."""
    return column.title, column.protocol if column.ablation else ""


def _told_apart(column: MatrixColumn) -> MatrixColumn:
    """The column of a method of which another one has the title, with its name in it."""
    return replace(column, title=f"{column.title} ({column.configuration.method})")


def _joined(
    members: Sequence[Configuration], measured: Mapping[Configuration, set[str]]
) -> list[list[Configuration]]:
    """The members by column: those of one config whose runs differ in a setting (a limit, a
    precision) share one, unless a dataset was measured under both.  What is not trained shares none
    with what is."""
    columns: list[list[Configuration]] = []
    for one in members:
        for column in columns:
            taken = set().union(*(measured[other] for other in column))
            alike = column[0].same_method == one.same_method
            if alike and column[0].untrained == one.untrained and not taken & measured[one]:
                column.append(one)
                break
        else:
            columns.append([one])
    return columns


def _markers(record: CellRecord) -> str:
    info = record.info
    markers = "†" * bool(info.get("untrained")) + "‡" * bool(info.get("transductive"))
    return markers + "§" * bool(int(info.get("shots") or 0))


def _ablation(record: CellRecord) -> bool:
    """Whether a record belongs to a row of an ablation protocol."""
    if "@" not in record.method:
        return False
    try:
        return load_protocol(str(record.info.get("protocol") or "")).ablation
    except ZsadError:  # somebody's own protocol file that is no longer there
        return False


def _rows(stored: Sequence[StoredCell]) -> dict[identity.Files, DatasetRow]:
    """A row per state of a dataset's files; the newest one has the dataset's name."""
    written: dict[identity.Files, float] = {}
    categories: dict[identity.Files, set[str]] = defaultdict(set)
    for cell in stored:
        files = identity.files_of(cell.record)
        written[files] = max(written.get(files, 0.0), cell.written)
        categories[files].add(cell.record.category)
    made = {}
    for files in written:
        states = [f for f in written if f.dataset == files.dataset]
        newest = max(states, key=lambda f: written[f])
        row = _row(files.dataset, sorted(categories[files]))
        if len(states) > 1:
            words = [files.variant] if len({f.variant for f in states}) > 1 else []
            if len({f.said for f in states}) > 1:
                words.append(files.said or "as the folder says")
            alike = [f for f in states if (f.variant, f.said) == (files.variant, files.said)]
            if len(alike) > 1:
                words.append(f"files {files.fingerprint[:8] or 'unknown'}")
            name = row.name if files == newest else f"{row.name} [{', '.join(words)}]"
            title = f"{row.title} [{', '.join(words)}]"
            row = replace(row, name=name, title=title, newest=files == newest)
        made[files] = row
    names = {(row.title, row.dataset) for row in made.values()}
    shared = Counter(title for title, _ in names)
    return {
        files: replace(row, title=f"{row.title} ({row.dataset})") if shared[row.title] > 1 else row
        for files, row in made.items()
    }


def _row(name: str, categories: list[str]) -> DatasetRow:
    from zsad.data.catalog import load_spec

    try:
        spec = load_spec(name)
    except ZsadError:  # somebody's own dataset: the store knows its name only
        return DatasetRow(name, name, "", 10_000, tuple(categories), name)
    order = {c: i for i, c in enumerate(spec.categories)}
    ordered = sorted(categories, key=lambda c: (order.get(c, len(order)), c))
    own = sum(c.group == "test" for c in spec.categories.values())  # those that are evaluated
    return DatasetRow(name, spec.title, spec.domain, spec.order, tuple(ordered), name, own)

"""Sorts stored records into boards: one per backbone, never mixed.

Within a board a method is compared on one set of settings.  Where the store holds several (a
run with ``--limit``, then one without), the settings of the newest record win and the records
of the others are counted in a note.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from zsad.config import digest
from zsad.errors import ZsadError
from zsad.protocols import load_protocol
from zsad.results.records import CellRecord
from zsad.results.store import StoredCell

Cells = dict[tuple[str, int], CellRecord]  # by (category, seed)

# What must be equal among the records behind one mean.
SETTINGS = (
    *("image_size", "pos_interp", "activation", "precision", "limit", "variant"),
    *("dataset_fingerprint", "mask_resize", "metrics", "preset", "config", "untrained", "shots"),
)
GROUP_ORDER = {"baselines": 0, "papers": 1}


@dataclass(frozen=True)
class MatrixColumn:
    """A method (or one row of a protocol) as a column.  ``markers``: footnote signs;
    ``ablation``: a row that is compared with the other rows of its protocol only."""

    label: str
    title: str
    group: str
    markers: str = ""
    ablation: bool = False

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
    """A dataset as a row."""

    name: str
    title: str
    domain: str
    order: int
    categories: tuple[str, ...]


@dataclass
class Board:
    """All records of one backbone that tables are made of.  ``cells`` by (column, dataset)."""

    backbone: str
    weights: str
    banner: str
    columns: list[MatrixColumn]
    rows: list[DatasetRow]
    cells: dict[tuple[str, str], Cells]
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """A short name, fit for a folder."""
        return self.backbone if not self.weights else f"{self.backbone}-{self.weights}"

    def of(self, column: str, dataset: str) -> Cells:
        """Records of a column on a dataset, by (category, seed)."""
        return self.cells.get((column, dataset), {})


def boards(stored: Iterable[StoredCell]) -> list[Board]:
    """One board per backbone and weights, real backbones first."""
    by_backbone: dict[tuple[str, str], list[StoredCell]] = defaultdict(list)
    for cell in stored:
        by_backbone[backbone_of(cell.record)].append(cell)
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
        left_out={what: n for what, n in board.left_out.items() if what.split(" on ")[0] in labels},
    )


def backbone_of(record: CellRecord) -> tuple[str, str]:
    """What records must share to stand in one table: backbone and (short) weight hash."""
    info = record.info
    name = str(info.get("backbone") or "unknown backbone")
    if info.get("weights_source") == "random":
        return f"{name}-random", ""
    return name, str(info.get("weights_sha256") or "")[:8]


def setting_of(record: CellRecord) -> str:
    """A digest of everything that must be equal among the records behind one mean."""
    trained_on = trained_on_of(record)
    revision = record.info.get("revision") or 1  # records of the first one may not name it
    return digest([[record.info.get(k) for k in SETTINGS], trained_on, revision])


def trained_on_of(record: CellRecord) -> str:
    """The auxiliary dataset of a trained method, "" for none."""
    found = record.info.get("trained_on")
    if isinstance(found, Mapping):
        found = found.get("dataset") or found.get("name")
    return str(found or "")


def _board(name: str, weights: str, stored: list[StoredCell]) -> Board:
    groups: dict[tuple[str, str], list[StoredCell]] = defaultdict(list)
    for cell in stored:
        groups[cell.record.method, cell.record.dataset].append(cell)
    cells: dict[tuple[str, str], Cells] = {}
    left_out: dict[str, int] = {}
    latest: dict[str, tuple[float, CellRecord]] = {}
    for (method, dataset), members in groups.items():
        members.sort(key=lambda c: c.written)
        setting = setting_of(members[-1].record)
        chosen = [c for c in members if setting_of(c.record) == setting]
        # Sorted by time: the newest of a cell comes last and stays.
        kept = {(c.record.category, c.record.seed): c.record for c in chosen}
        cells[method, dataset] = dict(sorted(kept.items()))
        others = sum(c.current and setting_of(c.record) != setting for c in members)
        if others:
            left_out[f"{method} on {dataset}"] = others
        time, record = members[-1].written, members[-1].record
        if method not in latest or latest[method][0] < time:
            latest[method] = (time, record)
    columns = [_column(record) for _, record in latest.values()]
    columns.sort(key=lambda c: (GROUP_ORDER.get(c.group, 2), c.group, c.label))
    datasets = {dataset for _, dataset in cells}
    rows = [
        _row(d, sorted({c for (_, on), found in cells.items() if on == d for c, _ in found}))
        for d in datasets
    ]
    banners = {str(c.record.info.get("banner") or "") for c in stored}
    return Board(
        name,
        weights,
        max(banners),
        columns,
        sorted(rows, key=lambda r: (r.order, r.name)),
        cells,
        left_out,
    )


def _column(record: CellRecord) -> MatrixColumn:
    info = record.info
    title = str(info.get("title") or record.method)
    preset = str(info.get("preset") or "default")
    if preset != "default":
        title += f" ({info.get('preset_title') or preset})"
    if shots := int(info.get("shots") or 0):
        title += f", {shots}-shot"
    markers = "†" * bool(info.get("untrained")) + "‡" * bool(info.get("transductive"))
    markers += "§" * bool(shots)
    return MatrixColumn(
        record.method, title, str(info.get("group") or ""), markers, _ablation(record)
    )


def _ablation(record: CellRecord) -> bool:
    """Whether a record belongs to a row of an ablation protocol."""
    if "@" not in record.method:
        return False
    try:
        return load_protocol(str(record.info.get("protocol") or "")).ablation
    except ZsadError:  # somebody's own protocol file that is no longer there
        return False


def _row(name: str, categories: list[str]) -> DatasetRow:
    from zsad.data.catalog import load_spec

    try:
        spec = load_spec(name)
    except ZsadError:  # somebody's own dataset: the store knows its name only
        return DatasetRow(name, name, "", 10_000, tuple(categories))
    order = {c: i for i, c in enumerate(spec.categories)}
    ordered = sorted(categories, key=lambda c: (order.get(c, len(order)), c))
    return DatasetRow(name, spec.title, spec.domain, spec.order, tuple(ordered))


def settings_by_column(board: Board, key: str) -> dict[str, set[Any]]:
    """The values of one setting (an ``info`` key) by column title, over all datasets."""
    found: dict[str, set[Any]] = {}
    for column in board.columns:
        records = [
            r
            for (label, _), cells in board.cells.items()
            if label == column.label
            for r in cells.values()
        ]
        values = {v for r in records if (v := r.info.get(key)) is not None}
        if values:
            found[column.title] = values
    return found

"""Footnotes on what holds for single datasets: what is not looked at, how far AUPRO goes, and what
their publishers measure and zsad does not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from zsad.data.catalog import list_specs, load_spec
from zsad.data.index import PREPARED_VARIANT
from zsad.metrics.spec import METRICS
from zsad.results.identity import Files, files_of, limit_of
from zsad.results.records import CellRecord
from zsad.tables.results_matrix import Board


def dataset_notes(board: Board) -> list[str]:
    """What was not looked at of each dataset and which columns' image scores see it anyway, and
    what its figures are and are not."""
    return [*_read_otherwise(board), *_ignored(board), *_said_of_figures(board)]


def _read_otherwise(board: Board) -> list[str]:
    """Which datasets are read in another way than unless a user says so: a variant, or what
    `data.folder.*` says of a folder.  A row that others of its dataset stand beside says it."""
    out: dict[str, None] = {}
    labels = {c.label for c in board.columns}
    for row in board.rows:
        for (label, name), cells in board.cells.items():
            for record in cells.values() if label in labels and name == row.name else ():
                files = files_of(record)
                words = [f"variant {files.variant}"] if _other_variant(files) else []
                words += [f"read with {files.said}"] if files.said else []
                if words:
                    out[f"{row.title}: {', '.join(words)}."] = None
    return list(out)


def _other_variant(files: Files) -> bool:
    return (
        bool(files.variant)
        and files.dataset in list_specs()
        and files.variant not in (load_spec(files.dataset).default_variant, PREPARED_VARIANT)
    )


def _ignored(board: Board) -> list[str]:
    titles = {c.label: c.title for c in board.columns}
    seeing: dict[tuple[str, str], dict[str, None]] = {}
    for (label, _), cells in board.cells.items():
        for record in cells.values() if label in titles else ():
            if text := record.info.get("ignore"):
                found = seeing.setdefault((record.dataset, text), {})
                if record.info.get("score_sees_ignored"):
                    found[titles[label]] = None
    return [
        f"{dataset}: ignore {text}: left out of maps and pixel figures"
        + (f"; the image scores of {', '.join(columns)} still see it." if columns else ".")
        for (dataset, text), columns in seeing.items()
    ]


def _said_of_figures(board: Board) -> list[str]:
    labels = {c.label for c in board.columns}
    said: dict[str, None] = {}
    for row in board.rows:
        for (label, name), cells in board.cells.items():
            for record in cells.values() if label in labels and name == row.name else ():
                notes = record.info.get("figure_notes", ())
                said.update(dict.fromkeys(f"{row.title}: {text}." for text in notes))
    return list(said)


# --------------------------------------------------------------------------- the limit of AUPRO
def limit_note(board: Board) -> str:
    """How far AUPRO goes, in words; "" where no record says it.  What differs between datasets or
    between columns is named."""
    found: dict[tuple[str, str], set[float]] = {}  # (column, dataset) -> limits
    for column in board.columns:
        for row in board.rows:
            held = [r for r in board.of(column.label, row.name).values() if r.info.get("metrics")]
            if held:
                found[column.title, row.title] = set(map(limit_of, held))
    if not found:
        return ""
    usual, _ = Counter(tuple(sorted(limits)) for limits in found.values()).most_common(1)[0]
    others: dict[str, dict[str, None]] = {}
    for (column_title, row_title), limits in found.items():
        if tuple(sorted(limits)) != usual:
            everywhere = all(
                _shown(limits) == _shown(found[c, row_title]) for c, r in found if r == row_title
            )
            where = row_title if everywhere else f"{column_title} on {row_title}"
            others.setdefault(_shown(limits), {})[where] = None
    text = f"AUPRO up to a false positive rate of {_shown(usual)}"
    parts = [f"{value} of {', '.join(where)}" for value, where in others.items()]
    return f"{text}, and of {'; '.join(parts)}: no mean over datasets mixes them" if parts else text


def _shown(limits: set[float] | tuple[float, ...]) -> str:
    return " or ".join(f"{value:g}" for value in sorted(limits))


def other_limit(metric: str, cells: Sequence[Mapping[tuple[str, int], CellRecord]]) -> list[bool]:
    """Of each dataset's records of one column, whether ``metric`` goes to another false positive
    rate there than on most datasets, so that no mean may mix them."""
    if "fpr_limit" not in METRICS[metric].arguments:
        return [False] * len(cells)
    limits = [tuple(sorted({limit_of(record) for record in held.values()})) for held in cells]
    counted = Counter(found for found in limits if found)
    most = max(counted, key=lambda found: (counted[found], found), default=())
    return [bool(found) and found != most for found in limits]

"""The few-shot layout: numbers of shots and methods as rows, datasets as columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from zsad.results.store import StoredCell, safe_name
from zsad.tables.by_dataset import banner, conditions, not_computed
from zsad.tables.lines import Entry, tables_of
from zsad.tables.model import Page
from zsad.tables.results_matrix import GROUP_ORDER, Board, Cells, backbone_of, setting_of


def few_shot_page(
    board: Board, stored: Iterable[StoredCell], published: bool = False
) -> Page | None:
    """Numbers of shots and methods by datasets; None unless records of several numbers exist.

    The layout of ALFA's Tables 4 and 5: mean ± standard deviation over seeds, image level and
    pixel level; for every number of shots the baselines first.
    """
    groups: dict[tuple[int, str, str], list[StoredCell]] = {}
    titles: dict[str, tuple[int, str]] = {}
    for cell in stored:
        record = cell.record
        if not _on(board, cell):
            continue
        method = record.method.partition("@")[0]
        shots = int(record.info.get("shots") or 0)
        title = str(record.info.get("title") or method).split(":")[0]
        titles[method] = (GROUP_ORDER.get(str(record.info.get("group")), 2), title)
        if shots or "@" not in record.method:
            groups.setdefault((shots, method, record.dataset), []).append(cell)
    able = {method for shots, method, _ in groups if shots}
    found = {(s, m) for s, m, _ in groups if m in able}
    if len({shots for shots, _ in found}) < 2:
        return None
    entries: dict[Entry, list[Cells]] = {}
    for shots, method in sorted(found, key=lambda line: (line[0], titles[line[1]])):
        name = f"{method}@{shots}-shot" if shots and published else ""
        setup = f"{shots}-shot"
        entries[Entry(setup, titles[method][1], setup, name)] = [
            _newest(groups.get((shots, method, row.name), ())) for row in board.rows
        ]
    title = f"Few-shot anomaly detection, backbone {board.name}"
    seeds = sorted({c.record.seed for members in groups.values() for c in members})
    labels = {cell.record.method for members in groups.values() for cell in members}
    used = replace(board, columns=[c for c in board.columns if c.label in labels])
    notes = [
        *banner(board),
        f"Figures in percent; mean ± standard deviation over the seeds {', '.join(map(str, seeds))}"
        "; best bold, second underlined, for each number of shots; – undefined.",
        *not_computed(used),
        *conditions(used),
    ]
    notes += ["Lines marked (published) are printed in the papers."] if published else []
    tables = tables_of(board, "few-shot", ("setup", "method"), entries)
    return Page(f"{safe_name(board.name)}/few-shot", title, tuple(tables), tuple(notes))


def _on(board: Board, cell: StoredCell) -> bool:
    name, weights = backbone_of(cell.record)
    return name == board.backbone and board.weights in ("", weights)


def _newest(stored: Sequence[StoredCell]) -> Cells:
    """The records that share the newest record's settings, by (category, seed)."""
    if not stored:
        return {}
    ordered = sorted(stored, key=lambda c: c.written)
    setting = setting_of(ordered[-1].record)
    kept = [c.record for c in ordered if setting_of(c.record) == setting]
    return {(r.category, r.seed): r for r in kept}

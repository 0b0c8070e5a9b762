"""Two further layouts: few-shot (shots as rows) and ablations (rows of a protocol)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from zsad.errors import ZsadError
from zsad.protocols import load_protocol
from zsad.published import MEAN, Published
from zsad.store import StoredCell, safe_name
from zsad.tables.board import Board, Cells, Row, backbone_of, setting_of
from zsad.tables.figures import Figure, over_categories
from zsad.tables.model import Line, Page, Span, Table

LEVELS = (
    ("image", "Image level", ("image_auroc", "image_ap", "image_f1max")),
    ("pixel", "Pixel level", ("pixel_auroc", "pixel_aupro", "pixel_f1max")),
)
HEADS = {"auroc": "AUROC", "ap": "AP", "f1max": "F1-max", "aupro": "AUPRO"}
Key = tuple[str, str]  # (label of the line, dataset)


def few_shot_page(
    board: Board, stored: Iterable[StoredCell], published: bool = False
) -> Page | None:
    """Shots and methods by datasets; None unless records of several numbers of shots exist.

    The layout of ALFA's Tables 4 and 5: mean ± standard deviation over seeds.
    """
    groups: dict[tuple[int, str, str], list[StoredCell]] = {}
    titles: dict[str, str] = {}
    for cell in stored:
        record = cell.record
        if not _on(board, cell):
            continue
        method = record.method.partition("@")[0]
        shots = int(record.info.get("shots") or 0)
        titles[method] = str(record.info.get("title") or method).split(":")[0]
        if shots or "@" not in record.method:
            groups.setdefault((shots, method, record.dataset), []).append(cell)
    able = {method for shots, method, _ in groups if shots}
    lines = sorted({(s, m) for s, m, _ in groups if m in able})
    if len({shots for shots, _ in lines}) < 2:
        return None
    cells = {(f"{s}-shot, {titles[m]}", d): _newest(found) for (s, m, d), found in groups.items()}
    labels = [f"{s}-shot, {titles[m]}" for s, m in lines]
    printed = {f"{s}-shot, {titles[m]}": f"{m}@{s}-shot" for s, m in lines if s}
    tables = _tables(
        board, "few-shot", "shots, method", labels, cells, printed if published else {}
    )
    title = f"Few-shot anomaly detection, backbone {board.name}"
    notes = ["Figures in percent; mean ± standard deviation over seeds; – undefined."]
    notes += ["Lines marked (published) are printed in the papers."] if published else []
    return Page(f"{safe_name(board.name)}/few-shot", title, tuple(tables), tuple(notes))


def ablation_pages(board: Board, published: bool = False) -> list[Page]:
    """One page per protocol that has rows, its rows in their order by datasets."""
    protocols: dict[str, dict[str, str]] = {}
    for (label, _), members in board.cells.items():
        record = next(iter(members.values()))
        if "@" in label:
            title = str(record.info.get("title") or label)
            protocols.setdefault(str(record.info.get("protocol") or "rows"), {})[label] = title
    pages = []
    for protocol, titles in sorted(protocols.items()):
        order = _row_order(protocol)
        labels = sorted(titles, key=lambda m: (order.get(m, len(order)), m))
        cells = {(titles[m], row.name): board.of(m, row.name) for m in labels for row in board.rows}
        printed = {titles[m]: m for m in labels} if published else {}
        lines = [titles[m] for m in labels]
        tables = _tables(board, "ablation", "row", lines, cells, printed)
        title = f"Ablation {protocol}, backbone {board.name}"
        name = f"{safe_name(board.name)}/ablation-{safe_name(protocol)}"
        notes = ("Figures in percent, in the order of the protocol; – undefined.",)
        pages.append(Page(name, title, tuple(tables), notes))
    return pages


def _row_order(protocol: str) -> dict[str, int]:
    try:
        rows = load_protocol(protocol).rows
    except ZsadError:  # a protocol file that is no longer there
        return {}
    return {f"{row.method}@{row.slug}": i for i, row in enumerate(rows)}


def _on(board: Board, cell: StoredCell) -> bool:
    name, weights = backbone_of(cell.record)
    return name == board.backbone and board.weights in ("", weights)


def _newest(stored: Sequence[StoredCell]) -> Cells:
    """The records that share the newest record's settings, by (category, seed)."""
    ordered = sorted(stored, key=lambda c: c.written)
    setting = setting_of(ordered[-1].record)
    kept = [c.record for c in ordered if setting_of(c.record) == setting]
    return {(r.category, r.seed): r for r in kept}


def _tables(
    board: Board,
    name: str,
    corner: str,
    labels: Sequence[str],
    cells: Mapping[Key, Cells],
    printed: Mapping[str, str],
) -> list[Table]:
    tables = []
    for level, title, metrics in LEVELS:
        rows = [r for r in board.rows if any((label, r.name) in cells for label in labels)]
        lines, data, defined = [], [], False
        for label in labels:
            found = [_figure(cells.get((label, r.name)), r, m) for r in rows for m in metrics]
            defined = defined or any(f.value is not None for f in found)
            lines.append(Line(label, tuple((Span(f.text),) for f in found)))
            where = [(r, m) for r in rows for m in metrics]
            data += [_data(label, r, m, f) for (r, m), f in zip(where, found)]
            if label in printed and (line := _printed(printed[label], rows, metrics)):
                lines.append(Line(f"{label} (published)", line))
        if defined:
            heads = tuple(HEADS[m.partition("_")[2]] for _ in rows for m in metrics)
            groups = tuple((r.title, len(metrics)) for r in rows)
            tables.append(
                Table(f"{name}-{level}", title, corner, heads, tuple(lines), groups, tuple(data))
            )
    return tables


def _figure(cells: Cells | None, row: Row, metric: str) -> Figure:
    return over_categories(cells, metric, row.categories) if cells else Figure(None)


def _printed(
    method: str, rows: Sequence[Row], metrics: Sequence[str]
) -> tuple[tuple[Span, ...], ...] | None:
    published, cells, any_found = Published.load(), [], False
    for row in rows:
        for metric in metrics:
            found = published.lookup(method, row.name, MEAN, metric)
            any_found = any_found or bool(found)
            spread = f" ± {found[0].std:.1f}" if found and found[0].std is not None else ""
            cells.append((Span(f"{found[0].value:.1f}{spread}" if found else "–"),))
    return tuple(cells) if any_found else None


def _data(label: str, row: Row, metric: str, figure: Figure) -> dict[str, Any]:
    def percent(value: float | None) -> float | None:
        return None if value is None else round(100 * value, 4)

    return {
        "row": label,
        "dataset": row.name,
        "metric": metric,
        "value": percent(figure.value),
        "deviation": percent(figure.deviation),
        "count": figure.count,
        "of": figure.of,
    }

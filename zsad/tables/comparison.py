"""Tables that set published numbers beside measured ones, with the difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from zsad.config.method_config import shots_in_words
from zsad.errors import categories, counted
from zsad.metrics import spec
from zsad.results import group_means
from zsad.results.aggregate import (
    NOT_COMPUTED,
    PLACES,
    UNDEFINED,
    Figure,
    mean,
    of_category,
    over_categories,
)
from zsad.results.conditions import Match, label_of, matched
from zsad.results.published import MEAN, Published, Reference
from zsad.results.records import CellRecord
from zsad.tables.model import Line, Span, Spans, Table, signed
from zsad.tables.results_matrix import Board, DatasetRow, MatrixColumn

APART = 0.2  # points: what papers print beyond the last digit apart is called a disagreement
SIGNS = {"yes": "", "partly": "≈", "no": "≠"}
LEGEND = (
    "Published beside measured: Δ = measured minus published, in points; ≈ protocols differ in "
    "part, ≠ not comparable; – nothing published or measured."
)


def comparison(board: Board, row: DatasetRow | None = None) -> tuple[list[Table], list[str]]:
    """Tables of measured, published and difference, and the notes that they need.

    By dataset, or by category where ``row`` names the dataset.  Methods without a published
    number have no columns.
    """
    published = _published()
    tables: list[Table] = []
    points: Points = {}
    for name, title, metrics in spec.tables():  # without those that stand beside another
        entries = _entries(board, row)
        found = {
            (label, column.label): [
                _triple(published, board, column, dataset, category, metric) for metric in metrics
            ]
            for label, dataset, category in entries
            for column in board.columns
        }
        kept = [
            c
            for c in board.columns
            if any(t[1] is not None for (_, m), ts in found.items() if m == c.label for t in ts)
        ]
        if not kept:
            continue
        lines, data = [], []
        for label, _, category in entries:
            cells: list[Spans] = []
            for column in kept:
                triples = found[label, column.label]
                cells += _cells(triples)
                for metric, triple in zip(metrics, triples):
                    data.append(_data(label, column, metric, triple))
                    _, printed, agrees = triple
                    if printed is not None and agrees is not None:
                        add_points(points, column.title, printed, agrees)
            lines.append(Line(label, tuple(cells), mean=row is not None and category == MEAN))
        tables.append(
            Table(
                f"published-{name}",
                f"{title}: measured, published, difference",
                "dataset" if row is None else "category",
                ("measured", "published", "Δ") * len(kept),
                tuple(lines),
                tuple((c.head, 3) for c in kept),
                tuple(data),
            )
        )
    notes = [LEGEND] if tables else []
    notes += differing(points)
    notes += disagreements(board, row)
    return tables, notes


Points = dict[str, dict[str, None]]  # which figures of which source -> in what they differ


def add_points(points: Points, who: str, printed: Reference, agrees: Match) -> None:
    """Keep in what a printed figure and ours differ, under the figure's sign and source."""
    what = f"{SIGNS[agrees.degree]} {who}, printed in {printed.source}".strip()
    points.setdefault(what, {}).update(dict.fromkeys(agrees.points))


def differing(points: Points) -> list[str]:
    """A sentence for each figure's source: in what conditions differ."""
    return [f"{who}: {'; '.join(what) or 'equal conditions'}." for who, what in points.items()]


def disagreements(board: Board, row: DatasetRow | None = None) -> list[str]:
    """A sentence per figure that papers print in several values, for what the board shows."""
    published = _published()
    out = []
    rows = board.rows if row is None else [row]
    for column in board.columns:
        for shown in rows:
            held = board.of(column.label, shown.name)
            if not held or not shown.newest:
                continue
            label = label_of(next(iter(held.values())))
            for metric in (m.name for m in spec.headline()):
                found = published.disagreements(label, shown.dataset, MEAN, metric)
                if found and max(found) - min(found) >= APART:
                    parts = (f"{v:.1f} ({_sources(s)})" for v, s in found.items())
                    what = f"{spec.METRICS[metric].full_title} of {column.plain} on {shown.title}"
                    out.append(f"Papers disagree on {what}: {'; '.join(parts)}.")
    return list(dict.fromkeys(out))


def _sources(references: Sequence[Reference]) -> str:
    """Where a value is printed, paper by paper: "FAPrompt Tables 1, 11; MuSc"."""
    tables: dict[str, dict[str, None]] = {}
    for r in references:
        tables.setdefault(r.paper, {}).update({str(r.table): None} if r.table else {})
    return "; ".join(
        f"{paper} Table{'s' * (len(of) > 1)} {', '.join(of)}" if of else paper
        for paper, of in tables.items()
    )


def published_only(rows: Sequence[DatasetRow], every: bool = False) -> Table | None:
    """What the papers print of systems that are not hosted here, and why they are not, or None.

    ``every``: systems without a figure on these datasets are listed, too.
    """
    titles = {row.dataset: row.title for row in rows}
    lines, data = [], []
    blocks: dict[tuple[str, str, str, int], dict[str, Reference]] = {}
    for value in _hosted_elsewhere():
        if value.dataset in titles and value.category == MEAN:
            key = (value.name, value.dataset, value.source, value.shots or 0)
            blocks.setdefault(key, {}).setdefault(value.metric, value)
    metrics = [m.name for m in spec.headline()]
    for (name, dataset, source, shots), values in sorted(blocks.items()):
        cells = [(Span(_number(values.get(m))),) for m in metrics]
        reason = _published().not_hosted[name]
        where = f"{source}; {reason}"
        called = f"{name}, {shots_in_words(shots)}" if shots else name
        lines.append(Line(f"{called}, {titles[dataset]}", (*cells, (Span(where),))))
        for value in values.values():
            data.append(
                {
                    "row": dataset,
                    "method": name,
                    "shots": shots,
                    "metric": value.metric,
                    "published": value.value,
                    "source": source,
                }
            )
    if every:
        shown = {name for name, *_ in blocks}
        empty = [(Span(UNDEFINED),)] * len(metrics)
        for name, reason in _published().not_hosted.items():
            if name not in shown:
                where = f"no figure on these datasets; {reason}"
                lines.append(Line(name, (*empty, (Span(where),))))
    if not lines:
        return None
    heads = (*(m.full_title for m in spec.headline()), "source; why not hosted")
    title = "Published only: systems that are not hosted here"
    return Table("published-only", title, "system, dataset", heads, tuple(lines), (), tuple(data))


def beyond_runs() -> Table:
    """What papers print of hosted methods that no run can be set beside: how much, and why."""
    lines, data = [], []
    for reason, numbers in _published().beyond_runs().items():
        papers = ", ".join(dict.fromkeys(r.paper for r in numbers))
        lines.append(
            Line(reason.what, tuple((Span(t),) for t in (str(len(numbers)), papers, reason.why)))
        )
        entry = {"row": reason.what, "figures": len(numbers), "source": papers, "why": reason.why}
        data.append(entry)
    title = "Published only: figures of hosted methods that no run here can be set beside"
    heads = ("figures", "printed in", "why")
    return Table("published-not-run", title, "dataset or row", heads, tuple(lines), (), tuple(data))


Triple = tuple[Figure, Reference | None, Match | None]


@cache
def _published() -> Published:
    return Published.load()


def _hosted_elsewhere() -> list[Reference]:
    found = _published()
    return [r for r in found.references if r.name in found.not_hosted and not r.method]


def _entries(board: Board, row: DatasetRow | None) -> list[tuple[str, str, str]]:
    """(label, dataset, category) of the lines."""
    if row is None:
        named = {r.dataset for r in board.rows}
        protocols = {str(info.get("protocol") or "") for info in _infos(board)}
        # Means of several datasets, where all datasets behind one are there.
        whole = [
            name
            for name in group_means.GROUPS
            if any((of := group_means.members(name, p)) and named >= set(of) for p in protocols)
        ]
        rows = [(r.title, r.name, MEAN) for r in board.rows]
        return [*rows, *((group_means.title(name), name, MEAN) for name in whole)]
    lines = [(c, row.name, c) for c in row.categories]
    return [*lines, (f"mean of {row.size}", row.name, MEAN)]


def _infos(board: Board) -> list[Mapping[str, Any]]:
    """What one record of each column on each row says of its run."""
    return [next(iter(cells.values())).info for cells in board.cells.values() if cells]


def _of_group(
    published: Published, board: Board, column: MatrixColumn, name: str, metric: str
) -> Triple:
    """A mean over several datasets beside the printed one; it counts where all of them are there,
    and agrees as far as every one of them does."""
    rows = {r.dataset: r for r in board.rows if r.newest}
    level = spec.METRICS[metric].level
    held = {d: board.of(column.label, rows[d].name) for d in rows}
    first = next((c for cells in held.values() for c in cells.values()), None)
    of = group_means.members(name, str(first.info.get("protocol") or ""), level) if first else ()
    if first is None or not of:
        return Figure(None), None, None
    own = measured_as(first, metric)
    figures = {d: over_categories(held[d], own, rows[d].categories) for d in of if held.get(d)}
    values = [f.value for f in figures.values() if f.value is not None]
    figure = Figure(
        mean(values),
        None,
        len(values),
        len(of),
        any(f.computed for f in figures.values()),
        partial=any(f.partial for f in figures.values()),
    )
    value = published.best(label_of(first), name, MEAN, metric, first.info)
    if value is None or not values:
        return figure, value, None
    found = [matched(value, list(held[d].values()), own) for d in figures]
    points = tuple(dict.fromkeys(point for m in found for point in m.points))
    degree = max((m.degree for m in found), key=("yes", "partly", "no").index)
    short = [f"{len(values)} of {counted(len(of), 'dataset')}"] * (len(values) != len(of))
    short += [
        f"{figures[d].count} of {categories(max(figures[d].of, rows[d].of))} of {d}"
        for d in figures
        if figures[d].count != max(figures[d].of, rows[d].of)
    ]
    return figure, value, Match("no" if short else degree, (*points, *short))


def _triple(
    published: Published,
    board: Board,
    column: MatrixColumn,
    dataset: str,
    category: str,
    metric: str,
) -> Triple:
    if dataset in group_means.GROUPS:
        return _of_group(published, board, column, dataset, metric)
    cells = board.of(column.label, dataset)
    if not cells:
        return Figure(None), None, None
    record = next((r for (c, _), r in cells.items() if c == category), next(iter(cells.values())))
    own = measured_as(record, metric)
    row = next(r for r in board.rows if r.name == dataset)
    if category == MEAN:
        figure = over_categories(cells, own, row.categories)
    else:
        figure = of_category(cells, own, category)
    value = published.best(label_of(record), row.dataset, category, metric, record.info)
    if value is None:
        return figure, None, None
    behind = [r for (c, _), r in cells.items() if category in (MEAN, c)]
    of = max(figure.of, row.of) if category == MEAN else figure.of
    return figure, value, verdict(value, behind or [record], figure, own, of)


def measured_as(record: CellRecord, metric: str) -> str:
    """The metric of a record that is the same quantity as the papers' ``metric``, where it holds
    that one, else ``metric``."""
    same = spec.same_quantity(metric)
    return same if record.metrics.get(same) is not None else metric


def verdict(
    value: Reference, records: Sequence[CellRecord], figure: Figure, metric: str, of: int
) -> Match:
    """How far a printed number and our ``figure`` of ``records`` are comparable; ``of``: how many
    categories the dataset has."""
    found = matched(value, records, metric)
    if figure.count != of:
        found = Match("no", (*found.points, f"{figure.count} of {categories(of)}"))
    if figure.partial:
        found = Match("no", (*found.points, "scored without some of the images"))
    return found


def _cells(triples: Sequence[Triple]) -> list[Spans]:
    signs = [SIGNS[m.degree] for _, _, m in triples if m]
    sign = max(signs, key=list(SIGNS.values()).index, default="")
    return [
        (Span(_join([f.text for f, _, _ in triples])),),
        (Span(_join([_number(v) for _, v, _ in triples]) + sign),),
        (Span(_join([signed(difference(f, v)) for f, v, _ in triples])),),
    ]


def difference(figure: Figure, value: Reference | None) -> float | None:
    """Measured minus published in points, of the measured value as printed."""
    if value is None or figure.shown is None or figure.partial:
        return None
    return round(figure.shown - value.value, PLACES)


def _data(label: str, column: MatrixColumn, metric: str, triple: Triple) -> dict[str, Any]:
    figure, value, agrees = triple
    return {
        "row": label,
        "method": column.label,
        "metric": metric,
        "value": None if figure.value is None else round(100 * figure.value, 4),
        "count": figure.count,
        "of": figure.of,
        "published": None if value is None else value.value,
        "difference": difference(figure, value),
        "protocol": "" if agrees is None else agrees.degree,
        "differs": "" if agrees is None else "; ".join(agrees.points),
        "source": "" if value is None else value.source,
    }


def _join(texts: Sequence[str]) -> str:
    if len(set(texts)) == 1 and texts[0] in (UNDEFINED, NOT_COMPUTED):
        return texts[0]
    return texts[0] if len(texts) == 1 else f"({', '.join(texts)})"


def _number(value: Reference | None) -> str:
    return UNDEFINED if value is None else value.text

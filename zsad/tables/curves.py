"""Curves over a hyper-parameter, out of the rows of an ablation, as SVG.

Rows that differ from the method's plain row in one and the same key make a curve over its values,
as the papers draw them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zsad import config as cfg
from zsad.errors import counted
from zsad.metrics import spec
from zsad.page import html_text
from zsad.results.aggregate import mean, over_categories
from zsad.results.records import CellRecord
from zsad.tables.model import Drawing
from zsad.tables.results_matrix import Board, MatrixColumn

FEWEST = 3  # values of a key that are a curve
MOST_LINES = 4  # datasets that have a line each; of more the mean is drawn
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 360, 240, 46, 12, 26, 42  # pixels
COLOURS = ("#1f5fce", "#a84a00", "#0b6b3a", "#7a3b9c")
GAP = 5  # pixels between a point and its text


@dataclass(frozen=True)
class Series:
    """The rows over the values of one key, in order: (value, column)."""

    key: str
    points: tuple[tuple[Any, MatrixColumn], ...]


def drawings(board: Board, columns: Sequence[MatrixColumn]) -> list[Drawing]:
    """A drawing for every curve and metric of an ablation's columns."""
    found = []
    for series in _series(board, columns):
        for metric in _metrics():
            lines = _lines(board, series, metric)
            if lines:
                title = f"{spec.METRICS[metric].full_title} over {series.key}"
                values = [value for value, _ in series.points]
                found.append(Drawing(title, _svg(title, series.key, values, lines)))
    return found


def _metrics() -> list[str]:
    """The first headline metric of each level."""
    first: dict[str, str] = {}
    for metric in spec.headline():
        first.setdefault(metric.level, metric.name)
    return list(first.values())


def _series(board: Board, columns: Sequence[MatrixColumn]) -> list[Series]:
    """Keys that are the only one in which at least two rows differ from the plain one."""
    configs = {c.label: cfg.flat(held) for c in columns if (held := _config(board, c))}
    labels = {c.label: c for c in columns if c.label in configs and not c.overrides}
    found: dict[tuple[str, str], dict[str, tuple[Any, MatrixColumn]]] = {}
    for plain in labels.values():
        method = plain.configuration.method.partition("@")[0]
        base = configs[plain.label]
        alone: dict[str, dict[str, tuple[Any, MatrixColumn]]] = {}
        for column in labels.values():
            if column.configuration.method.partition("@")[0] != method or column is plain:
                continue
            own = configs[column.label]
            changed = [k for k in {*base, *own} - {"preset"} if own.get(k) != base.get(k)]
            if len(changed) == 1 and _drawable(value := own.get(changed[0])):
                alone.setdefault(changed[0], {})[str(value)] = (value, column)
        for key, points in alone.items():
            if key in base and _drawable(base[key]):
                whole = {**points, str(base[key]): (base[key], plain)}
                known = found.get((method, key), {})
                if len(whole) >= FEWEST and len(whole) > len(known):
                    found[method, key] = whole
    return [Series(k, tuple(sorted(p.values(), key=_order))) for (_, k), p in found.items()]


def _config(board: Board, column: MatrixColumn) -> dict[str, Any]:
    """The config of a column's records."""
    record = next(_records(board, column), None)
    held = record.info.get("config") if record else None
    return dict(held) if isinstance(held, Mapping) else {}


def _records(board: Board, column: MatrixColumn) -> Iterator[CellRecord]:
    for (label, _), cells in board.cells.items():
        if label == column.label:
            yield from cells.values()


def _drawable(value: Any) -> bool:
    """Whether a value has a place on an axis: a number, or a list that stands for its length."""
    return isinstance(value, (int, float, list, tuple)) and not isinstance(value, bool)


def _order(point: tuple[Any, MatrixColumn]) -> tuple[float, str]:
    value = point[0]
    if isinstance(value, (list, tuple)):
        numbers = [v for v in value if isinstance(v, (int, float))]
        return (sum(numbers) if numbers else len(value), str(value))
    return (float(value), "")


def _lines(board: Board, series: Series, metric: str) -> dict[str, list[float | None]]:
    """Percentages by dataset (or their mean), one for every point."""
    found: dict[str, list[float | None]] = {}
    for row in board.rows:
        values: list[float | None] = []
        for _, column in series.points:
            cells: Mapping[tuple[str, int], CellRecord] = board.of(column.label, row.name)
            figure = over_categories(cells, metric, row.categories)
            whole = figure.count == len(row.categories) and not figure.partial
            values.append(figure.shown if whole else None)
        if sum(v is not None for v in values) >= FEWEST:
            found[row.title] = values
    if len(found) <= MOST_LINES:
        return found
    columns = [[v for v in at if v is not None] for at in zip(*found.values())]
    means = [mean(at) if len(at) == len(found) else None for at in columns]
    return {f"mean of {counted(len(found), 'dataset')}": means}


# ---------------------------------------------------------------------------------- drawing
def _svg(
    title: str, key: str, values: Sequence[Any], lines: Mapping[str, Sequence[float | None]]
) -> str:
    """One chart: the key's values along, percent upwards."""
    shown = [v for line in lines.values() for v in line if v is not None]
    low, high = math.floor(min(shown) - 0.5), math.ceil(max(shown) + 0.5)
    across, up = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    places = _places(values)

    def at(place: float, value: float) -> tuple[float, float]:
        return LEFT + across * place, TOP + up * (high - value) / (high - low)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" role="img" font-family="sans-serif" font-size="11">',
        f"<title>{html_text(title)}</title>",
        f'<text x="{LEFT}" y="14" font-weight="bold">{html_text(title)}</text>',
        f'<path d="M{LEFT} {TOP}V{TOP + up}H{LEFT + across}" fill="none" stroke="#888"/>',
    ]
    for value in (low, (low + high) / 2, high):
        y = at(0, value)[1]
        parts.append(f'<text x="{LEFT - GAP}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for place, value in zip(places, values):
        x = at(place, low)[0]
        text = html_text(_label(value))
        parts.append(f'<text x="{x:.1f}" y="{TOP + up + 15}" text-anchor="middle">{text}</text>')
    for number, (name, line) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        points = [at(p, v) for p, v in zip(places, line) if v is not None]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
        x = LEFT + number * across / max(1, len(lines))
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 6}" fill="{colour}">{html_text(name)}</text>')
    return "".join([*parts, "</svg>"])


def _places(values: Sequence[Any]) -> list[float]:
    """Where values lie along the axis, in [0, 1]: numbers to scale, lists at equal distances."""
    edge = 0.06
    if all(isinstance(v, (int, float)) for v in values):
        low, high = float(min(values)), float(max(values))
        shares = [(float(v) - low) / (high - low or 1) for v in values]
    else:
        shares = [i / max(1, len(values) - 1) for i in range(len(values))]
    return [edge + (1 - 2 * edge) * s for s in shares]


def _label(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"{len(value)}" if any(isinstance(v, str) for v in value) else str(list(value))
    return f"{value:g}"

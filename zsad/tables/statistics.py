"""Tables of how sure the figures are: intervals and paired tests on what is stored of images."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from zsad.errors import ZsadError
from zsad.metrics.spec import METRICS, drawn, resampled
from zsad.results import pixels
from zsad.results.aggregate import NOT_COMPUTED, is_partial, rule_of
from zsad.results.identity import limit_of
from zsad.results.image_scores import scores_of
from zsad.results.records import CellRecord
from zsad.results.store import ResultStore
from zsad.tables.model import Line, Span, Table, signed
from zsad.tables.results_matrix import Board, DatasetRow, MatrixColumn

if TYPE_CHECKING:
    import pandas as pd

    from zsad.metrics.statistics import Interval, PairedTest

log = logging.getLogger(__name__)

# What computes metrics needs scipy or torch, and a command line that only lists things must not
# wait for them: it is imported where figures are computed.

TOO_FEW = "too few"
CI_NOTE = (
    "Intervals: 95 %, over images of each class, first seed; AUROC by Newcombe's score interval, "
    "AP by the wider of that and 2,000 bootstrap resamples, so that they hold at 100 %, too; those "
    "of a mean combine those of its categories, taken as independent; pixel metrics by 1,000 draws "
    "of whole images, widened for few of them; "
    '"too few": fewer than five images of a label; "not computed": a record without the pixels of '
    "its images, which a run with --fresh adds."
)
TEST_NOTE = (
    "Tests: the same images, first seed, two-sided paired permutation by category, "
    "categories combined by Stouffer's method; Holm's correction over the pairs of a table; "
    "* below 0.05 after it; pixel metrics by swapping the maps of whole images, where both were "
    "measured by one rule."
)


@dataclass(frozen=True)
class Comparison:
    """Two methods on one dataset.  ``difference`` of the mean metric in 0..1; p-values."""

    first: MatrixColumn
    second: MatrixColumn
    difference: float
    p_value: float
    adjusted: float
    categories: int


def intervals(store: ResultStore, board: Board, row: DatasetRow, metric: str) -> Table | None:
    """A metric with its interval, by category and method; None without stored scores."""
    lines, data = [], []
    found: dict[str, list[Interval | str | None]] = {}
    for category in row.categories:
        found[category] = [_interval(store, board, c, row, category, metric) for c in board.columns]
    if not any(i for line in found.values() for i in line):
        return None
    columns = list(zip(*found.values()))
    means = [_mean(column) for column in columns]
    for label, line in found.items():
        lines.append(Line(label, tuple((Span(_bounds(i)),) for i in line)))
        data += [_interval_data(label, c, i, metric) for c, i in zip(board.columns, line)]
    label, counts = f"mean of {row.size}", [sum(i is not None for i in line) for line in columns]
    texts = [_bounds(i) + _lacking(n, len(found)) * (i is not None) for i, n in zip(means, counts)]
    lines.append(Line(label, tuple((Span(text),) for text in texts), mean=True))
    data += [
        {**_interval_data(label, c, i, metric), "count": n, "of": len(found)}
        for c, i, n in zip(board.columns, means, counts)
    ]
    heads = tuple(c.head for c in board.columns)
    title = f"{row.title}: {METRICS[metric].full_title} with 95 % intervals"
    return Table(_name("ci", metric), title, "category", heads, tuple(lines), (), tuple(data))


def significance(store: ResultStore, board: Board, row: DatasetRow, metric: str) -> Table | None:
    """Paired tests of every two methods on a dataset; None without two methods' scores."""
    tests = compare(store, board, row, metric)
    if not tests:
        return None
    lines, data = [], []
    for t in tests:
        label = f"{t.first.title} – {t.second.title}"
        mark = "*" if t.adjusted < 0.05 else ""
        texts = (signed(100 * t.difference), _p(t.p_value), _p(t.adjusted) + mark)
        lines.append(Line(label, (*((Span(x),) for x in texts), (Span(str(t.categories)),))))
        data.append(
            {
                "row": row.name,
                "method": t.first.label,
                "against": t.second.label,
                "metric": metric,
                "difference": round(100 * t.difference, 4),
                "p": t.p_value,
                "p_holm": t.adjusted,
                "count": t.categories,
            }
        )
    heads = ("difference", "p", "p (Holm)", "categories")
    title = f"{row.title}: paired tests of {METRICS[metric].full_title}"
    return Table(
        _name("significance", metric), title, "methods", heads, tuple(lines), (), tuple(data)
    )


def compare(store: ResultStore, board: Board, row: DatasetRow, metric: str) -> list[Comparison]:
    """Test every two methods on the images that both scored; Holm over all pairs."""
    scores = {
        (c.label, category): found
        for c in board.columns
        for category in row.categories
        if not _partial(board, c, row, category)
        and (found := _cell(store, board, c, row, category)) is not None
    }
    from zsad.metrics.statistics import holm

    raw: list[tuple[MatrixColumn, MatrixColumn, float, float, int]] = []
    for first, second in combinations(board.columns, 2):
        tests = []
        for category in row.categories:
            a, b = scores.get((first.label, category)), scores.get((second.label, category))
            if a is None or b is None:
                continue
            test = (_pixel_test if metric in drawn() else _image_test)(a, b, metric)
            if test is not None:
                tests.append((test.difference, test.p_value))
        if tests:
            mean = math.fsum(d for d, _ in tests) / len(tests)
            raw.append((first, second, mean, stouffer(tests), len(tests)))
    adjusted = holm([p for *_, p, _ in raw])
    return [Comparison(a, b, d, p, q, n) for (a, b, d, p, n), q in zip(raw, adjusted)]


def stouffer(tests: Sequence[tuple[float, float]]) -> float:
    """One two-sided p-value of independent ones.  ``tests``: (difference, two-sided p)."""
    from scipy.stats import norm

    z = math.fsum(math.copysign(norm.isf(p / 2), d) if d else 0.0 for d, p in tests)
    return float(min(1.0, 2 * norm.sf(abs(z) / math.sqrt(len(tests)))))


Cell = tuple[CellRecord, "pd.DataFrame"]  # with what is stored of its images


def _cell(
    store: ResultStore, board: Board, column: MatrixColumn, row: DatasetRow, category: str
) -> Cell | None:
    """The first seed's record of a category and its images."""
    cells = board.of(column.label, row.name)
    record = next((r for (c, _), r in sorted(cells.items()) if c == category), None)
    try:
        found = scores_of(store, record) if record is not None else None
    except ZsadError as error:  # a broken file costs its own figures only
        log.warning("%s", error)
        return None
    return (record, found) if record is not None and found is not None else None


def _image_test(first: Cell, second: Cell, metric: str) -> PairedTest | None:
    """The test of two cells' image scores on the images of both; None for one label alone."""
    from zsad.metrics.statistics import paired_permutation

    a, b = (frame[["uid", "label", "score"]] for _, frame in (first, second))
    both = a.merge(b, on=["uid", "label"], suffixes=("_a", "_b"), validate="one_to_one")
    if both["label"].nunique() != 2:
        return None
    return paired_permutation(both["score_a"], both["score_b"], both["label"], metric)


def _pixel_test(first: Cell, second: Cell, metric: str) -> PairedTest | None:
    """The test of two cells' maps on the images of both; None where a record lacks their pixels,
    or where they were measured against other masks or up to other rates."""
    from zsad.metrics.pixel_statistics import pixel_permutation

    if rule_of(first[0], metric) != rule_of(second[0], metric):
        return None
    frames = [frame.set_index("uid") for _, frame in (first, second)]
    shared = [uid for uid in frames[0].index if uid in frames[1].index]
    a, b = (pixels.of_frame(frame.loc[shared]) for frame in frames)
    if a is None or b is None or not a.anomalous.any() or not a.normal.any():
        return None
    if any(record.metrics.get(metric) is None for record, _ in (first, second)):
        return None
    return pixel_permutation(a, b, metric, limit_of(first[0]))


def _partial(board: Board, column: MatrixColumn, row: DatasetRow, category: str) -> bool:
    """Whether images are missing from a category's scores, so that nothing is compared."""
    cells = board.of(column.label, row.name)
    return any(is_partial(record) for (c, _), record in cells.items() if c == category)


def _name(kind: str, metric: str) -> str:
    """``ci`` for the first metric, ``ci-METRIC`` for others."""
    return kind if metric == next(iter(resampled())) else f"{kind}-{metric}"


def _interval(
    store: ResultStore,
    board: Board,
    column: MatrixColumn,
    row: DatasetRow,
    category: str,
    metric: str,
) -> Interval | str | None:
    from zsad.metrics.intervals import FEWEST, confidence_interval
    from zsad.metrics.pixel_statistics import pixel_interval

    cell = _cell(store, board, column, row, category)
    if cell is None:
        return None
    record, found = cell
    of_pixels = metric in drawn()
    value = record.metrics.get(metric)
    if found["label"].nunique() < 2 or (of_pixels and value is None):
        return None
    if found["label"].value_counts().min() < FEWEST:
        return TOO_FEW
    if not of_pixels or value is None:
        return confidence_interval(found["score"], found["label"], metric)
    table = pixels.of_frame(found)
    if table is None:
        return NOT_COMPUTED
    return pixel_interval(table, found["label"], metric, value, limit_of(record))


def _mean(column: Sequence[Interval | str | None]) -> Interval | str | None:
    """The interval of a mean of independent figures: half-widths add in squares.

    Where a category has too few images there is none: its own could be anything."""
    for word in (TOO_FEW, NOT_COMPUTED):
        if word in column:
            return word
    found = [i for i in column if i is not None and not isinstance(i, str)]
    if not found:
        return None
    from zsad.metrics.statistics import Interval

    n = len(found)
    value = math.fsum(i.value for i in found) / n
    low = math.sqrt(math.fsum((i.value - i.low) ** 2 for i in found)) / n
    high = math.sqrt(math.fsum((i.high - i.value) ** 2 for i in found)) / n
    return Interval(value, value - low, value + high, found[0].level)


def _interval_data(
    label: str, column: MatrixColumn, found: Interval | str | None, metric: str
) -> dict[str, Any]:
    values: tuple[float | None, ...] = (None, None, None)
    if found is not None and not isinstance(found, str):
        values = (found.value, found.low, found.high)
    numbers = [None if v is None else round(100 * v, 4) for v in values]
    named = dict(zip(("value", "low", "high"), numbers))
    return {"row": label, "method": column.label, "metric": metric, **named}


def _lacking(count: int, of: int) -> str:
    """What follows a mean that lacks categories, as in the tables of means."""
    return f" [{count} of {of}]" if count != of else ""


def _bounds(found: Interval | str | None) -> str:
    if found is None or isinstance(found, str):
        return found or "–"
    return f"{100 * found.value:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"

"""Means, deviations and ranks: how stored metrics become figures.

The only place that averages metrics: the document of a run, the console, the tables and the
report take their figures from here.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from zsad.config import DataSettings
from zsad.metrics.spec import METRICS
from zsad.results.identity import limit_of
from zsad.results.records import CellRecord

PLACES = 1  # decimals of a percentage, as in the papers
UNDEFINED = "–"
NOT_COMPUTED = "not computed"
PARTIAL = "¶"  # marks a figure over fewer images than the dataset has


Images = tuple[str, str, str, str, int, int]


@dataclass(frozen=True)
class Figure:
    """A metric in 0..1, or None where it is undefined.

    ``deviation``: sample standard deviation over seeds, None with one seed or without any
    spread.  ``count`` of ``of``: categories (or datasets) behind the mean.  ``computed``: False
    where there are records, and none of them holds the metric: it was not asked for.  ``images``:
    what was measured on and against, by (dataset, files, category, rule, normal, anomalous images).
    ``partial``: files that cannot be read were left out (``data.skip_broken``): it is shown,
    marked, and neither ranked nor compared.
    """

    value: float | None
    deviation: float | None = None
    count: int = 0
    of: int = 0
    computed: bool = True
    images: frozenset[Images] = field(default=frozenset(), compare=False)
    partial: bool = False

    @property
    def shown(self) -> float | None:
        """The percentage as it is printed: what ranks and ties are decided by."""
        return None if self.value is None else round(100 * self.value, PLACES)

    @property
    def text(self) -> str:
        """The percentage with its deviation; "–" where undefined."""
        if self.value is None:
            return UNDEFINED if self.computed else NOT_COMPUTED
        spread = f" ± {100 * self.deviation:.{PLACES}f}" if self.deviation is not None else ""
        return f"{100 * self.value:.{PLACES}f}{spread}{PARTIAL * self.partial}"


def undefined_reasons(records: Iterable[CellRecord]) -> dict[str, dict[str, list[str]]]:
    """``{metric: {reason: [categories]}}`` of what the records could not compute."""
    found: dict[str, dict[str, list[str]]] = {}
    for record in records:
        for metric, why in record.undefined.items():
            names = found.setdefault(metric, {}).setdefault(why, [])
            if record.category not in names:
                names.append(record.category)
    return found


def mean(values: Iterable[float]) -> float | None:
    """The arithmetic mean; None without values."""
    items = list(values)
    return math.fsum(items) / len(items) if items else None


def over_seeds(values: Sequence[float], count: int, of: int) -> Figure:
    """One figure out of one value per seed."""
    centre = mean(values)
    if centre is None:
        return Figure(None, None, 0, of)
    deviation = None
    if len(set(values)) > 1:
        squares = math.fsum((v - centre) ** 2 for v in values)
        deviation = math.sqrt(squares / (len(values) - 1))
    return Figure(centre, deviation, count, of)


def over_categories(
    records: Mapping[tuple[str, int], CellRecord], metric: str, categories: Sequence[str]
) -> Figure:
    """The mean over the categories that define ``metric`` for every seed, then over seeds.

    ``records`` by (category, seed).  A category that one seed lacks is left out for all seeds,
    so that the deviation is one of seeds alone.
    """
    seeds = sorted({seed for _, seed in records})
    defined: dict[str, list[float]] = {}
    for category in categories:
        values = [_value(records.get((category, seed)), metric) for seed in seeds]
        if values and all(v is not None for v in values):
            defined[category] = [v for v in values if v is not None]
    if not defined:
        return Figure(None, None, 0, len(categories), _computed(records.values(), metric))
    means = [math.fsum(column) / len(defined) for column in zip(*defined.values())]
    images = images_of((r for (category, _), r in records.items() if category in defined), metric)
    partial = any(c in defined and is_partial(r) for (c, _), r in records.items())
    figure = over_seeds(means, len(defined), len(categories))
    return replace(figure, images=images, partial=partial)


def of_category(
    records: Mapping[tuple[str, int], CellRecord], metric: str, category: str
) -> Figure:
    """One category's mean over the seeds that define ``metric``."""
    found = [r for (c, _), r in sorted(records.items()) if c == category]
    values = [v for r in found if (v := _value(r, metric)) is not None]
    return replace(
        over_seeds(values, int(bool(values)), 1),
        computed=_computed(found, metric),
        images=images_of(found, metric),
        partial=any(map(is_partial, found)),
    )


def over_datasets(figures: Sequence[Figure]) -> Figure:
    """The mean of the datasets' means, each counted once; no deviation."""
    values = [f.value for f in figures if f.value is not None]
    computed = any(f.computed for f in figures) or not figures
    images = frozenset[Images]().union(*(f.images for f in figures if f.value is not None))
    partial = any(f.partial for f in figures)
    return Figure(mean(values), None, len(values), len(figures), computed, images, partial)


def images_of(records: Iterable[CellRecord], metric: str = "") -> frozenset[Images]:
    """Which images records were measured on, and by which rule ``metric`` was.

    A limit chooses the same images every time, so that counts and files tell them apart.  Pixels
    are measured against masks as they were resized, AUPRO up to a false positive rate."""
    return frozenset(
        (
            r.dataset,
            str(r.info.get("dataset_fingerprint") or ""),
            r.category,
            rule_of(r, metric),
            r.n_normal,
            r.n_anomalous,
        )
        for r in records
    )


def rule_of(record: CellRecord, metric: str) -> str:
    """What a figure is measured against, where that is a setting."""
    known, parts = METRICS.get(metric), []
    if known is not None and known.level == "pixel":
        parts.append(str(record.info.get("mask_resize") or DataSettings().mask_resize))
    if known is not None and "fpr_limit" in known.arguments:
        parts.append(f"{limit_of(record):g}")
    return ", ".join(parts)


def ranks(figures: Sequence[Figure], eligible: Sequence[bool]) -> list[int]:
    """1 for the best, 2 for the second best printed value, 0 for all others.

    Equal printed values share a rank.  Only eligible, whole figures of the same images, with the
    largest count behind them, compete, and only if there are at least two: where there are
    several such sets of images, those of the largest.
    """
    running = [f.value is not None and not f.partial and ok for f, ok in zip(figures, eligible)]
    most = max((f.count for f, r in zip(figures, running) if r), default=0)
    running = [r and f.count == most for f, r in zip(figures, running)]
    sets = [f.images for f, r in zip(figures, running) if r]
    shared = [s for s in dict.fromkeys(sets) if sets.count(s) > 1]
    if not shared:
        return [0] * len(figures)
    chosen = max(shared, key=lambda s: sum(normal + bad for *_, normal, bad in s))
    running = [r and f.images == chosen for f, r in zip(figures, running)]
    values = sorted({f.shown for f, r in zip(figures, running) if r and f.shown is not None})
    place = {value: i + 1 for i, value in enumerate(reversed(values)) if i < 2}
    return [
        place.get(f.shown, 0) if r and f.shown is not None else 0 for f, r in zip(figures, running)
    ]


def is_partial(record: CellRecord) -> bool:
    """Whether files that cannot be read were left out of a record's figures."""
    return bool(record.info.get("skipped"))


def _computed(records: Collection[CellRecord], metric: str) -> bool:
    """Whether a record holds the metric, be it undefined; True, too, without any record."""
    return not records or any(metric in record.metrics for record in records)


def _value(record: CellRecord | None, metric: str) -> float | None:
    return record.metrics.get(metric) if record is not None else None

"""The authors' log, the paper, what was measured, and the difference; what each slip is worth."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from zsad.errors import categories as counted_categories
from zsad.metrics import spec
from zsad.results.aggregate import PLACES, is_partial, mean
from zsad.results.conditions import of_images
from zsad.results.published import MEAN, Published
from zsad.results.records import CellRecord
from zsad.tables.model import signed

Cells = Mapping[tuple[str, str], CellRecord]  # by (target, category), of one row


@dataclass(frozen=True)
class Line:
    """A figure in percent, as published and as measured; None: not published, or undefined.

    ``category``: one, or :data:`MEAN` over those that were measured.  ``whole``: whether all
    categories of the target stand behind it.
    """

    target: str
    category: str
    metric: str
    log: float | None
    paper: float | None
    measured: float | None
    whole: bool = True

    @property
    def wanted(self) -> float | None:
        """What is to be reproduced: the authors' log, else the paper."""
        return self.log if self.log is not None else self.paper

    @property
    def difference(self) -> float | None:
        """Measured, as it is printed, minus published, in points."""
        if self.wanted is None or self.measured is None or not self.whole:
            return None
        return round(round(self.measured, 1) - self.wanted, 1)


@dataclass(frozen=True)
class Verdict:
    """How many categories agree in every metric that is published.  ``source``: whose figures;
    ``agree``: in points; ``far``: the largest difference, None where there is none."""

    within: int
    of: int
    agree: float
    source: str
    far: Line | None

    @property
    def words(self) -> str:
        """ "27 of 27 categories within 0.1 of FiLo's released log"."""
        if not self.of:
            return f"no category has figures in {self.source}"
        text = (
            f"{self.within} of {counted_categories(self.of)} within {self.agree:g} of {self.source}"
        )
        if self.far is None or self.far.difference is None or self.within == self.of:
            return text
        where = f"{self.far.target}/{self.far.category}, {spec.METRICS[self.far.metric].full_title}"
        return f"{text}; the largest difference is {signed(self.far.difference)} ({where})"


def lines(
    method: str, cells: Cells, paper: str, log: str, categories: Mapping[str, int]
) -> list[Line]:
    """Every published metric of every measured category, and the means.

    ``method``: the label under which published figures list it; ``categories``: how many a target
    has, so that a mean over fewer is not compared with a printed one.
    """
    published = Published.load()
    found: list[Line] = []
    for target in dict.fromkeys(t for t, _ in cells):
        own = {category: record for (t, category), record in cells.items() if t == target}
        for metric in _metrics(published, method, target, own, paper, log):
            measured: list[float] = []
            for category, record in own.items():
                value = record.metrics.get(spec.same_quantity(metric))
                value = record.metrics.get(metric) if value is None else value
                logged = _printed(published, method, target, category, metric, log)
                printed = _printed(published, method, target, category, metric, paper)
                percent = None if value is None else 100 * value
                found.append(Line(target, category, metric, logged, printed, percent))
                measured += [] if value is None else [100 * value]
            logged = _printed(published, method, target, MEAN, metric, log)
            if logged is None and log:
                logged = _mean_of_log(published, method, target, metric, log)
            printed = _printed(published, method, target, MEAN, metric, paper)
            whole = len(measured) >= categories.get(target, 0)
            found.append(Line(target, MEAN, metric, logged, printed, mean(measured), whole))
    return found


def lacking(cells: Cells, categories: Mapping[str, int]) -> list[str]:
    """What of the published data was not measured, a sentence each: categories of a target, and
    images of its categories.  ``categories``: how many a target has."""
    found: list[str] = []
    for target in dict.fromkeys(t for t, _ in cells):
        own = [record for (t, _), record in cells.items() if t == target]
        whole = categories.get(target, 0)
        if len(own) < whole:
            found.append(
                f"{target}: {len(own)} of {counted_categories(whole)} measured; verdicts are of "
                "these alone."
            )
        found += [f"{target}: {text}." for text in of_images(own)]
        if any(map(is_partial, own)):
            found.append(f"{target}: scored without images that cannot be read.")
    return found


def sources(method: str, log: str, targets: Iterable[str]) -> str:
    """Where the authors' log of a method on some targets is from, in words; "" for none."""
    if not log:
        return ""
    wanted = set(targets)
    found = [r for r in Published.load().references if r.paper == log and r.dataset in wanted]
    rows = [r for r in found if method in r.methods]
    return "; ".join(dict.fromkeys(r.note for r in rows if r.note)) or log


def _metrics(
    published: Published, method: str, target: str, own: Mapping[str, object], paper: str, log: str
) -> list[str]:
    """The metrics that log or paper have of a target, in the order of the list of metrics."""
    names = {
        r.metric
        for source in (log, paper)
        if source
        for category in (*own, MEAN)
        for r in published.lookup(method, target, category, paper=source)
    }
    return [name for name in spec.METRICS if name in names]


def _printed(
    published: Published, method: str, target: str, category: str, metric: str, source: str
) -> float | None:
    if not source:
        return None
    found = published.lookup(method, target, category, metric, paper=source)
    return found[0].value if found else None


def _mean_of_log(
    published: Published, method: str, target: str, metric: str, log: str
) -> float | None:
    """The mean of a log that prints categories alone."""
    values = [
        r.value
        for r in published.references
        if r.paper == log and method in r.methods and (r.dataset, r.metric) == (target, metric)
        if r.category != MEAN
    ]
    found = mean(values)
    return None if found is None else round(found, PLACES)


def verdict(found: Sequence[Line], agree: float, source: str) -> Verdict:
    """The verdict over categories; a dataset whose categories are not published counts as one."""
    differences: dict[tuple[str, str], list[float]] = {}
    for line in _counted(found):
        if line.difference is not None:
            differences.setdefault((line.target, line.category), []).append(abs(line.difference))
    within = sum(max(of) <= agree + 1e-9 for of in differences.values())
    far = max(
        (line for line in _counted(found) if line.difference is not None),
        key=lambda line: abs(line.difference or 0.0),
        default=None,
    )
    return Verdict(within, len(differences), agree, source, far)


def _counted(found: Sequence[Line]) -> list[Line]:
    """The lines that a verdict is over: categories, or the mean of a target without any."""
    by_category = {x.target for x in found if x.category != MEAN and x.wanted is not None}
    return [x for x in found if (x.category != MEAN) == (x.target in by_category)]


@dataclass(frozen=True)
class Worth:
    """What switching a slip off changes: means over all measured categories of a target, in
    percent, by metric: (as released, without the slip)."""

    slip: str
    target: str
    means: dict[str, tuple[float | None, float | None]]


def worth(slip: str, released: Cells, without: Cells, metrics: Sequence[str]) -> list[Worth]:
    """The means with and without a slip, over the categories that both have."""
    found = []
    for target in dict.fromkeys(t for t, _ in released):
        both = [at for at in released if at[0] == target and at in without]
        means = {
            metric: (_mean(released, both, metric), _mean(without, both, metric))
            for metric in metrics
        }
        if both:
            found.append(Worth(slip, target, means))
    return found


def _mean(cells: Cells, at: Sequence[tuple[str, str]], metric: str) -> float | None:
    own = spec.same_quantity(metric)
    values = [cells[place].metrics.get(own, cells[place].metrics.get(metric)) for place in at]
    held = [v for v in values if v is not None]
    return 100 * math.fsum(held) / len(held) if held and len(held) == len(values) else None

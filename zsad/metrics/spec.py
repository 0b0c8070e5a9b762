"""The one list of metrics: name, question, place in tables, and the function that computes it.

Everything that lists metrics derives from :data:`METRICS`, whose order is that of records; no
other module spells the name of one.  A metric of the pooled scores is one entry and one function
of a :class:`zsad.metrics.functional.Curve`; one with states of its own is one entry and one class
(:mod:`zsad.metrics.pimo`).  Functions are named by ``module:function``, so that whoever only
prints figures does not import torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from zsad.errors import unknown

Mode = Literal["binned", "exact"]
MODES: tuple[str, ...] = get_args(Mode)
Level = Literal["image", "pixel"]


@dataclass(frozen=True)
class MetricSpec:
    """One metric, with values in [0, 1].

    ``title``: its heading without the level ("AUROC"); ``heading``: the same as a table's title
    says it, where that differs.  ``question``: what it answers; ``chance``: what guessing gets, in
    percent or in words, "" where nothing general can be said.

    ``table``: its group of :data:`GROUPS`; ``few_shot``: its place (from 1) in tables of shots and
    ablations, 0 for none; ``headline``: whether the console and summaries show it; ``drift``:
    whether runs in two precisions are compared by it.

    ``optional``: not computed unless asked for, by ``metrics.FLAG=true`` where there is a ``flag``,
    else by ``metrics.extra``.  ``stands_for``: the metric of the papers' name whose published
    figures are this quantity.  ``printed``: the words of the published tables for it.

    ``function``: value of a ``Curve``, None where undefined for ``reason``; ``bound``: the largest
    error on a binned curve; both take the attributes ``arguments`` of the metric class, too.
    ``states``: a class with states of its own in place of a function.  ``rows``: the metric of
    many resamples at once, for intervals and tests; ``drawn``: the same of whole
    images' pixels (:mod:`zsad.metrics.pixel_statistics`).  ``reference``: its slow definition, a
    function of scores and truth (for pixels [N, H, W] each).
    """

    name: str
    level: Level
    title: str
    question: str
    chance: str = ""
    table: str = "on-request"
    few_shot: int = 0
    headline: bool = False
    drift: bool = False
    optional: bool = False
    flag: str = ""
    stands_for: str = ""
    printed: tuple[str, ...] = ()
    heading: str = ""
    function: str = ""
    bound: str = ""
    arguments: tuple[str, ...] = ()
    reason: str = ""
    states: str = ""
    rows: str = ""
    drawn: str = ""
    reference: str = ""

    @property
    def full_title(self) -> str:
        """The title with its level: "image AUROC"."""
        return f"{self.level} {self.title}"


class Group(NamedTuple):
    """A table of the results pages.  ``levels``: whether its title tells the metrics' levels."""

    name: str
    title: str
    levels: bool = False


class Grouped(NamedTuple):
    """A table with the metrics in it, by name."""

    name: str
    title: str
    metrics: tuple[str, ...]


# The first two have the form of the papers' tables.
GROUPS = (
    Group("image", "Image level"),
    Group("pixel", "Pixel level"),
    Group("further", "Further metrics", levels=True),
    Group("pixel-200", "Pixel level"),
    Group("on-request", "Metrics on request", levels=True),
)

_FUNCTIONS = "zsad.metrics.functional"
_REFERENCE = "zsad.metrics.reference"
_ROWS = "zsad.metrics.statistics"
_DRAWN = "zsad.metrics.pixel_statistics"

_ENTRIES = (
    MetricSpec(
        name="image_auroc",
        level="image",
        title="AUROC",
        question="How often does an anomalous image score higher than a normal one?",
        chance="50",
        table="image",
        few_shot=1,
        headline=True,
        drift=True,
        printed=("auroc",),
        function=f"{_FUNCTIONS}:auroc",
        rows=f"{_ROWS}:auroc_rows",
        reference=f"{_REFERENCE}:auroc",
    ),
    MetricSpec(
        name="image_ap",
        level="image",
        title="AP",
        question="Reading the list from the highest score down: what share of it is anomalous, on "
        "average over all finds?",
        chance="the share of anomalous images",
        table="image",
        few_shot=2,
        headline=True,
        printed=("ap", "aupr"),
        function=f"{_FUNCTIONS}:average_precision",
        rows=f"{_ROWS}:ap_rows",
        reference=f"{_REFERENCE}:average_precision",
    ),
    MetricSpec(
        name="image_f1max",
        level="image",
        title="F1-max",
        question="At the best possible threshold: the balance of images found and images rightly "
        "reported.",
        chance="67 where half of the images are anomalous",
        table="further",
        few_shot=3,
        printed=("f1max",),
        function=f"{_FUNCTIONS}:f1_max",
        reference=f"{_REFERENCE}:f1_max",
    ),
    MetricSpec(
        name="pixel_auroc",
        level="pixel",
        title="AUROC",
        question="How often does a pixel of a defect score higher than a sound pixel? High even "
        "for rough maps, since most pixels are sound.",
        chance="50",
        table="pixel",
        few_shot=1,
        headline=True,
        printed=("auroc",),
        function=f"{_FUNCTIONS}:auroc",
        bound=f"{_FUNCTIONS}:auroc_bound",
        drawn=f"{_DRAWN}:auroc",
        reference=f"{_REFERENCE}:auroc",
    ),
    MetricSpec(
        name="pixel_ap",
        level="pixel",
        title="AP",
        question="As image AP, for pixels: strict, since defects are small.",
        chance="the share of defect pixels, often 1 to 5",
        table="further",
        printed=("ap", "aupr"),
        function=f"{_FUNCTIONS}:average_precision",
        bound=f"{_FUNCTIONS}:average_precision_bound",
        drawn=f"{_DRAWN}:average_precision",
        reference=f"{_REFERENCE}:average_precision",
    ),
    MetricSpec(
        name="pixel_f1max",
        level="pixel",
        title="F1-max",
        question="As image F1-max, for pixels.",
        chance="about twice the share of defect pixels",
        table="further",
        few_shot=3,
        printed=("f1max",),
        function=f"{_FUNCTIONS}:f1_max",
        bound=f"{_FUNCTIONS}:f1_max_bound",
        drawn=f"{_DRAWN}:f1_max",
        reference=f"{_REFERENCE}:f1_max",
    ),
    MetricSpec(
        name="pixel_aupro",
        level="pixel",
        title="AUPRO",
        question="How much of every defect, small ones counting as much as large ones, is covered "
        "before 30\u00a0% of the sound pixels are reported by mistake?",
        chance="15",
        table="pixel",
        few_shot=2,
        headline=True,
        drift=True,
        printed=("aupro",),
        function=f"{_FUNCTIONS}:aupro",
        bound=f"{_FUNCTIONS}:aupro_bound",
        drawn=f"{_DRAWN}:aupro",
        arguments=("fpr_limit",),
        reference=f"{_REFERENCE}:aupro",
    ),
    MetricSpec(
        name="pixel_aupro_200",
        level="pixel",
        title="AUPRO (200 steps)",
        question="As pixel AUPRO, by the approximation of the released repositories, which is what "
        "papers print.",
        chance="15",
        table="pixel-200",
        heading="AUPRO in 200 steps, the released repositories' approximation",
        optional=True,
        flag="aupro_200",
        stands_for="pixel_aupro",
        function=f"{_FUNCTIONS}:aupro_200",
        arguments=("lowest", "highest"),
        reason="fewer than two of the 200 thresholds differ in false-positive rate below 0.3",
        reference=f"{_REFERENCE}:aupro_200",
    ),
    MetricSpec(
        name="pixel_ioumax",
        level="pixel",
        title="IoU-max",
        question="At the best possible threshold: of all pixels that are reported or belong to a "
        "defect, the share that is both.",
        chance="the share of defect pixels",
        optional=True,
        function=f"{_FUNCTIONS}:iou_max",
        bound=f"{_FUNCTIONS}:iou_max_bound",
        reference=f"{_REFERENCE}:iou_max",
    ),
    MetricSpec(
        name="pixel_aupimo",
        level="pixel",
        title="AUPIMO",
        question="How much of the defects of an image is covered while nearly nothing of the "
        "normal images, 1 in 100,000 to 1 in 10,000 pixels, is reported?",
        chance="0",
        optional=True,
        flag="aupimo",
        states="zsad.metrics.pimo:PerImageOverlap",
        reference=f"{_REFERENCE}:aupimo",
    ),
)
METRICS: dict[str, MetricSpec] = {entry.name: entry for entry in _ENTRIES}


# -------------------------------------------------------------------------- which are computed
def names(level: Level | None = None) -> tuple[str, ...]:
    """The metrics that every record holds, of a level or of both."""
    return tuple(m.name for m in METRICS.values() if not m.optional and level in (None, m.level))


def chosen(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """The metrics that ``metrics.*`` settings ask for: all that are not optional, and those whose
    flag is set or that ``extra`` names."""
    extra = settings.get("extra") or ()
    return tuple(
        m.name
        for m in METRICS.values()
        if not m.optional or (settings.get(m.flag) if m.flag else m.name in extra)
    )


def check_extra(extra: Iterable[str]) -> None:
    """Raise ``ValueError`` unless ``extra`` names metrics that are computed on request only."""
    able = [m.name for m in METRICS.values() if m.optional and not m.flag]
    for name in extra:
        spec = METRICS.get(name)
        if spec is not None and spec.flag:
            raise ValueError(f"extra: {name} has a setting of its own; write {spec.flag}=true")
        if spec is not None and not spec.optional:
            raise ValueError(f"extra: {name} is always computed; leave it out")
        if spec is None:
            raise ValueError(f"extra: {unknown('metric', name, able)}")


# ------------------------------------------------------------------------- where they are shown
def headline() -> tuple[MetricSpec, ...]:
    """The metrics of the console and of every short summary."""
    return tuple(m for m in METRICS.values() if m.headline)


def drifting() -> tuple[MetricSpec, ...]:
    """The metrics by which runs in two precisions are compared."""
    return tuple(m for m in METRICS.values() if m.drift)


def few_shot(level: Level) -> tuple[str, ...]:
    """The metrics of a level in tables of shots and ablations, in their order there."""
    shown = [m for m in METRICS.values() if m.level == level and m.few_shot]
    return tuple(m.name for m in sorted(shown, key=lambda m: m.few_shot))


def tables(held: Collection[str] = ()) -> list[Grouped]:
    """The tables and their metrics: all that are not optional, and of the optional ones those
    ``held`` by a record."""
    found = []
    for group in GROUPS:
        members = [
            m
            for m in METRICS.values()
            if m.table == group.name and (not m.optional or m.name in held)
        ]
        if members:
            said = ((m.full_title if group.levels else m.heading or m.title) for m in members)
            title = f"{group.title} ({', '.join(said)})"
            found.append(Grouped(group.name, title, tuple(m.name for m in members)))
    return found


def glossary(held: Collection[str] = ()) -> list[MetricSpec]:
    """All metrics that are not optional, and the optional ones ``held`` by a record."""
    return [m for m in METRICS.values() if not m.optional or m.name in held]


def resampled() -> dict[str, MetricSpec]:
    """The metrics with intervals and tests, by name; the first is the default one."""
    return {m.name: m for m in METRICS.values() if m.rows}


def drawn() -> dict[str, MetricSpec]:
    """The pixel metrics with intervals and tests, by name."""
    return {m.name: m for m in METRICS.values() if m.drawn}


# ---------------------------------------------------------------------------- published figures
def of_printed(level: str, word: str) -> str:
    """The metric that a published table calls ``word`` at a level.  Raises ``KeyError``."""
    for m in METRICS.values():
        if m.level == level and word in m.printed:
            return m.name
    raise KeyError(f"{level} {word}")


def same_quantity(name: str) -> str:
    """The metric that is the quantity which papers print under the name of ``name``."""
    return next((m.name for m in METRICS.values() if m.stands_for == name), name)


# ------------------------------------------------------------------------------------ functions
def resolve(place: str) -> Any:
    """Import what ``module:name`` names."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)

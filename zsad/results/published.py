"""Numbers that the papers print, by our names of methods, datasets and metrics.  No torch.

The tables ``benchmarks/published/*.csv`` keep the papers' own names; ``names.yaml`` beside them
translates methods and ablation rows.  Values are in percent, as printed.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, Literal, NamedTuple, cast, get_args

import yaml

from zsad import config as cfg
from zsad.backbones import families
from zsad.backbones.specs import spec
from zsad.config.method_config import ALL_SHOTS, shots_in_words
from zsad.data.catalog import list_specs, load_spec
from zsad.data.index import PREPARED_VARIANT
from zsad.errors import DataError, counted
from zsad.metrics.spec import METRICS, of_printed, same_quantity
from zsad.protocols import ProtocolRow, load_protocol
from zsad.registry import list_protocols

FULL_SHOT = "full-shot"  # the protocol of rows that learned from all normal images
UNKNOWN = "unknown"  # of a printed row's backbone: its source does not say it
MEAN = "mean"  # the category of a figure over all categories of a dataset
_COLUMNS = [
    *("paper", "table", "protocol", "method", "dataset", "category"),
    *("level", "metric", "value", "std", "shots", "note"),
    *("kind", "backbone", "image_size", "trained_on", "train_part", "boxes", "prompts", "features"),
]
Kind = Literal["paper", "authors' log", "re-implementation", "secondary"]
KINDS: tuple[str, ...] = get_args(Kind)


@dataclass(frozen=True)
class RowConditions:
    """What a printed row was measured with, where it is known; "" and 0: as its protocol has it.

    ``backbone``: "unknown" where the paper does not say; ``boxes``: ``authors`` (a detector that
    they trained), ``none``, or "" for a method without; ``prompts``: the language model that wrote
    texts which are not at hand; ``features``: of another network than CLIP.
    """

    backbone: str = ""
    image_size: int = 0
    trained_on: str = ""
    train_part: str = ""
    boxes: str = ""
    prompts: str = ""
    features: str = ""


@dataclass(frozen=True)
class Reference:
    """One printed number.

    ``value``, ``std``: percent.  ``name``: the paper's name of the method or row; ``method``:
    ours (``name@row`` for an ablation or few-shot row), "" if it is not hosted.  ``category``:
    one category, or :data:`MEAN`.  ``metric``: our name; ``compare_with``: the metric of ours
    that is the same quantity.  ``protocol``: the protocol that reproduces its conditions; ``kind``:
    who measured it; ``conditions``: what its row used.
    """

    paper: str
    table: int
    protocol: str
    name: str
    methods: tuple[str, ...]
    dataset: str
    category: str
    metric: str
    value: float
    std: float | None = None
    shots: int | None = None
    note: str = ""
    kind: Kind = "paper"
    conditions: RowConditions = RowConditions()

    @property
    def method(self) -> str:
        """Our label of the method, "" if it is not hosted."""
        return self.methods[0] if self.methods else ""

    @property
    def compare_with(self) -> str:
        """The metric of ours that is the same quantity."""
        return same_quantity(self.metric)

    @property
    def text(self) -> str:
        """The number with its deviation, if there is one: "91.2 ± 0.3"."""
        return f"{self.value:.1f}" + (f" ± {self.std:.1f}" if self.std is not None else "")

    @property
    def source(self) -> str:
        """Where it is printed: "FAPrompt, Table 1"."""
        return f"{self.paper}, Table {self.table}" if self.table else self.paper

    def differences(self, info: Mapping[str, Any], metric: str = "") -> list[str]:
        """Reasons why a measured record is not this number's equal; empty if it matches.

        ``info``: a record's ``info`` (keys ``backbone``, ``image_size``, ``trained_on`` with its
        ``part``, ``boxes``, ``variant``, ``mask_resize``, ``limit``, ``untrained``; those absent
        are not compared).  ``metric``: the measured metric.
        """
        reasons: list[str] = []
        if self.protocol not in list_protocols():
            note = f" ({self.note})" if self.note else ""
            reasons.append(f"no protocol follows {self.source}{note}")
        measured = _measured(info)
        for key, value in self._wanted().items():
            found = measured.get(key)
            if found and value == UNKNOWN:
                reasons.append(f"{key} of the printed figure is not known")
            elif found and found != value:
                reasons.append(f"{key} {found}, not {value}")
        reasons += _of_boxes(self.conditions.boxes, info)
        if self.conditions.prompts:
            reasons.append(f"texts of {self.conditions.prompts} are not at hand")
        if self.conditions.features:
            other = families.specs().get(str(info.get("backbone")))
            own = f"features of {other.title}" if other else "features of CLIP"
            reasons.append(f"{own}, not of {self.conditions.features}")
        if info.get("limit"):
            reasons.append(f"only {counted(info['limit'], 'image')} per category")
        if info.get("untrained"):
            reasons.append("not trained")
        if metric and metric != self.compare_with:
            reasons.append(f"{metric} is another quantity than the paper's")
        return reasons

    @property
    def settings(self) -> dict[str, str]:
        """How the protocol runs methods, by the keys of a record's ``info``: what papers do not
        print, and change figures a little."""
        return _settings(self.protocol)

    def _wanted(self) -> dict[str, Any]:
        """The protocol's conditions, and over them those of the row."""
        own = self.conditions
        row = {
            "backbone": own.backbone,
            "image size": own.image_size,
            "trained on": own.trained_on,
            "trained on part": own.train_part if own.trained_on else "",
        }
        wanted = {**_conditions(self.protocol, self.dataset), **{k: v for k, v in row.items() if v}}
        if own.backbone == UNKNOWN:
            wanted.pop("image size", None)
        if own.trained_on and _own_part(own.trained_on):
            wanted.pop("trained on part", None)
        return wanted


def _of_boxes(wanted: str, info: Mapping[str, Any]) -> list[str]:
    """How the boxes of a record differ from those of a printed row."""
    held = info.get("boxes")
    if not wanted or not isinstance(held, Mapping):
        return []
    config = info.get("config")
    options = config.get("grounding") if isinstance(config, Mapping) else None
    off = isinstance(options, Mapping) and options.get("enabled") is False
    source = str(held.get("source") or "none")
    if wanted == "none":
        return [] if source == "none" else ["boxes of a detector, not none"]
    if off or source == "none" or (held.get("unanswered") and not held.get("answered")):
        return ["no boxes, not those of the authors' detector"]
    lacking = ["no boxes for some of the images"] * bool(held.get("unanswered"))
    if not held.get("recognised"):
        return [*lacking, "boxes of another detector than the authors'"]
    return lacking


@cache
def _own_part(dataset: str) -> bool:
    """Whether a dataset has a part to train on, so that there is no choice of parts."""
    return dataset in list_specs() and load_spec(dataset).training_split == "train"


def _measured(info: Mapping[str, Any]) -> dict[str, Any]:
    """The conditions of a record, by the names of :func:`_conditions`."""
    trained = info.get("trained_on")
    trained = trained if isinstance(trained, Mapping) else {"dataset": trained}
    variant = info.get("variant")
    return {
        "backbone": info.get("backbone"),
        "image size": info.get("image_size"),
        "trained on": trained.get("dataset"),
        "trained on part": trained.get("part") if trained.get("dataset") else None,
        "masks resized": info.get("mask_resize"),
        # what an index file of somebody's own holds is not known here
        "variant": None if variant == PREPARED_VARIANT else variant,
    }


@cache
def _conditions(protocol: str, dataset: str) -> dict[str, Any]:
    """What a protocol prescribes; conditions that it leaves open are absent.

    Where a protocol names no variant of a dataset, the default one is meant: the papers'.  The
    part counts only where the auxiliary dataset has a choice of parts.
    """
    if protocol not in list_protocols():
        return {}
    found = load_protocol(protocol)
    settings = cfg.build(cfg.Settings, found.settings, origin=protocol)
    name = settings.backbone.name
    auxiliary = found.auxiliary.of(dataset)
    own = _own_part(auxiliary)
    wanted = {
        "backbone": name,
        "image size": settings.backbone.image_size or spec(name).image_size,
        "trained on": auxiliary,
        "trained on part": "" if own else found.train_part,
        "masks resized": settings.data.mask_resize,
        "variant": settings.data.variants.get(dataset) or _default_variant(dataset),
    }
    return {key: value for key, value in wanted.items() if value}


@cache
def _settings(protocol: str) -> dict[str, str]:
    if protocol not in list_protocols():
        return {}
    found = cfg.build(cfg.Settings, load_protocol(protocol).settings, origin=protocol)
    return {"precision": found.backbone.figures, "names": found.data.names}


def _default_variant(dataset: str) -> str:
    """The default variant of a dataset, "" for a mean over datasets."""
    return load_spec(dataset).default_variant if dataset in list_specs() else ""


class Reason(NamedTuple):
    """Of which dataset or row printed numbers stand alone, and why."""

    what: str
    why: str


@dataclass
class Published:
    """All printed numbers.

    ``not_hosted``: systems shown from papers only, with the reason; ``not_run``: the reasons for
    ``rows`` and ``datasets`` that no run of a hosted method can be set beside, and for
    ``protocols`` that are not repeated here.
    """

    references: list[Reference]
    not_hosted: dict[str, str] = field(default_factory=dict)
    not_run: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._index: dict[tuple[str, str, str], list[Reference]] = defaultdict(list)
        for reference in self.references:
            for method in reference.methods:
                self._index[method, reference.dataset, reference.category].append(reference)

    @classmethod
    def load(cls) -> Published:
        """Read the bundled tables.  Raises :class:`DataError` that names the file and line."""
        return _load()

    def lookup(
        self,
        method: str,
        dataset: str,
        category: str = MEAN,
        metric: str | None = None,
        *,
        protocol: str | None = None,
        paper: str | None = None,
    ) -> list[Reference]:
        """Numbers for one of our methods (or rows ``name@row``), in the order of the tables.

        ``metric``: our name; that of the papers' own approximation of AUPRO finds what AUPRO
        finds.  Full-shot and few-shot numbers are listed under their own labels only.
        """
        known = METRICS.get(metric or "")
        names = {metric, known.stands_for if known else ""}
        return [
            r
            for r in self._index.get((method, dataset, category), ())
            if (metric is None or r.metric in names)
            and (protocol is None or r.protocol == protocol)
            and (paper is None or r.paper.lower() == paper.lower())
        ]

    def best(
        self, method: str, dataset: str, category: str, metric: str, info: Mapping[str, Any]
    ) -> Reference | None:
        """The number to set beside a record: the one whose conditions differ least.

        A recognised released file is set beside its authors' log, where there is one.  Figures
        whose conditions a protocol reproduces come before those of other sources.  Among equals
        the record's protocol counts, then a paper's own figure for its own method, then table
        order.
        """
        found = self.lookup(method, dataset, category, metric)
        compared = same_quantity(metric)
        trained = info.get("trained_on")
        recognised = bool(isinstance(trained, Mapping) and trained.get("recognised"))
        if recognised:  # the authors' own file belongs beside the authors' own figures
            found = [r for r in found if r.kind == "authors' log"] or found
        return min(
            found,
            key=lambda r: (
                r.protocol not in list_protocols(),
                len(r.differences(info, compared)) + (r.kind != "paper" and not recognised),
                r.protocol != info.get("protocol"),
                r.name != r.paper,
            ),
            default=None,
        )

    def why_not(self, reference: Reference) -> Reason | None:
        """Why no run can be set beside a number of a hosted method; None if one can."""
        datasets, rows = self.not_run.get("datasets") or {}, self.not_run.get("rows") or {}
        if why := datasets.get(reference.dataset):
            return Reason(reference.dataset, why)
        if why := _row_of(rows.get(reference.protocol) or {}, reference):
            return Reason(reference.name, why)
        return None

    def beyond_runs(self) -> dict[Reason, list[Reference]]:
        """The numbers of hosted methods that no run can be set beside, by the reason."""
        found: dict[Reason, list[Reference]] = {}
        for reference in self.references:
            hosted = reference.methods or reference.name not in self.not_hosted
            if hosted and (reason := self.why_not(reference)):
                found.setdefault(reason, []).append(reference)
        return found

    def disagreements(
        self, method: str, dataset: str, category: str, metric: str
    ) -> dict[float, list[Reference]]:
        """What papers print for the same figure, value by value, where it is not one value.

        Zero-shot figures of the papers themselves; no authors' logs and no rows of ablations."""
        found: dict[float, list[Reference]] = {}
        for r in self.lookup(method, dataset, category, metric):
            if r.kind == "paper" and not r.protocol.endswith("-ablation"):
                found.setdefault(r.value, []).append(r)
        return found if len(found) > 1 else {}


def _row_of(rows: Mapping[str, str], reference: Reference) -> str | None:
    """The entry of a paper's row, by its name or its name with the number of shots."""
    return rows.get(reference.name) or rows.get(f"{reference.name} ({reference.shots}-shot)")


@cache
def _load() -> Published:
    folder = files("zsad.benchmarks") / "published"
    names = yaml.safe_load((folder / "names.yaml").read_text(encoding="utf-8"))
    tables = sorted((f for f in folder.iterdir() if f.name.endswith(".csv")), key=lambda f: f.name)
    references = [
        reference
        for table in tables
        for reference in read_table(table.read_text(encoding="utf-8"), table.name, names)
    ]
    lists = dict(names.get("not_hosted") or {}), dict(names.get("not_run") or {})
    return Published(references, *lists)


def read_table(text: str, origin: str, names: Mapping[str, Any]) -> Iterable[Reference]:
    """Parse one CSV table.  Raises :class:`DataError` that names the file and the line."""
    reader = csv.DictReader(text.splitlines())
    if reader.fieldnames is None or list(reader.fieldnames) != _COLUMNS:
        raise DataError(f"{origin}, line 1: columns must be {','.join(_COLUMNS)}")
    for number, row in enumerate(reader, start=2):
        try:
            metric = of_printed(row["level"], row["metric"])
            shots = int(row["shots"]) if row["shots"] else None
            yield Reference(
                paper=row["paper"],
                table=int(row["table"]),
                protocol=row["protocol"],
                name=row["method"],
                methods=_ours(row["protocol"], row["method"], shots, names),
                dataset=row["dataset"],
                category=MEAN if row["category"] in ("all", "mean") else row["category"],
                metric=metric,
                value=float(row["value"]),
                std=float(row["std"]) if row["std"] else None,
                shots=shots,
                note=row["note"],
                kind=_kind(row["kind"]),
                conditions=RowConditions(
                    backbone=row["backbone"],
                    image_size=int(row["image_size"] or 0),
                    **{k: row[k] for k in _COLUMNS[-5:]},
                ),
            )
        except (KeyError, ValueError, TypeError) as error:
            raise DataError(f"{origin}, line {number}: {error!r} is not a valid entry") from None


def _kind(word: str) -> Kind:
    if word not in KINDS:
        raise ValueError(f"kind '{word}' is none of {', '.join(KINDS)}")
    return cast("Kind", word)


def _ours(protocol: str, name: str, shots: int | None, names: Mapping[str, Any]) -> tuple[str, ...]:
    """Our labels for a name of a paper; empty if it is not hosted under these conditions."""
    rows = (names.get("rows") or {}).get(protocol)
    if rows is not None:
        found = rows.get(name) or rows.get(f"{name} ({shots}-shot)")
        if not found:
            return ()
        return (f"{found[0]}@{ProtocolRow(found[1], found[0]).slug}" if found[1:] else found[0],)
    methods = tuple((names.get("methods") or {}).get(name) or ())
    if shots or protocol == FULL_SHOT:
        words = shots_in_words(shots or ALL_SHOTS)
        return tuple(f"{m}@{ProtocolRow(words, m).slug}" for m in methods)
    return methods

"""The plan of a sweep: which cells exist, which are stored, what each depends on.  No torch."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from zsad import config as cfg
from zsad.data import provenance, splits
from zsad.data.account import Account
from zsad.data.index import DatasetIndex, load_index
from zsad.errors import RequestError, ZsadError
from zsad.grounding import weight_files
from zsad.prompt_bank.bank import bank
from zsad.results.records import CellKey
from zsad.results.store import ResultStore
from zsad.runner.auxiliary import AuxiliaryData, auxiliary_samples, of_state
from zsad.runner.columns import Column
from zsad.runner.given import auxiliary_name, content_of, given_for
from zsad.runner.request import Request
from zsad.types import Sample

log = logging.getLogger(__name__)

# An auxiliary dataset, the part of it that is trained on, and the column's label where its images
# are those of the state that comes with the method.
Auxiliary = tuple[str, str, str]

# Raised whenever a change of the code changes numbers for an unchanged request.
NUMBERS_VERSION = 1


@dataclass
class DatasetPlan:
    """All cells of one dataset.  ``todo`` maps (column label, seed, category) to its key;
    ``older``: when the records were stored that are there and are to be made again."""

    name: str
    index: DatasetIndex
    samples: dict[str, list[Sample]]
    todo: dict[tuple[str, int, str], CellKey] = field(default_factory=dict)
    stored: dict[tuple[str, int, str], CellKey] = field(default_factory=dict)
    older: dict[CellKey, float] = field(default_factory=dict)

    def is_done(self, store: ResultStore, key: CellKey) -> bool:
        """Whether the store holds a record of the cell that this run asked for: any one, or, if
        it is to be made again, one that was not there when the plan was made."""
        written = store.written(key)
        return written is not None and written != self.older.get(key)

    def columns_to_do(self, request: Request) -> list[tuple[Column, tuple[int, ...]]]:
        """Columns with a cell to do, and the seeds that one method instance can fill."""
        groups: list[tuple[Column, tuple[int, ...]]] = []
        for column in request.columns:
            seeds = tuple(
                s
                for s in request.seeds_of(column)
                if any((column.label, s, c) in self.todo for c in self.samples)
            )
            if seeds:
                groups += [(column, (s,)) for s in seeds] if column.seeded else [(column, seeds)]
        return groups


@dataclass
class Plan:
    """The whole sweep.  ``unplanned``: datasets that cannot be read, with the error.
    ``image_size``: of a loaded backbone, in pixels; 0 where none was loaded."""

    request: Request
    weights_id: str
    demo: bool
    datasets: list[DatasetPlan] = field(default_factory=list)
    unplanned: dict[str, ZsadError] = field(default_factory=dict)
    auxiliaries: dict[Auxiliary, AuxiliaryData | ZsadError] = field(default_factory=dict)
    image_size: int = 0

    @property
    def n_pictures(self) -> int:
        """The pictures of all cells, whether stored or to do."""
        return sum(len(s) for dataset in self.datasets for s in dataset.samples.values())

    @property
    def n_todo(self) -> int:
        return sum(len(d.todo) for d in self.datasets)

    def cells(self) -> Iterator[tuple[CellKey, bool]]:
        """Every cell with whether it is stored already, in table order."""
        for dataset in self.datasets:
            for column in self.request.columns:
                for seed in self.request.seeds_of(column):
                    for category in dataset.samples:
                        at = (column.label, seed, category)
                        if at in dataset.stored:
                            yield dataset.stored[at], True
                        elif at in dataset.todo:
                            yield dataset.todo[at], False

    def results(self, store: ResultStore) -> Iterator[tuple[CellKey, bool]]:
        """Every cell with whether the store holds what was asked for, in table order."""
        by_name = {dataset.name: dataset for dataset in self.datasets}
        return ((key, by_name[key.dataset].is_done(store, key)) for key, _ in self.cells())

    def auxiliary(self, column: Column, dataset: str) -> Auxiliary:
        """What a trained column learns from when ``dataset`` is the target; it is indexed once."""
        name = auxiliary_name(self.request, dataset, column)
        part = self.request.settings_of(column).data.train_part
        plain, own = (name, part, ""), (name, part, column.label)
        if plain not in self.auxiliaries:
            try:
                self.auxiliaries[plain] = auxiliary_samples(self.request, name, part)
            except ZsadError as error:
                self.auxiliaries[plain] = error
        data = self.auxiliaries[plain]
        if isinstance(data, ZsadError):
            return plain
        if own not in self.auxiliaries:
            found = of_state(self.request, column, data, self.weights_id)
            self.auxiliaries[own] = found or data
        return plain if self.auxiliaries[own] is data else own

    def accounts(self) -> dict[str, Account]:
        """What every file was taken for, of the users' own datasets."""
        return {d.name: a for d in self.datasets if (a := d.index.account) is not None}

    def missing(self) -> dict[str, list[str]]:
        """The categories of each dataset that hold no picture, where there are any."""
        return {d.name: list(d.index.missing) for d in self.datasets if d.index.missing}


def describe(plans: Sequence[Plan]) -> dict[str, Any]:
    """A JSON-ready account for ``--dry-run``: of one plan per backbone, on the same datasets."""
    first = plans[0]
    return {
        "results_dir": str(first.request.results),
        "backbone": ", ".join(p.request.settings.backbone.name for p in plans),
        "cells": [{**key.document(), "stored": done} for p in plans for key, done in p.cells()],
        "images": {d.name: sum(map(len, d.samples.values())) for d in first.datasets},
        "to_run": sum(p.n_todo for p in plans),
        "accounts": {name: a.document() for name, a in first.accounts().items()},
        "missing": first.missing(),
        "failed": [
            {"cell": {"dataset": name}, "error": str(error)}
            for name, error in first.unplanned.items()
        ],
    }


def build_plan(request: Request, store: ResultStore, weights_id: str, demo: bool) -> Plan:
    """Index the datasets, expand the cells and drop those that the store holds.

    ``weights_id`` identifies the backbone's weights (a hash, or "random").
    A dataset that cannot be read is recorded, and the others go on.
    """
    plan = Plan(request, weights_id, demo)
    for name in request.datasets:
        try:
            variant = request.settings.data.variants.get(name)
            index = load_index(name, request.data_root, variant=variant)
            index = provenance.checked(request.results, index)
            index = index.calling(request.settings.data.names)
            samples = splits.evaluated(index, request.limit)
        except RequestError:
            raise
        except ZsadError as error:
            plan.unplanned[name] = error
            continue
        dataset = DatasetPlan(name, index, samples)
        plan.datasets.append(dataset)
        for column in request.columns:
            trained = _training_identity(plan, column, name)
            for seed in request.seeds_of(column):
                for category, chosen in samples.items():
                    key = CellKey(
                        column.label,
                        name,
                        category,
                        seed,
                        fingerprint(
                            request, column, index, category, chosen, seed, weights_id, trained
                        ),
                    )
                    at, written = (column.label, seed, category), store.written(key)
                    again = request.fresh or _other_boxes(request, column, key, store)
                    again = again or _other_source(column, key, store)
                    if written is not None and not again:
                        dataset.stored[at] = key
                        continue
                    dataset.todo[at] = key
                    if written is not None:
                        dataset.older[key] = written
    return plan


def auxiliary_of(plan: Plan, column: Column, dataset: str) -> AuxiliaryData:
    """The auxiliary data of a column and target.  Raises its :class:`ZsadError`."""
    found = plan.auxiliaries[plan.auxiliary(column, dataset)]
    if isinstance(found, ZsadError):
        raise found
    return found


def _training_identity(plan: Plan, column: Column, dataset: str) -> str:
    """What a trained column's state depends on; '' for training-free ones."""
    if not column.entry.trained:
        return ""
    if plan.request.untrained:
        return "untrained"
    if column.checkpoint is not None:
        return f"file:{content_of(given_for(plan.request, column, dataset), column)}"
    try:
        auxiliary = auxiliary_of(plan, column, dataset)
    except ZsadError as error:
        return f"unavailable:{error}"
    return f"on:{auxiliary.digest}{_answers_digest(column, auxiliary)}"


def _answers_digest(column: Column, auxiliary: AuxiliaryData) -> str:
    """What a vision model said about the training images, '' where none was ever asked."""
    config = column.config
    if config.caption_source not in ("endpoint", "auto"):
        return ""
    from zsad.prompt_bank.vision import read_answers

    keys = dict.fromkeys(s.category for s in auxiliary.samples)
    categories = [auxiliary.index.categories[key] for key in keys]
    answers = read_answers(config.prompt_kind, config.caption_count, categories)
    return "" if answers is None else f":{cfg.digest(answers)}"


def _bank_digest(column: Column, index: DatasetIndex, category: str) -> str:
    """The texts of the prompt bank that the column's method reads for a category; '' for none."""
    kind = column.config.prompt_kind
    entry = bank().find(kind, index.categories[category]) if kind else None
    return entry.digest if entry else ""


def _boxes(request: Request, column: Column, dataset: str) -> str:
    """The detector that a column's boxes come from, "" for none, and for what its options name."""
    options = cfg.to_dict(column.config).get("grounding")
    if not isinstance(options, dict):
        return ""
    return weight_files.identity(options, dataset, offline=request.offline)


def _other_boxes(request: Request, column: Column, key: CellKey, store: ResultStore) -> bool:
    """Whether a stored cell was made without the boxes, or with others than those, that the
    detector it asks for by name would give now; its fingerprint does not hold its weights."""
    options = cfg.to_dict(column.config).get("grounding")
    if not isinstance(options, dict) or not store.has(key):
        return False
    boxes = store.get(key).info.get("boxes")
    known = boxes if isinstance(boxes, Mapping) else {}
    return weight_files.outdated(options, key.dataset, known, offline=request.offline)


def _other_source(column: Column, key: CellKey, store: ResultStore) -> bool:
    """Whether a stored cell was computed by other files of somebody's own method than those of
    now; its fingerprint does not hold them."""
    written = column.entry.source_digest()
    held = store.get(key).info.get("source") if written and store.has(key) else None
    if held in (None, written):
        return False
    log.warning(
        "%s: its files have changed since %s/%s was computed; it is computed again (trained states "
        "are kept: raise its revision for others)",
        *(column.label, key.dataset, key.category),
    )
    return True


def fingerprint(
    request: Request,
    column: Column,
    index: DatasetIndex,
    category: str,
    samples: list[Sample],
    seed: int,
    weights_id: str,
    trained: str,
) -> str:
    """Hash everything that can change a number of the cell; no path, no clock, no batch size.

    What came later (keys declared by :func:`zsad.config.added`, a method's revision) is hashed
    only where it is not at its default: cells that were stored before are still found.
    """
    used = request.settings_of(column)
    settings = cfg.to_dict(used)
    data = {k: settings["data"][k] for k in ("mask_resize", "train_part")}
    backbone = {k: settings["backbone"][k] for k in ("name", "image_size")}
    backbone["precision"] = used.backbone.figures
    identity: Mapping[str, Any] = {
        "version": NUMBERS_VERSION,
        "method": column.entry.name,
        "config": cfg.hashed(column.config.for_target(index.spec.name)),
        "backbone": backbone,
        "weights": weights_id,
        "data": data,
        "metrics": cfg.identity(request.metrics_of(index.spec)),
        "dataset": [index.spec.name, index.variant, index.fingerprint, category],
        "samples": [s.uid for s in samples],
        "seed": seed if column.seeded else 0,
        "trained": trained,
        "texts": _bank_digest(column, index, category),
    }
    if boxes := _boxes(request, column, index.spec.name):
        identity = {**identity, "boxes": boxes}
    if column.entry.revision > 1:
        identity = {**identity, "revision": column.entry.revision}
    later = cfg.set_later(used)  # merged by section: the rest is large, and nothing in it changes
    sections = {
        name: cfg.merge({name: identity.get(name, {})}, {name: later[name]})[name] for name in later
    }
    return cfg.digest({**identity, **sections}, 16)

"""Trained columns: `zsad train`, and the checkpoints that a sweep finds, makes and loads."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zsad import checkpoints
from zsad.backbones import Backbone
from zsad.backbones.devices import choose_device, deterministically
from zsad.checkpoints.account import account_of
from zsad.config.sections import COMMAND_LINE
from zsad.data.index import DatasetIndex
from zsad.errors import RequestError, counted, reason
from zsad.method import AnyMethod
from zsad.runner.auxiliary import AuxiliaryData, auxiliary_samples
from zsad.runner.columns import Column
from zsad.runner.given import Given, content_of, other_revision
from zsad.runner.heads import build_method
from zsad.runner.options import TrainOptions
from zsad.runner.progress import TrainingProgress
from zsad.runner.request import Request, request_of, require_results
from zsad.training.feature_store import FeatureStore
from zsad.training.loggers import require_loggers
from zsad.types import Sample

if TYPE_CHECKING:
    from zsad.training import FitOptions, TrainResult

log = logging.getLogger(__name__)


@dataclass
class Checkpoints:
    """The checkpoints of one target dataset, by (column label, seed).

    An entry is the file, or the error that kept it from being made.
    """

    found: dict[tuple[str, int], Path | Exception] = field(default_factory=dict)

    def of(self, column: Column, seed: int) -> Path | None:
        """The state that was made for a column; None if it has nothing to load.  Raises the stored
        error."""
        result = self.found.get((column.label, seed))
        if isinstance(result, Exception):
            raise result
        return result


def provide(
    columns: Sequence[tuple[Column, int]],
    auxiliary: Callable[[Column], AuxiliaryData],
    backbone: Backbone,
    request: Request,
    store: FeatureStore | None = None,
    on_event: Callable[[str], None] = lambda text: None,
) -> Checkpoints:
    """Make sure that every (column, seed) has its checkpoint, training together what is missing.

    A method whose training fails keeps its own error and costs the others nothing.
    """
    out = Checkpoints()
    wanted = [(c, s) for c, s in columns if c.entry.trained and c.checkpoint is None]
    if not wanted or request.untrained:
        return out
    groups: list[tuple[AuxiliaryData, int, list[Column]]] = []
    for seed in dict.fromkeys(s for _, s in wanted):
        for column in (c for c, s in wanted if s == seed):
            try:
                data = auxiliary(column)
                if _trainable(column, backbone):
                    _join(groups, data, seed, column, request)
            except Exception as error:  # what does not fit costs only its own column
                out.found[column.label, seed] = error
    for data, seed, group in groups:
        names = ", ".join(c.label for c in group)
        on_event(
            f"training data for {names}: {data.dataset}, {counted(len(data.samples), 'image')}"
        )
        results = _each(group, data, backbone, request, seed, store=store)
        for column, result in zip(group, results):
            made = result if isinstance(result, Exception) else result.checkpoint
            out.found[column.label, seed] = made
    return out


def _join(
    groups: list[tuple[AuxiliaryData, int, list[Column]]],
    data: AuxiliaryData,
    seed: int,
    column: Column,
    request: Request,
) -> None:
    """Put a column among those that are trained together: on the same data, in the same way."""
    for known, known_seed, members in groups:
        if (known.digest, known_seed) == (data.digest, seed) and (
            request.settings_of(members[0]) == request.settings_of(column)
        ):
            members.append(column)
            return
    groups.append((data, seed, [column]))


def _trainable(column: Column, backbone: Backbone) -> bool:
    """False for an ablation row in which every trained part is switched off."""
    return bool(column.entry.load()(column.config, backbone.info).phases())


def _each(
    columns: Sequence[Column],
    data: AuxiliaryData,
    backbone: Backbone,
    request: Request,
    seed: int,
    *,
    store: FeatureStore | None = None,
    options: FitOptions | None = None,
) -> list[TrainResult | Exception]:
    """Train columns of equal settings together; if that fails, one by one, so that each keeps its
    own error."""
    from zsad.training import ensure_trained

    def ensure(some: Sequence[Column]) -> list[TrainResult]:
        return ensure_trained(
            [(c.entry, c.config) for c in some],
            data.index,
            data.samples,
            backbone,
            settings=request.settings_of(columns[0]),
            seed=seed,
            root=request.results,
            part=data.part,
            store=store,
            options=options,
        )

    try:
        return [*ensure(columns)]
    except Exception as error:  # a method is foreign code, and so is the device
        log.debug("training together failed", exc_info=True)
        if len(columns) == 1:
            return [error]
    found: list[TrainResult | Exception] = []
    for column in columns:
        try:
            found += ensure([column])
        except Exception as error:
            log.debug("training %s failed", column.label, exc_info=True)
            found.append(error)
    return found


def trained_method(
    column: Column,
    seed: int,
    made: Path | None,
    given: Given | None,
    backbone: Backbone,
    device: Any,
    target: DatasetIndex,
    evaluated: Sequence[Sample],
) -> tuple[AnyMethod, dict[str, Any]]:
    """Load a column's state; return it and what it was trained on, for the record.

    ``made``: the state that the run found or trained; ``given``: the user's file, in its place.
    Raises :class:`zsad.errors.RequestError` if it was trained on what it would be evaluated on.
    """
    path = given.path if given else made
    if path is None:
        return build_method(column, backbone, seed, device), {"dataset": "", "part": "nothing"}
    from zsad.training.leaks import guard

    meta = account_of(path)
    row = given.origin.released if given else None
    leaks = guard(meta, target, evaluated, row)
    layers = [(COMMAND_LINE, column.given)] if given else []
    method, notes = checkpoints.load_into(column.entry, path, backbone.info, layers)
    if given is None:
        method.config = column.config  # keys that only inference reads may differ from training
    account: dict[str, Any] = {
        "checkpoint": path.name,
        "notes": [*notes, *(given.notes if given else ())],
        "leaks": leaks,
    }
    data = meta.trained_on if meta else None
    if meta is not None and data is not None:
        account |= {"dataset": data.dataset, "part": data.part, "images": len(data.uids)}
        account["epochs"] = meta.epochs
        if given and (revision := other_revision(given.origin, column)) is not None:
            account["revision"] = revision
        if meta.source_file is not None and meta.source_file.said_by == "user":
            account["said_by"] = "whoever imported it"
    elif row is not None:
        account |= {"dataset": " + ".join(row.trained_on), "part": row.part}
    elif meta is None or meta.source == "official":
        account["dataset"] = "as released"
    if given is not None:
        account["sha256"] = content_of(given, column)
    if row is not None:
        account["epochs"] = row.epoch
        account["recognised" if row.official else "known_as"] = row.name
    return method.to(device).eval(), account


# ---------------------------------------------------------------------------- `zsad train`
def train(options: TrainOptions) -> dict[str, Any]:
    """Train every chosen method on one dataset, for every seed.

    Returns ``{"results_dir", "on", "banner", "checkpoints": [...], "failed": [...]}``; ``banner``:
    what has to be said of the backbone's weights, or "".  What exists already is not trained again;
    what was killed goes on.  Raises :class:`RequestError` for training-free methods or more than
    one dataset.
    """
    from zsad.runner.heads import load_backbone
    from zsad.training import FitOptions

    request = request_of(options, options.methods, options.on)
    if len(request.datasets) != 1:
        raise RequestError(f"--on {','.join(request.datasets)}: give one dataset to train on")
    free = [c.label for c in request.columns if not c.entry.trained]
    if free:
        raise RequestError(f"--methods: {', '.join(free)} is training-free; leave it out")
    if given := [c for c in request.columns if c.checkpoint is not None]:
        raise RequestError(
            f"{given[0].entry.name}.checkpoint: `zsad train` makes one and reads none; leave it out"
        )
    require_loggers(options.logger)
    require_results(request.results)
    device = choose_device(request.device)
    made: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    seen: list[AuxiliaryData] = []
    banners: dict[str, None] = {}
    counters: Counter[str] = Counter()
    devices = int(options.devices) if str(options.devices).isdigit() else options.devices
    with (
        deterministically(request.settings.run.deterministic, device),
        TrainingProgress(options.progress) as bar,
    ):
        how = FitOptions(
            devices=devices,
            strategy=options.strategy,
            logger=options.logger,
            progress=bar.step,
        )
        for part in request.parts():
            backbone = load_backbone(part, device)
            for data, seed, group in _groups(part):
                seen.append(data)
                for column, result in zip(
                    group, _each(group, data, backbone, part, seed, options=how)
                ):
                    if isinstance(result, Exception):
                        cell = {"method": column.label, "seed": seed}
                        failed.append({"cell": cell, "error": reason(result)})
                    else:
                        made.append(_made(column, seed, result))
            banners[backbone.info.banner] = None
            counters.update(backbone.counters.as_dict())
    data = seen[0]
    return {
        "results_dir": str(request.results),
        "on": {
            "dataset": data.dataset,
            "variant": data.index.variant,
            "part": " and ".join(dict.fromkeys(d.part for d in seen)),
            "images": max(len(d.samples) for d in seen),
        },
        "banner": "; ".join(filter(None, banners)),
        "checkpoints": made,
        "failed": failed,
        "counters": dict(counters),
    }


def _groups(request: Request) -> list[tuple[AuxiliaryData, int, list[Column]]]:
    """What is trained together on the dataset of ``--on``: by seed, and by part of it."""
    found: list[tuple[AuxiliaryData, int, list[Column]]] = []
    known: dict[str, AuxiliaryData] = {}
    for seed in dict.fromkeys(s for c in request.columns for s in request.seeds_of(c)):
        for column in request.columns:
            part = request.settings_of(column).data.train_part
            if part not in known:
                known[part] = auxiliary_samples(request, request.datasets[0], part)
            if seed in request.seeds_of(column):
                _join(found, known[part], seed, column, request)
    return found


def _made(column: Column, seed: int, result: TrainResult) -> dict[str, Any]:
    return {
        "method": column.label,
        "seed": seed,
        "checkpoint": str(result.checkpoint),
        "seconds": round(result.seconds, 3),
        "reused": result.reused,
        "history": result.history,
    }

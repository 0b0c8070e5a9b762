"""Trained columns: find their checkpoints, train what is missing, load the state."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zsad import checkpoints
from zsad.backbones import Backbone
from zsad.data.index import DatasetIndex
from zsad.features import FeatureStore
from zsad.method import AnyMethod
from zsad.runner.heads import build_method
from zsad.runner.plan import Auxiliary
from zsad.runner.request import COMMAND_LINE, Column, Request
from zsad.types import Sample

log = logging.getLogger(__name__)


@dataclass
class Checkpoints:
    """The checkpoints of one target dataset, by (column label, seed).

    An entry is the file, or the error that kept it from being made.
    """

    found: dict[tuple[str, int], Path | Exception] = field(default_factory=dict)

    def of(self, column: Column, seed: int) -> Path | None:
        """The file of a column; None if it has nothing to load.  Raises the stored error."""
        if column.checkpoint:
            return Path(column.checkpoint)
        result = self.found.get((column.label, seed))
        if isinstance(result, Exception):
            raise result
        return result


def provide(
    columns: Sequence[tuple[Column, int]],
    auxiliary: Callable[[], Auxiliary],
    backbone: Backbone,
    request: Request,
    store: FeatureStore | None = None,
    on_event: Callable[[str], None] = lambda text: None,
) -> Checkpoints:
    """Make sure that every (column, seed) has its checkpoint, training together what is missing.

    A method whose training fails keeps its own error and costs the others nothing.
    """
    out = Checkpoints()
    wanted = [(c, s) for c, s in columns if c.entry.trained and not c.checkpoint]
    if not wanted or request.untrained:
        return out
    try:
        data = auxiliary()
    except Exception as error:
        out.found.update({(c.label, s): error for c, s in wanted})
        return out
    for seed in dict.fromkeys(s for _, s in wanted):
        group = []
        for column in (c for c, s in wanted if s == seed):
            try:
                if _trainable(column, backbone):
                    group.append(column)
            except Exception as error:  # a config that does not fit costs only its own column
                out.found[column.label, seed] = error
        if not group:
            continue
        names = ", ".join(c.label for c in group)
        on_event(f"training data for {names}: {data.dataset}, {len(data.samples)} images")
        try:
            results = _ensure(group, data, backbone, request, seed, store)
        except Exception as first:
            log.debug("training together failed", exc_info=True)
            results = [_alone(c, data, backbone, request, seed, store, first) for c in group]
        out.found.update({(c.label, seed): r for c, r in zip(group, results)})
    return out


def _trainable(column: Column, backbone: Backbone) -> bool:
    """False for an ablation row in which every trained part is switched off."""
    return bool(column.entry.load()(column.config, backbone.info).phases())


def _ensure(
    columns: Sequence[Column],
    data: Auxiliary,
    backbone: Backbone,
    request: Request,
    seed: int,
    store: FeatureStore | None,
) -> list[Path | Exception]:
    from zsad.training import ensure_trained

    results = ensure_trained(
        [(c.entry, c.config) for c in columns],
        data.index,
        data.samples,
        backbone,
        settings=request.settings,
        seed=seed,
        root=request.results,
        part=data.part,
        store=store,
    )
    return [r.checkpoint for r in results]


def _alone(
    column: Column,
    data: Auxiliary,
    backbone: Backbone,
    request: Request,
    seed: int,
    store: FeatureStore | None,
    first: Exception,
) -> Path | Exception:
    try:
        return _ensure([column], data, backbone, request, seed, store)[0]
    except Exception as error:
        log.debug("training %s failed", column.label, exc_info=True)
        return error or first


def trained_method(
    column: Column,
    seed: int,
    path: Path | None,
    backbone: Backbone,
    device: Any,
    target: DatasetIndex,
    evaluated: Sequence[Sample],
) -> tuple[AnyMethod, dict[str, Any]]:
    """Load a column's state; return it and what it was trained on, for the record.

    Raises :class:`zsad.errors.RequestError` if it was trained on what it would be evaluated on.
    """
    if path is None:
        return build_method(column, backbone, seed, device), {"dataset": "", "part": "nothing"}
    from zsad.training.provision import guard

    given = [(COMMAND_LINE, column.given)] if column.checkpoint else []
    meta = checkpoints.read_meta(path)
    guard(meta, target.spec.name, evaluated)
    method, notes = checkpoints.load_into(column.entry, path, backbone.info, given)
    if not column.checkpoint:
        method.config = column.config  # keys that only inference reads may differ from training
    account: dict[str, Any] = {"checkpoint": path.name, "notes": list(notes)}
    if meta is not None and meta.trained_on is not None:
        account["dataset"] = meta.trained_on.dataset
        account["part"] = meta.trained_on.part
        account["images"] = len(meta.trained_on.uids)
        account["epochs"] = meta.epochs
    elif meta is None or meta.source == "official":
        account["dataset"] = "as released"
    return method.to(device).eval(), account

"""What a Ray task does: load the backbone once per process, then train, or run shards.

Workers share the results folder with the driver and nothing else.  Ray imports this module on
every node; it does not import Ray.
"""

from __future__ import annotations

import os
import pickle
import socket
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from zsad import __version__, registry
from zsad.backbones import Backbone
from zsad.backbones.devices import (
    choose_device,
    deterministically,
    device_account,
    share_memory,
)
from zsad.errors import CellError, RequestError, ZsadError
from zsad.results.store import ResultStore
from zsad.runner.auxiliary import AuxiliaryData
from zsad.runner.columns import Column
from zsad.runner.heads import load_backbone
from zsad.runner.plan import Plan
from zsad.runner.ray.shards import Shard
from zsad.runner.request import Request
from zsad.runner.sweep import Sweep
from zsad.runner.training import Checkpoints, provide
from zsad.types import BackboneInfo


@dataclass(frozen=True)
class Setup:
    """What every task of a run needs.  ``request`` is pickled: its configs may be of classes
    that only ``plugins`` makes importable.  ``sign``: a file that lies in the results folder
    while the run lasts."""

    request: bytes
    plugins: tuple[str, ...]
    folder: str
    sign: str
    version: str = __version__


@dataclass(frozen=True)
class Worker:
    """Where a task ran.  ``loads``: how often the process has loaded a backbone so far."""

    node: str
    process: int
    loads: int


@dataclass(frozen=True)
class Description:
    """The backbone and the device as a worker sees them."""

    info: BackboneInfo
    device: dict[str, Any]
    worker: Worker


@dataclass(frozen=True)
class TaskReport:
    """What a task did.  ``done`` and ``found``: cells computed, and cells that an earlier attempt
    had stored; ``checkpoints``: of a training task."""

    worker: Worker
    counters: dict[str, int]
    seconds: dict[str, float] = field(default_factory=dict)
    batch_sizes: tuple[int, ...] = ()
    done: int = 0
    found: int = 0
    checkpoints: Checkpoints | None = None


_LOADED: dict[Any, tuple[Backbone, torch.device]] = {}
_LOADS = 0


def describe(setup: Setup) -> Description:
    """Load the backbone, and say what it is and where."""
    request = _request(setup)
    backbone, device = _backbone(request)
    return Description(backbone.info, device_account(device), _worker())


def train(setup: Setup, auxiliary: AuxiliaryData, wanted: list[tuple[str, int]]) -> TaskReport:
    """Make the checkpoints of (column label, seed)s that learn from ``auxiliary``."""
    request = _request(setup)
    backbone, device = _backbone(request)
    _know(auxiliary.index.spec.module)
    before = backbone.counters.as_dict()
    columns = {c.label: c for c in request.columns}
    pairs: list[tuple[Column, int]] = [(columns[label], seed) for label, seed in wanted]
    with deterministically(request.settings.run.deterministic, device):
        made = provide(pairs, lambda column: auxiliary, backbone, request)
    made.found = {at: _portable(at[0], result) for at, result in made.found.items()}
    return TaskReport(_worker(), _since(backbone, before), checkpoints=made)


def evaluate(setup: Setup, weights_id: str, shard: Shard, checkpoints: Checkpoints) -> TaskReport:
    """Run the cells of a shard that are not stored yet, straight into the results folder."""
    request = _request(setup)
    backbone, device = _backbone(request)
    if backbone.info.weights_sha256 != weights_id:
        raise RequestError(
            f"{socket.gethostname()} loads other weights of {backbone.info.name} than "
            f"the node that the run was planned on; put the same file on all nodes"
        )
    _know(shard.plan.index.spec.module)
    store = ResultStore(request.results)
    todo = {
        at: key
        for at, key in shard.plan.todo.items()
        if request.fresh or not shard.plan.is_done(store, key)
    }
    plan = Plan(request, weights_id, backbone.info.demo, [replace(shard.plan, todo=todo)])
    before = backbone.counters.as_dict()
    sweep = Sweep(plan, backbone, store, device, trained=checkpoints)
    with deterministically(request.settings.run.deterministic, device):
        sweep.run()
    return TaskReport(
        _worker(),
        _since(backbone, before),
        dict(sweep.seconds),
        tuple(sweep.batch_sizes),
        sweep.done,
        len(shard.plan.todo) - len(todo),
    )


# ------------------------------------------------------------------------------- helpers
def _request(setup: Setup) -> Request:
    """The request, in the driver's folder.  Raises :class:`RequestError` if this node is not
    fit for the run."""
    node = socket.gethostname()
    if setup.version != __version__:
        raise RequestError(
            f"{node} has zsad {__version__}, the driver {setup.version}; install the same one"
        )
    if os.path.isdir(setup.folder):
        os.chdir(setup.folder)  # paths inside of configs may be relative
    for folder in setup.plugins:
        registry.add_plugins(folder)
    request: Request = pickle.loads(setup.request)
    if not (Path(request.results) / setup.sign).exists():
        raise RequestError(
            f"{node} does not see the results folder {request.results} of this run; put it on a "
            f"file system that all nodes share, under the same path"
        )
    share_memory(request.settings.ray.gpus or 1.0)
    return request


def _backbone(request: Request) -> tuple[Backbone, torch.device]:
    """The backbone of this process, loaded by its first task."""
    global _LOADS
    key = (request.settings.backbone, request.device, request.offline)
    if key not in _LOADED:
        _LOADED.clear()
        device = choose_device(request.device)
        with deterministically(request.settings.run.deterministic, device):
            _LOADED[key] = load_backbone(request, device), device
        _LOADS += 1
    return _LOADED[key]


def _worker() -> Worker:
    return Worker(socket.gethostname(), os.getpid(), _LOADS)


def _know(module: str) -> None:
    """Import what registers the reader of a dataset's images."""
    if module:
        import importlib

        importlib.import_module(module)


def _since(backbone: Backbone, before: dict[str, int]) -> dict[str, int]:
    return {k: v - before[k] for k, v in backbone.counters.as_dict().items()}


def _portable(label: str, result: Path | Exception) -> Path | Exception:
    """An error that the driver can unpickle, whatever a method raised."""
    if isinstance(result, Path):
        return result.absolute()
    if isinstance(result, ZsadError):
        return result
    first = next(iter(str(result).splitlines()), "no message")
    return CellError(f"{label}: {type(result).__name__}: {first}")

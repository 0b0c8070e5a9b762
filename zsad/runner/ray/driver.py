"""``--launcher ray``: the shards of a sweep as Ray tasks, results straight into the shared folder.

Ray decides where a task runs and waits for its processors and GPUs.  The driver loads no weights:
it plans with what the first worker says, hands out shards, tries lost ones again, and reports
what stays lost.  Training tasks go first; the shards that read their checkpoints follow.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zsad import registry
from zsad.errors import CellError, RequestError, ZsadError
from zsad.results.store import ResultStore
from zsad.runner import conditions
from zsad.runner.columns import Column
from zsad.runner.logs import tell_accounts
from zsad.runner.plan import Auxiliary, DatasetPlan, Plan, auxiliary_of, build_plan
from zsad.runner.progress import SweepProgress
from zsad.runner.ray import cluster
from zsad.runner.ray.shards import Shard, shards
from zsad.runner.request import Request

if TYPE_CHECKING:
    from zsad.runner.manifest import Finished
    from zsad.runner.ray.worker import Setup, TaskReport, Worker
    from zsad.runner.training import Checkpoints

log = logging.getLogger(__name__)

Training = tuple[Auxiliary, int]  # with its seed


def run(
    request: Request, store: ResultStore, *, progress: bool = False, first: bool = True
) -> Finished:
    """Run ``request`` on a Ray cluster.  Raises :class:`RequestError` when there is none, or
    when no node of it has what a task needs."""
    from zsad.runner.manifest import Finished

    cluster.require_ray()
    with cluster.cluster(request.settings.ray), _sign(store) as sign:
        needs, slots = cluster.needs(request)
        setup = _setup(request, sign)
        tasks = _Tasks(setup, needs, request.settings.ray.retries)
        known = tasks.describe()
        plan = build_plan(request, store, known.info.weights_sha256, known.info.demo)
        if first:  # files are the same for every backbone
            tell_accounts(plan)
        conditions.tell(plan)
        with SweepProgress(plan, shown=progress) as bar:
            driver = _Driver(plan, store, tasks, slots, bar)
            driver.meet(known.worker)
            driver.run()
        return Finished(plan, known.info, known.device, driver.counters(), driver.seconds)


@contextlib.contextmanager
def _sign(store: ResultStore) -> Iterator[str]:
    """A file in the results folder by which workers know that they share it."""
    path = store.root / f".ray-{uuid.uuid4().hex[:12]}"
    path.touch()
    try:
        yield path.name
    finally:
        path.unlink(missing_ok=True)


def _portable(request: Request) -> Request:
    """The request with paths that mean the same in any folder."""
    weights = request.settings.backbone.weights
    if weights and Path(weights).is_file():
        backbone = replace(request.settings.backbone, weights=str(Path(weights).absolute()))
        request = replace(request, settings=replace(request.settings, backbone=backbone))
    if request.device.startswith("cuda:"):
        raise RequestError(
            f"--device {request.device}: Ray chooses the GPU of each task; give cuda or auto"
        )
    columns = tuple(
        replace(c, checkpoint=c.checkpoint.absolute()) if c.checkpoint else c
        for c in request.columns
    )
    root = request.data_root.absolute() if request.data_root else None
    return replace(request, columns=columns, results=request.results.absolute(), data_root=root)


def _setup(request: Request, sign: str) -> Setup:
    from zsad.runner.ray.worker import Setup

    folders = tuple(str(p) for p in registry.plugin_dirs())
    return Setup(pickle.dumps(_portable(request)), folders, os.getcwd(), sign)


# --------------------------------------------------------------------------------- tasks
@dataclass
class _Task:
    """A task that runs: a shard, or a training with the (column label, seed)s that want it."""

    shard: Shard | None = None
    checkpoints: Checkpoints | None = None
    training: Training | None = None
    wanted: list[tuple[str, int]] = field(default_factory=list)
    attempts: int = 0

    @property
    def name(self) -> str:
        if self.shard is not None:
            return self.shard.name
        assert self.training is not None
        return f"training on {self.training[0][0]}: {', '.join(label for label, _ in self.wanted)}"

    def split(self) -> list[_Task]:
        """What to try alone when the whole fails; empty for what has no parts."""
        if self.shard is not None:
            parts = [replace(self, shard=piece) for piece in self.shard.split()]
        else:
            parts = [replace(self, wanted=[one]) for one in self.wanted]
        return parts if len(parts) > 1 else []


class _Tasks:
    """The three remote functions, with what each needs of its node."""

    def __init__(self, setup: Setup, needs: dict[str, float], retries: int) -> None:
        import ray

        from zsad.runner.ray import worker

        # Retries are ours (max_retries=0), so that they can be told and a shard can be split.
        # max_calls=0 keeps a GPU worker, and with it the loaded weights, for the next task.
        remote: Any = ray.remote(max_retries=0, max_calls=0, **needs)  # type: ignore[call-overload]
        self.retries = retries
        self._setup = ray.put(setup)
        self._describe = remote(worker.describe)
        self._train = remote(worker.train)
        self._evaluate = remote(worker.evaluate)

    def describe(self) -> Any:
        """Ask a worker for the backbone.  Raises its :class:`ZsadError`, or one that says that
        workers cannot start."""
        import ray

        for attempt in range(self.retries + 1):
            try:
                return ray.get(self._describe.remote(self._setup))
            except Exception as error:
                cause = _cause(error)
                if isinstance(cause, ZsadError):
                    raise cause from None
                log.debug("attempt %d to start a worker failed", attempt + 1, exc_info=True)
                last = cause
        raise RequestError(
            f"--launcher ray: the cluster's workers do not start ({_line(last)}); zsad with all it "
            f"needs must be installed on every node"
        )

    def start(self, task: _Task, plan: Plan) -> Any:
        """Start an attempt at a task."""
        if task.shard is not None:
            return self._evaluate.remote(self._setup, plan.weights_id, task.shard, task.checkpoints)
        assert task.training is not None
        auxiliary = plan.auxiliaries[task.training[0]]
        return self._train.remote(self._setup, auxiliary, task.wanted)


def _cause(error: Exception) -> Exception:
    """What went wrong inside of the task, or the error itself if the task was lost."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, Exception) else error


def _line(error: Exception) -> str:
    """One line about a failed task."""
    import ray

    if isinstance(error, (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError)):
        return "its worker process died (killed, or out of memory)"
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return "Ray ended its worker because the node ran out of memory"
    if isinstance(error, ZsadError):
        return str(error)
    first = next((x.strip() for x in str(error).splitlines() if x.strip()), "no message")
    return f"{type(error).__name__}: {first}"


# -------------------------------------------------------------------------------- driver
class _Driver:
    """Hands out tasks, and sees every one of them to its end."""

    def __init__(
        self, plan: Plan, store: ResultStore, tasks: _Tasks, slots: int, bar: SweepProgress
    ) -> None:
        self.plan, self.store, self.tasks, self.slots, self.bar = plan, store, tasks, slots, bar
        self.seconds: dict[str, float] = {}
        self._running: dict[Any, _Task] = {}
        self._counts: Counter[str] = Counter()
        self._cells = 0
        self._batch_sizes: set[int] = set()
        self._workers: dict[tuple[str, int], int] = {}  # loads of the backbone
        self._finished = 0
        self._retried = 0
        # by dataset: its shards, the trainings that they wait for, and what came of those
        self._waiting: dict[str, list[Shard]] = {}
        self._trainings: dict[str, set[tuple[Training, str]]] = {}
        self._wanted: dict[str, set[tuple[str, int]]] = {}
        self._made: dict[tuple[Training, str], Path | Exception] = {}

    def run(self) -> None:
        """Run every cell that is not stored.  Nothing that a task does ends the sweep."""
        import ray

        for key, stored in self.plan.cells():
            if stored:
                self.store.promote(key)
        for shard in shards(self.plan, self.slots):
            self._waiting.setdefault(shard.plan.name, []).append(shard)
        self._start_trainings()
        self._start_ready()
        try:
            while self._running:
                done, _ = ray.wait(list(self._running), num_returns=1)
                task = self._running.pop(done[0])
                try:
                    report = ray.get(done[0])
                except Exception as error:  # whatever ended the task
                    self._lost(task, _cause(error))
                else:
                    self._done(task, report)
        except BaseException:
            for reference in self._running:
                ray.cancel(reference, force=True)
            raise

    def meet(self, worker: Worker) -> None:
        """Remember a worker and how often it has loaded the backbone."""
        self._workers[worker.node, worker.process] = worker.loads

    def counters(self) -> dict[str, Any]:
        """Work done in this run, by all workers together."""
        return {
            **self._counts,
            "cells_run": self._cells,
            "batch_sizes": sorted(self._batch_sizes),
            "tasks": self._finished,
            "tasks_retried": self._retried,
            "workers": len(self._workers),
            "backbone_loads": sum(self._workers.values()),
        }

    # ----------------------------------------------------------------------- preparation
    def _start_trainings(self) -> None:
        """One task per auxiliary dataset and seed; all columns of it train together."""
        wanted: dict[Training, dict[tuple[str, int], None]] = {}
        for dataset in self.plan.datasets:
            pairs = self._training_of(dataset)
            if not pairs:
                continue
            self._wanted[dataset.name] = {(column.label, seed) for column, seed in pairs}
            for column, seed in pairs:
                label = column.label
                training = self.plan.auxiliary(column, dataset.name), seed
                try:
                    auxiliary_of(self.plan, column, dataset.name)
                except ZsadError as error:
                    self._made[training, label] = error
                    continue
                wanted.setdefault(training, {})[label, seed] = None
                self._trainings.setdefault(dataset.name, set()).add((training, label))
        for training, members in wanted.items():
            self._start(_Task(training=training, wanted=list(members)))

    def _training_of(self, dataset: DatasetPlan) -> list[tuple[Column, int]]:
        request = self.plan.request
        if request.untrained:
            return []
        return [
            (column, seeds[0])
            for column, seeds in dataset.columns_to_do(request)
            if column.entry.trained and not column.checkpoint
        ]

    def _start_ready(self) -> None:
        """Start the shards of every dataset that waits for no training."""
        from zsad.runner.training import Checkpoints

        for dataset in [d for d in self._waiting if not self._trainings.get(d)]:
            columns = {c.label: c for c in self.plan.request.columns}
            found = {}
            for label, seed in self._wanted.get(dataset, ()):
                made = ((self.plan.auxiliary(columns[label], dataset), seed), label)
                if made in self._made:
                    found[label, seed] = self._made[made]
            for shard in self._waiting.pop(dataset):
                self._start(_Task(shard=shard, checkpoints=Checkpoints(found)))

    # ------------------------------------------------------------------------------ ends
    def _start(self, task: _Task) -> None:
        self._running[self.tasks.start(task, self.plan)] = task

    def _done(self, task: _Task, report: TaskReport) -> None:
        self._finished += 1
        self._counts.update(report.counters)
        for stage, spent in report.seconds.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + spent
        self._batch_sizes |= set(report.batch_sizes)
        self.meet(report.worker)
        if task.shard is not None:
            self._cells += report.done + (report.found if task.attempts else 0)
            for category, samples in task.shard.plan.samples.items():
                self.bar.images(task.shard.plan.name, category, len(samples))
        elif report.checkpoints is not None:
            self._end_training(task, dict(report.checkpoints.found))

    def _lost(self, task: _Task, error: Exception) -> None:
        """Try a lost task again; in pieces when it was tried often enough; at last report it."""
        log.debug("task %s failed", task.name, exc_info=error)
        task.attempts += 1
        if task.attempts <= self.tasks.retries:
            self._retried += 1
            self.bar.event(f"again, {task.name}: {_line(error)}")
            self._start(task)
            return
        tries = f"given up after {task.attempts} attempts: {_line(error)}"
        if pieces := task.split():  # what kills its worker must not cost its neighbours
            for piece in pieces:
                self._retried += 1
                self._start(piece)
        elif task.shard is None:
            failure = CellError(f"{task.name}: {tries}")
            self._end_training(task, dict.fromkeys(task.wanted, failure))
        else:
            for key in task.shard.plan.todo.values():
                if not task.shard.plan.is_done(self.store, key):
                    self.store.fail(key, f"{task.name}: {tries}", type(error).__name__)

    def _end_training(self, task: _Task, found: dict[tuple[str, int], Path | Exception]) -> None:
        assert task.training is not None
        for (label, _), result in found.items():
            self._made[task.training, label] = result
        ended = {(task.training, label) for label, _ in task.wanted}
        for waits in self._trainings.values():
            waits -= ended
        self._start_ready()

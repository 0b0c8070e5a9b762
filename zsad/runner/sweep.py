"""Runs a plan: one loaded backbone, one pass per dataset for all methods, one record per cell."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from zsad.backbones import Backbone
from zsad.backbones.batch_size import Portions
from zsad.backbones.devices import core_to_spare, decoding_threads
from zsad.data import provenance, splits
from zsad.data.loader import DecodeThreads
from zsad.data.transforms import Preprocess
from zsad.errors import DataError, ZsadError, is_text
from zsad.results import gallery
from zsad.results.examples import CellExamples
from zsad.results.store import ResultStore
from zsad.runner.category import CategoryRun
from zsad.runner.columns import Column
from zsad.runner.example_collector import ExampleCollector
from zsad.runner.given import Given, given_for
from zsad.runner.heads import Head, build_method
from zsad.runner.plan import DatasetPlan, Plan, auxiliary_of
from zsad.runner.recorder import Recorder
from zsad.runner.request import Request
from zsad.runner.timing import StageTimer, peak_memory
from zsad.runner.training import Checkpoints, provide, trained_method
from zsad.scoring import Scorer
from zsad.training.leaks import guard_detector
from zsad.types import Category, Sample, Scored

log = logging.getLogger(__name__)


@dataclass
class PreparedCategory:
    """A category that can be run.  ``heads``: all that were asked for; ``unfit``: those among
    them that cannot be run, with the error, or None where a data set has no references."""

    category: Category
    heads: list[Head]
    unfit: list[tuple[Head, ZsadError | None]]
    run: CategoryRun
    collector: ExampleCollector


def prepared_ahead(
    names: Sequence[str],
    wanted: Callable[[str], list[Head]],
    prepare: Callable[[str, list[Head]], PreparedCategory],
    failed: Callable[[str, Exception], None],
    ahead: bool,
) -> Iterator[PreparedCategory]:
    """Yield the categories of ``names`` that have something to do, in order.

    ``ahead``: the one after it is prepared, too, and linked to it: the threads begin to decode its
    first images when they have been handed the last one of the category before.  What is
    ``wanted`` of a category is asked again in its own turn; where that has changed meanwhile, it
    is prepared anew.  A category that cannot be prepared is handed to ``failed``, in its own turn.
    """
    coming: PreparedCategory | None = None
    for place, name in enumerate(names):
        try:
            heads = wanted(name)
            if not heads:
                continue
            ready, coming = coming, None
            if ready is not None and (ready.category.key != name or ready.heads != heads):
                ready.run.cancel()
                ready = None
            ready = ready or prepare(name, heads)
        except Exception as error:  # the other categories go on
            failed(name, error)
            continue
        if ahead:
            coming = _next_of(names[place + 1 :], wanted, prepare)
            ready.run.followed_by = coming.run if coming else None
        yield ready


def _next_of(
    names: Sequence[str],
    wanted: Callable[[str], list[Head]],
    prepare: Callable[[str, list[Head]], PreparedCategory],
) -> PreparedCategory | None:
    """The first category that has something to do now; None also where that cannot be told."""
    try:
        for name in names:
            if heads := wanted(name):
                return prepare(name, heads)
    except Exception:  # reported when the category has its turn
        log.debug("looking ahead failed", exc_info=True)
    return None


@dataclass
class Sweep:
    """The state of one run of a plan.

    ``on_progress(dataset, category, images_done)`` drives the progress bar; ``on_event`` gets
    one line of text for what takes long (training); ``on_scored(dataset, head, samples, scored)``
    looks at every scored batch.  ``trained``: the checkpoints, where they were
    made beforehand.
    """

    plan: Plan
    backbone: Backbone
    store: ResultStore
    device: torch.device
    on_progress: Callable[[str, str, int], None] = lambda dataset, category, images: None
    on_event: Callable[[str], None] = lambda text: None
    on_scored: Callable[[str, Head, Sequence[Sample], Scored[Any]], None] | None = None
    trained: Checkpoints | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    batch_sizes: set[int] = field(default_factory=set)
    images: int = 0
    wall: float = 0.0  # seconds of the whole sweep

    def __post_init__(self) -> None:
        self._encoding: dict[Preprocess, Portions] = {}  # what did not fit is not tried again
        self.recorder = Recorder(self.store, self.request, self.backbone.info)

    @property
    def done(self) -> int:
        """Cells that were computed and stored."""
        return self.recorder.done

    @property
    def request(self) -> Request:
        return self.plan.request

    # ----------------------------------------------------------------------------- sweep
    def run(self) -> None:
        """Run every cell that is not stored.  Nothing that a dataset does ends the sweep."""
        start = time.perf_counter()
        # Of the request, not of what is left to do: an engine is chosen by it.
        self.backbone.engines.pictures = self.plan.n_pictures
        for key, stored in self.plan.cells():
            if stored:
                self.store.promote(key)
        for dataset in self.plan.datasets:
            if dataset.todo:
                try:
                    self._run_dataset(dataset)
                except Exception as error:  # the device may fail anywhere
                    log.debug("dataset %s failed", dataset.name, exc_info=True)
                    self.recorder.fail_rest(dataset, error)
        self.wall += time.perf_counter() - start

    def account(self) -> dict[str, Any]:
        """Images a second over the whole sweep, and the peak memory of its process."""
        found: dict[str, Any] = {"peak_memory_mib": peak_memory(self.device)}
        if self.images:
            found["images_per_second"] = round(self.images / self.wall, 3)
        return found

    def _run_dataset(self, dataset: DatasetPlan) -> None:
        timer = StageTimer(self.device)
        heads = self._heads(dataset, timer)

        def failed(name: str, error: Exception) -> None:
            log.debug("category %s failed", name, exc_info=error)
            self.recorder.fail_rest(dataset, error, only=name)

        workers = decoding_threads(self.request.settings.data.workers, self.device)
        with DecodeThreads(workers) as threads:
            for ready in prepared_ahead(
                list(dataset.samples),
                lambda name: [h for h in heads if self._is_open(dataset, h, name)],
                lambda name, todo: self._prepare(dataset, name, todo, timer, threads),
                failed,
                ahead=core_to_spare(self.device),
            ):
                try:
                    self._run_category(dataset, ready, timer)
                except Exception as error:  # the other categories go on
                    failed(ready.category.key, error)
        for stage, spent in timer.seconds.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + spent

    def _is_open(self, dataset: DatasetPlan, head: Head, category: str) -> bool:
        """Whether the head has a cell to do that no other process has stored meanwhile."""
        keys = [dataset.todo.get((head.label, seed, category)) for seed in head.seeds]
        fresh, store = self.request.fresh, self.store
        return any(k and (fresh or not dataset.is_done(store, k)) for k in keys)

    def _prepare(
        self,
        dataset: DatasetPlan,
        name: str,
        heads: list[Head],
        timer: StageTimer,
        threads: DecodeThreads,
    ) -> PreparedCategory:
        """Choose the references of the few-shot heads and set up the run; compute nothing."""
        category = dataset.index.categories[name]
        if not is_text(category.class_name):
            raise DataError(
                f"category {name}: the name is not UTF-8, and prompts are made of it; rename the "
                f"folder (`convmv -f latin1 -t utf8` does, if it is Latin-1)"
            )
        ready: list[Head] = []
        unfit: list[tuple[Head, ZsadError | None]] = []
        references: dict[tuple[str, int], Sequence[Sample]] = {}
        for head in heads:
            try:
                if head.method.shots:
                    again = head.method.config.references == "replacement"
                    drawn = splits.references(
                        dataset.index, name, head.method.shots, head.seed, replacement=again
                    )
                    if not drawn:
                        unfit.append((head, None))
                        continue
                    references[head.label, head.seed] = drawn
                ready.append(head)
            except ZsadError as error:
                unfit.append((head, error))
        shown = gallery.chosen(dataset.samples[name])
        collector = ExampleCollector(shown=frozenset(s.uid for s in shown))

        def look(head: Head, samples: Sequence[Sample], scored: Scored[Any]) -> None:
            collector(head, samples, scored)
            if self.on_scored:
                self.on_scored(dataset.name, head, samples, scored)

        run = CategoryRun(
            backbone=self.backbone,
            settings=replace(
                self.request.settings, metrics=self.request.metrics_of(dataset.index.spec)
            ),
            category=category,
            samples=dataset.samples[name],
            heads=ready,
            timer=timer,
            threads=threads,
            references=references,
            on_scored=look,
            on_images=lambda n: self.on_progress(dataset.name, category.key, n),
            encoding=self._encoding,
        )
        return PreparedCategory(category, heads, unfit, run, collector)

    def _run_category(
        self, dataset: DatasetPlan, ready: PreparedCategory, timer: StageTimer
    ) -> None:
        """Score a category, compute its metrics and write its cells."""
        category, run = ready.category, ready.run
        before = dict(timer.seconds)
        images_before = self.backbone.counters.images
        seen = [*run.samples, *itertools.chain.from_iterable(run.references.values())]
        with ThreadPoolExecutor(1) as aside:  # beside the encoder, and before any record
            aside.submit(provenance.note, self.store.root, dataset.index, category.key, seen)
            aside.submit(self._keep_pictures, dataset, category.key)
            outcomes = run.run() if run.heads else []
        self.batch_sizes |= run.batch_sizes
        self.images += self.backbone.counters.images - images_before
        name, recorder = category.key, self.recorder
        for head, error in ready.unfit:
            if error is None:
                recorder.put_undefined(dataset, head, name, list(run.samples))
            else:
                recorder.fail(dataset, head, name, error)
        for outcome in outcomes:
            with timer.stage("metrics", f"metrics:{outcome.head.label}"):
                outcome.conclude()
        spent = timer.since(before)
        for outcome in outcomes:
            if outcome.error is not None:
                recorder.fail(dataset, outcome.head, name, outcome.error)
                continue
            collector = ready.collector
            pictures = CellExamples(
                collector.examples(outcome.head), outcome.curves(), collector.maps(outcome.head)
            )
            recorder.put(dataset, outcome, name, pictures, spent)

    def _keep_pictures(self, dataset: DatasetPlan, category: str) -> None:
        """Store what a page shows of the pictures; a category without is only shown less of."""
        shown = gallery.chosen(dataset.samples[category])
        try:
            gallery.keep(self.store.root, dataset.name, category, dataset.index.fingerprint, shown)
        except ZsadError as error:
            log.warning("%s", error)

    # ----------------------------------------------------------------------------- heads
    def _heads(self, dataset: DatasetPlan, timer: StageTimer) -> list[Head]:
        """Build, load (or train) and prepare every head that has a cell to do."""
        heads = []
        named = [dataset.index.categories[c] for c in dataset.samples]
        categories = [c for c in named if is_text(c.class_name)]  # another one fails in its turn
        groups = dataset.columns_to_do(self.request)
        with timer.stage("train"):
            trained = self.trained or provide(
                [(column, seeds[0]) for column, seeds in groups],
                lambda column: auxiliary_of(self.plan, column, dataset.name),
                self.backbone,
                self.request,
                on_event=self.on_event,
            )
        for column, seeds in groups:
            try:
                head = self._head(column, seeds, dataset, trained, timer)
                name = f"text:{column.label}"
                before = timer.seconds[name]
                with timer.stage("text", name):
                    head.scorer.prepare(categories)
                head.text_seconds = timer.seconds[name] - before
                head.scorer.find_boxes()
                if head.scorer.boxes is not None:
                    guard_detector(head.scorer.boxes.info, dataset.index)
                heads.append(head)
            except Exception as error:  # a method is foreign code; the others go on
                log.debug("building %s failed", column.label, exc_info=True)
                for seed in seeds:
                    for category in dataset.samples:
                        self.recorder.fail_cell(dataset, column.label, seed, category, error)
        return heads

    def _head(
        self,
        column: Column,
        seeds: tuple[int, ...],
        dataset: DatasetPlan,
        trained: Checkpoints,
        timer: StageTimer,
    ) -> Head:
        account: dict[str, Any] = {}
        given: Given | None = None
        if column.entry.trained and not self.request.untrained:
            evaluated = [s for samples in dataset.samples.values() for s in samples]
            given = given_for(self.request, column, dataset.name) if column.checkpoint else None
            method, account = trained_method(
                column,
                seeds[0],
                None if given else trained.of(column, seeds[0]),
                given,
                self.backbone,
                self.device,
                dataset.index,
                evaluated,
            )
        else:
            method = build_method(column, self.backbone, seeds[0], self.device, dataset.name)
        scorer = Scorer(
            method,
            self.backbone,
            self.request.settings_of(column).backbone.image_size,
            column.label,
            lambda stage: timer.stage(stage, f"{stage}:{column.label}"),
        )
        if given is not None and (row := given.origin.released) is not None:
            used = {
                "backbone": self.backbone.info.name,
                "image_size": scorer.image_size,
                "preset": method.config.preset,
            }
            account["differs"] = row.misfits(used)
        return Head(column, seeds, scorer, account)

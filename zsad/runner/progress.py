"""A progress bar on standard error for a sweep; silent when not shown."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress

from zsad.runner.plan import Plan


class Progress:
    """Counts images of the datasets that still have cells to do."""

    def __init__(self, plan: Plan, shown: bool) -> None:
        self.total = sum(
            len(samples)
            for dataset in plan.datasets
            for category, samples in dataset.samples.items()
            if any(c == category for _, _, c in dataset.todo)
        )
        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not shown or not self.total,
            transient=True,
        )
        self._task = self._bar.add_task("images", total=self.total)
        self._shown = shown

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def images(self, dataset: str, category: str, count: int) -> None:
        """``count`` more images of a category are done."""
        self._bar.update(self._task, advance=count, description=f"{dataset}/{category}")

    def event(self, text: str) -> None:
        """Show one line about something that takes long."""
        if self._shown:
            self._bar.console.print(text, style="dim")


class TrainingProgress:
    """Counts the steps of the epoch that runs, with the mean loss; silent when not shown."""

    def __init__(self, shown: bool) -> None:
        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            disable=not shown,
            transient=True,
        )
        self._task = self._bar.add_task("training", total=None)

    def __enter__(self) -> TrainingProgress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def step(self, done: Any) -> None:
        """Show a :class:`zsad.training.Progress`."""
        self._bar.update(
            self._task,
            completed=done.step,
            total=done.steps,
            description=(
                f"{done.method} {done.phase} epoch {done.epoch}/{done.epochs} loss {done.loss:.4f}"
            ),
        )

"""Progress bars on standard error, for a sweep and for a training; silent when not shown."""

from __future__ import annotations

from types import TracebackType
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.text import Text

from zsad.errors import shown
from zsad.runner.plan import Plan

B = TypeVar("B", bound="_Bar")


class _Bar:
    """A bar with one task, for as long as the context lasts."""

    def __init__(self, name: str, total: int | None, shown: bool, *columns: ProgressColumn) -> None:
        self._shown = shown
        self._bar = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            *columns,
            console=Console(stderr=True, markup=False, emoji=False, highlight=False),
            disable=not shown or total == 0,
            transient=True,
        )
        self._task = self._bar.add_task(name, total=total)

    def __enter__(self: B) -> B:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def event(self, text: str) -> None:
        """Show one line about something that takes long."""
        if self._shown:
            self._bar.console.print(Text(shown(text)), style="dim")


class SweepProgress(_Bar):
    """Counts images of the datasets that still have cells to do."""

    def __init__(self, plan: Plan, shown: bool) -> None:
        self.total = sum(
            len(samples)
            for dataset in plan.datasets
            for category, samples in dataset.samples.items()
            if any(c == category for _, _, c in dataset.todo)
        )
        super().__init__("images", self.total, shown, TimeRemainingColumn())

    def images(self, dataset: str, category: str, count: int) -> None:
        """``count`` more images of a category are done."""
        self._bar.update(self._task, advance=count, description=shown(f"{dataset}/{category}"))


class TrainingProgress(_Bar):
    """Counts the steps of the epoch that runs, with the mean loss."""

    def __init__(self, shown: bool) -> None:
        super().__init__("training", None, shown)

    def step(self, done: Any) -> None:
        """Show a :class:`zsad.training.Progress`."""
        self._bar.update(
            self._task,
            completed=done.step,
            total=done.steps,
            description=shown(
                f"{done.method} {done.phase} epoch {done.epoch}/{done.epochs} loss {done.loss:.4f}"
            ),
        )

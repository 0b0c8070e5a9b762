"""What happens around Lightning's steps: resuming, saving, averaging, logging, progress."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from zsad.errors import CellError
from zsad.method import Method, TrainPhase
from zsad.torchvision_compat import lightning
from zsad.training.loggers import log_row
from zsad.training.state import TrainState, random_state, restore_random, save_state

log = logging.getLogger(__name__)
SAVE_SECONDS = 120.0


@dataclass(frozen=True)
class TrainingStep:
    """One training step that is done; ``loss`` is the running mean of the epoch's total."""

    method: str
    phase: str
    epoch: int  # from 1
    epochs: int
    step: int  # from 1, in this epoch
    steps: int
    loss: float


class Bookkeeping(lightning.Callback):
    """Keeps the :class:`TrainState` of one phase true, and writes it.

    ``save_steps``: write the state every so many steps; 0: every two minutes.  At the end of an
    epoch it is always written.
    """

    def __init__(
        self,
        state: TrainState,
        path: Path,
        phase: TrainPhase,
        *,
        batches: Callable[[int], int],
        save_steps: int = 0,
        progress: Callable[[TrainingStep], None] | None = None,
    ) -> None:
        self.state = state
        self.path = path
        self.phase = phase
        self.batches = batches
        self.save_steps = save_steps
        self.progress = progress
        self._resume = state.optimizer is not None
        self._saved = self._tick = time.monotonic()

    # ----------------------------------------------------------------------- Lightning's
    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        for group in trainer.optimizers[0].param_groups:
            group.setdefault("initial_lr", group["lr"])
        if self.state.optimizer is not None:
            trainer.optimizers[0].load_state_dict(self.state.optimizer)
        self._saved = self._tick = time.monotonic()

    def on_train_epoch_start(
        self, trainer: lightning.Trainer, module: lightning.LightningModule
    ) -> None:
        if self.phase.rate is not None:
            self._set_rates(trainer, self.phase.rate(self.state.epoch))

    def on_train_batch_start(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, batch: Any, index: int
    ) -> None:
        if self.phase.step_rate is not None:
            epoch, rate = self.state.epoch, self.phase.rate
            step = sum(self.batches(e) for e in range(epoch)) + self.state.steps
            factor = self.phase.step_rate(step, self.batches(epoch))
            self._set_rates(trainer, factor * (1.0 if rate is None else rate(epoch)))
        if self._resume:  # here, because what Lightning does before a first batch may draw numbers
            restore_random(self.state.random)
            self._resume = False

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        state = self.state
        terms = outputs["terms"]
        values = torch.stack([v.float() for v in terms.values()]).tolist()
        if not all(abs(v) < float("inf") for v in values):
            raise CellError(
                f"{_name(module)}: the loss is not a number in epoch {state.epoch + 1}, step "
                f"{state.steps + 1} ({dict(zip(terms, values))}); lower the learning rate"
            )
        for name, value in zip(terms, values):
            state.sums[name] = state.sums.get(name, 0.0) + value
        state.steps += 1
        now = time.monotonic()
        state.seconds += now - self._tick
        state.epoch_seconds += now - self._tick
        self._tick = now
        count = self.batches(state.epoch)
        if state.steps < count and self._due(now):
            self._save(trainer, module)
        if self.progress and trainer.is_global_zero:
            self.progress(
                TrainingStep(
                    _name(module),
                    self.phase.name,
                    state.epoch + 1,
                    self.phase.epochs,
                    state.steps,
                    count,
                    state.sums["total"] / state.steps,
                )
            )

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule
    ) -> None:
        state = self.state
        steps = max(1, state.steps)
        means = torch.tensor([v / steps for v in state.sums.values()], dtype=torch.float64)
        if trainer.world_size > 1:
            means = trainer.strategy.reduce(means.to(module.device), reduce_op="mean").cpu()
        row = {
            "phase": self.phase.name,
            "epoch": state.epoch + 1,
            "steps": state.steps,
            "seconds": round(state.epoch_seconds, 4),
            **dict(zip(state.sums, means.tolist())),
        }
        if self.phase.rate is not None or self.phase.step_rate is not None:
            row["rate"] = trainer.optimizers[0].param_groups[0]["lr"]
        state.history.append(row)
        trainer.loggers = log_row(trainer.loggers, row, len(state.history))
        state.epoch += 1
        state.steps, state.sums, state.epoch_seconds = 0, {}, 0.0
        self._save(trainer, module)

    # ------------------------------------------------------------------------- internal
    @staticmethod
    def _set_rates(trainer: lightning.Trainer, factor: float) -> None:
        """Multiply the optimiser's own rates."""
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = factor * group["initial_lr"]

    def _due(self, now: float) -> bool:
        if self.save_steps:
            return self.state.steps % self.save_steps == 0
        return now - self._saved >= SAVE_SECONDS

    def _save(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        assert isinstance(module, Method)
        if not trainer.is_global_zero:
            return
        self.state.parameters = module.trained_state()
        self.state.optimizer = trainer.optimizers[0].state_dict()
        self.state.random = random_state()
        try:
            save_state(self.path, self.state)
        except OSError as error:  # training itself needs no disk until its end
            log.warning("%s: cannot be written (%s); going on", self.path, error.strerror or error)
        self._saved = self._tick = time.monotonic()


def _name(module: lightning.LightningModule) -> str:
    return module.name if isinstance(module, Method) else type(module).__name__

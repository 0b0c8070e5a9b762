"""The state of an unfinished training: enough to go on after a kill as if nothing had happened."""

from __future__ import annotations

import io
import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zsad.io import atomic_write_bytes

log = logging.getLogger(__name__)
VERSION = 1


@dataclass
class TrainState:
    """Where a training stands: ``steps`` batches into ``epoch`` of phase number ``phase``.

    ``identity`` hashes everything that the training depends on; ``group`` is the number of
    images per encoder pass.  ``sums``: loss terms added up over the epoch's batches so far.
    ``random``: the states of torch's generators (host, then each CUDA device).
    """

    identity: str
    phase: int = 0
    epoch: int = 0
    steps: int = 0
    group: int = 0
    seconds: float = 0.0
    epoch_seconds: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    parameters: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Any] | None = None
    random: list[Tensor] = field(default_factory=list)


def save_state(path: Path, state: TrainState) -> None:
    """Write the state atomically."""
    buffer = io.BytesIO()
    fields = {k: getattr(state, k) for k in asdict(TrainState(""))}
    torch.save({"version": VERSION, **fields}, buffer)
    atomic_write_bytes(path, buffer.getvalue())


def load_state(path: Path, identity: str) -> TrainState | None:
    """Return the state in ``path``, or None where there is none that belongs to ``identity``.

    A file that is damaged or of another training is ignored with a notice: training starts over.
    """
    if not path.is_file():
        return None
    try:
        raw = torch.load(path, map_location="cpu", weights_only=True)
        version = raw.pop("version")
        state = TrainState(**raw)
    except Exception as error:  # unpickling raises many types
        log.warning("%s cannot be read (%s); training starts over", path, type(error).__name__)
        return None
    if version != VERSION or state.identity != identity:
        log.warning("%s belongs to another training; training starts over", path)
        return None
    return state


def random_state() -> list[Tensor]:
    """Return the states of torch's generators."""
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if _cuda() else [])]


def restore_random(states: list[Tensor]) -> None:
    """Set torch's generators."""
    if states:
        torch.set_rng_state(states[0])
    if len(states) > 1 and _cuda():
        torch.cuda.set_rng_state_all(states[1 : 1 + torch.cuda.device_count()])


def _cuda() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_initialized()

"""The state of an unfinished training: enough to go on after a kill as if nothing had happened."""

from __future__ import annotations

import io
import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zsad.backbones.tensor_files import read_tensors
from zsad.errors import WeightsError, gist
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
        raw = read_tensors(path)
        version = raw.pop("version")
        state = TrainState(**raw)
        _check_types(state)
    except (WeightsError, KeyError, TypeError, AttributeError) as error:
        log.warning("%s cannot be read (%s); training starts over", path, gist(error))
        return None
    if version != VERSION or state.identity != identity:
        log.warning("%s belongs to another training; training starts over", path)
        return None
    return state


def _check_types(state: TrainState) -> None:
    """Raise ``TypeError`` for a field that is not of its type, or a count below 0."""
    for field_name, blank in vars(TrainState("")).items():
        value = getattr(state, field_name)
        kinds: tuple[type, ...] = (type(blank), int) if isinstance(blank, float) else (type(blank),)
        if field_name == "optimizer":
            kinds = (dict, type(None))
        negative = isinstance(value, (int, float)) and not value >= 0
        if not isinstance(value, kinds) or negative:
            raise TypeError(f"its '{field_name}' is not what a training writes")


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

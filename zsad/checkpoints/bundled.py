"""Trained states that come with a method: ``states/<backbone>.safetensors`` beside its config.

``python -m zsad.benchmarks.tiny.states`` makes them, and says which are no longer current.  A state
serves `zsad predict` where no checkpoint is given, and a sweep that asks for the very training that
made it.  No torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zsad import config as cfg
from zsad.checkpoints.account import CheckpointMeta, account_of
from zsad.errors import WeightsError, counted
from zsad.io import atomic_write_bytes
from zsad.io.names import safe_name
from zsad.io.schema import read

if TYPE_CHECKING:
    from zsad.registry import MethodEntry

FOLDER = "states"


def folder_of(entry: MethodEntry) -> Path:
    """Where the states of a method lie, if there are any."""
    return Path(entry.origin).parent / FOLDER


def place_of(entry: MethodEntry, backbone: str) -> Path:
    """Where the state of a method for a backbone lies, if there is one."""
    return folder_of(entry) / f"{safe_name(backbone)}.safetensors"


@dataclass(frozen=True)
class Recipe:
    """The ``config`` that a state is trained with where that is not the default, and ``why``."""

    why: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)


def recipe_of(entry: MethodEntry, backbone: str) -> Recipe:
    """The settings of a method's training, beside its state: ``states/<backbone>.yaml``.

    Raises :class:`zsad.io.schema.SchemaError` for a key that it does not know.
    """
    path = place_of(entry, backbone).with_suffix(".yaml")
    return read(Recipe, cfg.read_yaml(path), origin=str(path)) if path.is_file() else Recipe()


def state_of(entry: MethodEntry, backbone: str) -> Path | None:
    """The state that comes with a method for a backbone, or None."""
    path = place_of(entry, backbone)
    return path if entry.trained and path.is_file() else None


def provide(entry: MethodEntry, backbone: str, identity: str, target: Path) -> bool:
    """Put the state that comes with a method in place of a training, where it is what that
    training would make; return whether it is there now."""
    path = state_of(entry, backbone)
    if path is None or not is_of(path, identity):
        return False
    atomic_write_bytes(target, path.read_bytes())
    return True


def is_of(path: Path, identity: str) -> bool:
    """Whether a state was made by the training that ``identity`` stands for."""
    try:
        meta = account_of(path)
    except WeightsError:
        return False
    return meta is not None and meta.identity == identity


def words(path: Path, meta: CheckpointMeta | None = None) -> str:
    """What the state is, in words: for the command line and for records."""
    meta = meta or account_of(path)
    if meta is None or meta.trained_on is None:
        raise WeightsError(f"{path}: is not a state of zsad's; run `make states`")
    data = meta.trained_on
    return (
        f"state that comes with zsad for {meta.backbone}: trained on {data.dataset}, {data.part} "
        f"part, {counted(len(data.uids), 'image')}, seed {meta.seed}"
    )

"""Trained states: where they are named, what they say of themselves, how methods take them.

=============  ===================================================================================
``sources``    the value of ``METHOD.checkpoint`` (and of other weight options): files by target
``states``     files of tensors with an account of themselves; official ones, translated
=============  ===================================================================================

``sources`` does not import torch: a plan must know which files a run would load.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zsad import names_on_demand

if TYPE_CHECKING:
    from zsad.checkpoints.states import (
        FORMAT,
        CheckpointMeta,
        LoadedCheckpoint,
        TrainedOn,
        check_backbone,
        describe,
        import_file,
        load_any,
        load_into,
        read_meta,
        save,
    )

_PUBLIC = dict.fromkeys(
    (
        *("FORMAT", "CheckpointMeta", "LoadedCheckpoint", "TrainedOn", "check_backbone"),
        *("describe", "import_file", "load_any", "load_into", "read_meta", "save"),
    ),
    "zsad.checkpoints.states",
)

__all__ = [
    "FORMAT",
    "CheckpointMeta",
    "LoadedCheckpoint",
    "TrainedOn",
    "check_backbone",
    "describe",
    "import_file",
    "load_any",
    "load_into",
    "read_meta",
    "save",
]

__getattr__ = names_on_demand(__name__, _PUBLIC)

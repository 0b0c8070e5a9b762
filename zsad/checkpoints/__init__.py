"""Trained states: where they are named, what they say of themselves, how methods take them.

============  =================================================================================
``sources``   the value of ``METHOD.checkpoint`` (and of other weight options): files by target
``released``  the authors' files, known by content: what they were trained on, whom they serve
``account``   what a file says about itself, without its tensors
``choice``    the one state that a value names, where there is no target
``bundled``   the states that come with methods
``states``    files of tensors with that account; official ones, translated
``packing``   numbers in a few bits each, and ``packed_states`` of them
============  =================================================================================

Only ``states`` and ``packed_states`` import torch: a plan must know which files a run would load.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zsad import names_on_demand

if TYPE_CHECKING:
    from zsad.checkpoints.account import FORMAT, CheckpointMeta, TrainedOn
    from zsad.checkpoints.states import (
        LoadedCheckpoint,
        check_backbone,
        describe,
        import_file,
        load_any,
        load_into,
        read_meta,
        save,
    )

_STATES = ("LoadedCheckpoint", "check_backbone", "describe", "import_file", "load_any")
_PUBLIC = {
    **dict.fromkeys(("FORMAT", "CheckpointMeta", "TrainedOn"), "zsad.checkpoints.account"),
    **dict.fromkeys((*_STATES, "load_into", "read_meta", "save"), "zsad.checkpoints.states"),
}

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

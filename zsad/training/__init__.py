"""The training engine: frozen features once, Lightning for the rest, resume to the step.

``fit`` trains methods on an index of samples; ``ensure_trained`` finds or makes the checkpoint
of a method by what it depends on.

=============  ===================================================================
``provision``  finds the checkpoint of a method, or has it trained
``identity``   what a trained state depends on, as a hash
``leaks``      nothing is evaluated on what it was trained on
``engine``     ``fit``: several methods on one set of features
``images``     training images as features; ``feature_store``: where they are kept
``schedules``  which images an epoch visits, in which batches; no torch
``sharing``    several processes: each encodes a share of the images
``run``        one method: phases, epochs, the hand-over to Lightning
``callback``   around its steps: resuming, saving, logging, progress
``state``      an unfinished training on disk
``loggers``    Lightning's loggers by name or class path
=============  ===================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zsad import names_on_demand

if TYPE_CHECKING:
    from zsad.training.callback import TrainingStep
    from zsad.training.engine import fit
    from zsad.training.provision import ensure_trained
    from zsad.training.run import FitOptions, TrainResult

_PUBLIC = {
    "FitOptions": "zsad.training.run",
    "TrainingStep": "zsad.training.callback",
    "TrainResult": "zsad.training.run",
    "ensure_trained": "zsad.training.provision",
    "fit": "zsad.training.engine",
}

__all__ = ["FitOptions", "TrainResult", "TrainingStep", "ensure_trained", "fit"]

__getattr__ = names_on_demand(__name__, _PUBLIC)

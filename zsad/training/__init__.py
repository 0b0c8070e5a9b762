"""The training engine: frozen features once, Lightning for the rest, resume to the step.

``fit`` trains methods on an index of samples; ``ensure_trained`` finds or makes the checkpoint
of a method by what it depends on.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zsad.training.callback import Progress
    from zsad.training.engine import fit
    from zsad.training.provision import ensure_trained, follower, guard
    from zsad.training.run import FitOptions, TrainResult

_PUBLIC = {
    "FitOptions": "zsad.training.run",
    "Progress": "zsad.training.callback",
    "TrainResult": "zsad.training.run",
    "ensure_trained": "zsad.training.provision",
    "fit": "zsad.training.engine",
    "follower": "zsad.training.provision",
    "guard": "zsad.training.provision",
}

__all__ = ["FitOptions", "Progress", "TrainResult", "ensure_trained", "fit", "follower", "guard"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

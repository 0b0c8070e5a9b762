"""zsad: zero-shot image anomaly detection methods over one shared CLIP encoder.

The public names below are imported on first use, so that ``import zsad`` (and with it
``zsad --help`` and ``zsad list``) does not import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

__version__ = "0.1.0"

# In a checkout (and in an editable install) ``methods``, ``benchmarks`` and
# ``prompts_cache`` lie beside this package; in a wheel they lie inside it.  Appending the
# repository root to ``__path__`` gives them the same import name everywhere.
_ROOT = Path(__file__).resolve().parent.parent
if (_ROOT / "pyproject.toml").is_file() and (_ROOT / "methods" / "__init__.py").is_file():
    __path__.append(str(_ROOT))

_PUBLIC = {
    "bench": "zsad.api",
    "train": "zsad.api",
    "predict": "zsad.api",
    "predict_iter": "zsad.api",
    "evaluate": "zsad.metrics.evaluate",
    "load_method": "zsad.api",
    "export": "zsad.api",
    "list_methods": "zsad.registry",
    "list_datasets": "zsad.registry",
    "list_backbones": "zsad.registry",
    "Prediction": "zsad.inference.prediction",
    "ZsadError": "zsad.errors",
}

__all__ = ["__version__", *_PUBLIC]


def names_on_demand(package: str, places: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a ``__getattr__`` for ``package`` that imports a name when it is first asked for.

    ``places``: the module of each name.
    """

    def get(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(places[name]), name)

    return get


__getattr__ = names_on_demand(__name__, _PUBLIC)


def __dir__() -> list[str]:
    return sorted(__all__)

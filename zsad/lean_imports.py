"""Imports torchmetrics and open_clip without the parts that nothing here uses.

lightning imports torchmetrics for the base class of metrics, and its package imports all metrics of
text, sound and pictures, with them scipy, scikit-learn, pandas and, where it is installed,
transformers; open_clip imports transformers and timm for towers that are not CLIP's.  That is a
third of the memory and half of the time that a start takes.

Nothing is taken away.  torchmetrics runs its own ``__init__`` when a name is asked of it that is
not among :data:`BASE`; transformers and timm are imported when such a tower is built.  Whoever
imported one of the libraries before zsad keeps it as it is.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import logging
import sys
import threading
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["open_clip", "torchmetrics"]

# What lightning and zsad take from torchmetrics, and the module that makes it; "": the name is one.
BASE = {
    "Metric": "metric",
    "CompositionalMetric": "metric",
    "MetricCollection": "collections",
    "collections": "",
    "metric": "",
    "utilities": "",
    "wrappers": "",
}

# Libraries that open_clip builds some towers from, with the module and the class that do.
TOWERS = {"timm": ("timm_model", "TimmModel"), "transformers": ("hf_model", "HFTextEncoder")}


class _Front(ModuleType):
    """torchmetrics before its own ``__init__`` has run."""

    def __init__(self, spec: ModuleSpec, loader: Loader) -> None:
        super().__init__(spec.name)
        self.__spec__, self.__loader__, self.__package__ = spec, loader, spec.name
        self._loader = loader
        self.__file__ = spec.origin
        self.__path__ = list(spec.submodule_search_locations or ())
        self.__version__ = importlib.metadata.version(spec.name)
        self._logger = logging.getLogger(spec.name)  # its modules take it from the package
        self._running = threading.RLock()
        self._whole = False

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked of every module by those who look at all
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        if (module := BASE.get(name)) is not None:
            found = importlib.import_module(f"{self.__name__}.{module or name}")
            return getattr(found, name) if module else found
        with self._running:
            if not self._whole:
                self._whole = True  # first: what runs now asks for names, too
                self._loader.exec_module(self)
        if name in self.__dict__:
            return self.__dict__[name]
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


def torchmetrics() -> ModuleType:
    """Return torchmetrics, of which only the base classes are imported yet."""
    name = "torchmetrics"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    try:
        sys.modules[name] = _Front(spec, spec.loader)
        for module in ("utilities", "metric", "collections"):  # in the order of its own __init__
            importlib.import_module(f"{name}.{module}")
    except Exception:  # a version that is made otherwise: as everybody imports it
        for module in [m for m in sys.modules if m.partition(".")[0] == name]:
            del sys.modules[module]
        return importlib.import_module(name)
    return sys.modules[name]


def open_clip() -> ModuleType:
    """Return open_clip without what only some of its towers are made of, :data:`TOWERS`."""
    name = "open_clip"
    if name in sys.modules:
        return sys.modules[name]
    hidden = [library for library in TOWERS if library not in sys.modules]
    # None makes `import` raise ImportError, after which open_clip goes on without the library.
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        found = importlib.import_module(name)
    finally:
        for library in hidden:
            sys.modules.pop(library, None)
    for library in hidden:
        module, tower = TOWERS[library]
        _complete_when_built(importlib.import_module(f"{name}.{module}"), tower)
    return found


def _complete_when_built(module: ModuleType, name: str) -> None:
    """Let a class of ``module`` import its library when the first object is built."""
    tower = getattr(module, name)
    build = tower.__init__

    def complete(self: Any, *args: Any, **kwargs: Any) -> None:
        tower.__init__ = build
        importlib.reload(module)  # its functions, those of `tower` too, find the names in it
        build(self, *args, **kwargs)

    tower.__init__ = complete

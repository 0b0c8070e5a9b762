"""Lightning's loggers by name or class path, and what they are told of a training."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from zsad.errors import RequestError, nearest, reason
from zsad.torchvision_compat import lightning

log = logging.getLogger(__name__)
Logger = lightning.pytorch.loggers.Logger


def require_loggers(names: str) -> None:
    """Raise :class:`RequestError` unless every logger of ``names`` can be made here."""
    for name in _wanted(names):
        _class_of(name)


def make_loggers(names: str, folder: Path) -> list[Logger]:
    """Return Lightning loggers that write below ``folder``.

    ``names``: ``auto``, ``csv``, ``tensorboard``, ``none``, class paths, or several with commas.
    A class is given what its constructor takes of ``save_dir`` and ``name``, and nothing else: its
    own environment variables say the rest.  Raises :class:`RequestError` for one that cannot be
    imported, is not a Lightning Logger, or does not start.
    """
    made: list[Logger] = []
    for name in _wanted(names):
        kind = _class_of(name)
        if name in ("csv", "tensorboard"):
            made.append(kind(folder, name="", version=""))  # type: ignore[call-arg]
            continue
        offered = {"save_dir": str(folder), "name": folder.name}
        takes = inspect.signature(kind).parameters
        try:
            made.append(kind(**{k: v for k, v in offered.items() if k in takes}))
        except Exception as error:  # of a foreign class: whatever it raises
            raise RequestError(f"--logger {name}: does not start ({reason(error)})") from None
    return made


def _wanted(names: str) -> list[str]:
    """The names of the loggers that ``names`` means on this machine."""
    found: list[str] = []
    for name in filter(None, map(str.strip, names.split(","))):
        if name == "auto":
            found += ["csv", *(["tensorboard"] if _has_tensorboard() else [])]
        elif name != "none":
            found.append(name)
    return list(dict.fromkeys(found))


def _has_tensorboard() -> bool:
    return any(importlib.util.find_spec(m) for m in ("tensorboard", "tensorboardX"))


def _class_of(name: str) -> type[Logger]:
    if name == "csv":
        return lightning.pytorch.loggers.CSVLogger
    if name == "tensorboard":
        if not _has_tensorboard():
            raise RequestError("--logger tensorboard: not installed; pip install tensorboard")
        return lightning.pytorch.loggers.TensorBoardLogger
    module, _, attribute = name.replace(":", ".").rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except Exception as error:  # of a foreign module: whatever it raises
        raise RequestError(f"--logger {name}: cannot import {module} ({reason(error)})") from None
    if found is None:
        hint = nearest(attribute, dir(importlib.import_module(module)))
        raise RequestError(f"--logger {name}: {module} has no {attribute}{hint}")
    if not (isinstance(found, type) and issubclass(found, Logger)):
        raise RequestError(
            f"--logger {name}: is not a lightning.pytorch.loggers.Logger; name a class that is one"
        )
    return found


def log_row(loggers: Sequence[Logger], row: Mapping[str, object], step: int) -> list[Logger]:
    """Hand one epoch's means to the loggers and return those that took them; ``step`` counts
    epochs over all phases.  One that fails is left out from then on: Lightning would let it end
    the training."""
    working = []
    values = {f"{row['phase']}/{k}": float(v) for k, v in row.items() if k != "phase"}  # type: ignore[arg-type]
    for logger in loggers:
        try:
            logger.log_metrics(values, step)
            logger.save()
        except OSError as error:
            where = logger.log_dir or type(logger).__name__
            log.warning("%s: cannot be written (%s)", where, error.strerror or error)
        except Exception as error:  # of a foreign class: whatever it raises
            log.warning("logger %s: left out (%s)", type(logger).__name__, reason(error))
        else:
            working.append(logger)
    return working

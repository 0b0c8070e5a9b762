"""Normal pictures that a few-shot method compares with: how many there are says how many it uses.

No torch.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zsad import registry
from zsad.config.method_config import MethodConfig
from zsad.config.sections import read_overrides
from zsad.errors import RequestError, counted
from zsad.inference.pictures import Reading, find, open_picture

log = logging.getLogger(__name__)


def can_refer(schema: type[MethodConfig]) -> bool:
    """Whether methods of this config can compare with reference pictures (a key ``shots``)."""
    return "shots" in {f.name for f in dataclasses.fields(schema)}  # type: ignore[arg-type]


def refuse(method: str, count: int) -> RequestError:
    """The error for references that a method cannot use."""
    known = [name for name, e in registry.methods().items() if can_refer(e.config_class())]
    return RequestError(
        f"method '{method}' compares with no reference pictures, and {count} were given; leave "
        f"them out, or choose one of {', '.join(known)}"
    )


def refuse_bank(method: str, schema: type[MethodConfig]) -> RequestError:
    """The error for a bank of a method that compares with no pictures."""
    if can_refer(schema):
        return RequestError(
            f"method '{method}' was loaded for 0 reference pictures and keeps none; give some "
            f"(--reference, overrides={{'shots': N}})"
        )
    return RequestError(f"method '{method}' compares with no pictures: it keeps no bank")


def found(given: Any) -> list[Any]:
    """The references that somebody names: files, folders, patterns; or pictures in memory.

    Raises :class:`zsad.errors.DataError` for a word without a picture.
    """
    items = [given] if isinstance(given, (str, Path)) else list(given)
    if not all(isinstance(item, (str, Path)) for item in items):
        return items
    return [photo.path for photo in find(map(str, items))]


def with_shots(
    method: str, overrides: Mapping[str, Any] | Sequence[str] | None, count: int
) -> Mapping[str, Any] | Sequence[str] | None:
    """``overrides`` that let a method use ``count`` references, unless they say how many.

    Raises :class:`RequestError` for a method that cannot use any, and for shots set to 0.
    """
    if not count:
        return overrides
    if not can_refer(registry.method(method).config_class()):
        raise refuse(method, count)
    values = read_overrides(overrides)
    own = values.get(method, {})
    shots = own.get("shots") if isinstance(own, Mapping) else None
    shots = values.get("shots") if shots is None else shots
    if shots is None:
        return {**values, "shots": count}
    if shots == 0:
        raise RequestError(
            f"{method}.shots=0 uses no reference pictures, and {count} were given; leave out one "
            f"of the two"
        )
    return values


def digest(pictures: Sequence[Any], bits: int = 0) -> str:
    """A digest of pictures by their pixels, in order; ``bits`` as :func:`open_picture`."""
    found = hashlib.sha256()
    for item in pictures:
        picture = open_picture(item, Reading(bits))
        found.update(f"{picture.size}".encode())
        found.update(picture.tobytes())
    return found.hexdigest()[:16]


def warn_of_twins(references: Sequence[Any], normal: Sequence[Path]) -> None:
    """Say that pictures serve as references and for calibration: a picture lies nearer to itself
    than a new one does, so thresholds made of it are too low."""
    files = {Path(r).resolve() for r in references if isinstance(r, (str, Path))}
    both = [path for path in normal if path.resolve() in files]
    if both:
        log.warning(
            "%s of --calibrate among the references, too (%s): the thresholds come out too low; "
            "calibrate with others",
            counted(len(both), "picture"),
            both[0],
        )

"""Normal pictures that a few-shot method compares with: how many there are says how many it uses.

No torch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import filecmp
import hashlib
import logging
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zsad import registry
from zsad.config.method_config import MethodConfig
from zsad.config.sections import read_overrides
from zsad.data.indexers.own_folder import understand
from zsad.data.indexers.words import kind_of
from zsad.errors import RequestError, counted, shown
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


def found(given: Any, said: str = "--reference") -> list[Any]:
    """The normal pictures that somebody names: files, folders, patterns; or pictures in memory.
    ``said``: what messages call them.

    Raises :class:`zsad.errors.DataError` for a word without a picture, and :class:`RequestError`
    for a folder in which other folders say that some pictures are not normal.
    """
    items = [given] if isinstance(given, (str, Path)) else list(given)
    if not all(isinstance(item, (str, Path)) for item in items):
        return items
    for word in map(str, items):
        _refuse_defects(word, said)
    return [photo.path for photo in find(map(str, items))]


def _refuse_defects(word: str, said: str) -> None:
    """Raise :class:`RequestError` for a folder that holds folders of defects; warn of one that is
    called so itself."""
    path = Path(word)
    if not path.is_dir():
        return
    held = understand(path)
    bad = [p.path for p in held.pictures if p.label]
    if not bad and held.pictures:  # some are normal by their folders, of others nothing is said
        bad = [e.path for e in held.account.without_role]
    if bad:
        raise RequestError(
            f"{said} {word}: its folders do not say that all of it is normal "
            f"({counted(len(bad), 'picture')}, first: {shown(bad[0])}); give the folder of the "
            "normal ones"
        )
    if kind_of(path.name) == "anomalous":
        log.warning("%s %s: is called as a folder of defects, and taken for normal", said, word)


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


def warn_of_twins(references: Sequence[Any], pictures: Sequence[Path], said: str = "") -> None:
    """Say that pictures serve as references, too: a picture lies nearer to itself than a new one
    does.  ``said``: the option that names them; "" for the pictures that are scored.

    Files are compared by what they hold, under whatever names."""
    by_size: dict[int, list[Path]] = defaultdict(list)
    for item in references:
        if isinstance(item, (str, Path)) and (size := _size(item)) is not None:
            by_size[size].append(Path(item))
    both = [path for path in pictures if _same(path, by_size.get(_size(path) or -1, ()))]
    if not both:
        return
    what = f"of {said} among the references, too" if said else "to score among the references"
    come = "the thresholds come out too low; calibrate with others"
    log.warning(
        "%s %s (%s): %s",
        *(counted(len(both), "picture"), what, both[0]),
        come if said else "what is compared with itself scores too low",
    )


def _size(path: str | Path) -> int | None:
    try:
        return os.stat(path).st_size
    except (OSError, ValueError):
        return None


def _same(path: Path, others: Sequence[Path]) -> bool:
    """Whether a file holds what one of ``others`` of its size holds."""
    with contextlib.suppress(OSError):
        return any(filecmp.cmp(path, other, shallow=False) for other in others)
    return False

"""The one trained state that a value names, where there is no target to choose it by.  No torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from zsad.checkpoints.account import Origin, origin_of
from zsad.checkpoints.sources import EVERY, parse
from zsad.errors import RequestError


def single(
    value: Any,
    method: str,
    option: str = "checkpoint",
    offline: bool = False,
    companions: Iterable[str] = (),
) -> Origin:
    """The file of a method that ``value`` names, for pictures of one's own.

    ``value``: as :func:`zsad.checkpoints.sources.parse` takes it, but no mapping by target.
    ``companions``: files of the method that are read along with another.
    Raises :class:`RequestError` for a mapping, for another method's file, and for a folder that
    holds none of the method's files, or several.
    """
    sources = parse(value, option, offline=offline)
    place = sources.of_target.get(EVERY)
    if place is None or len(sources.of_target) > 1:
        raise RequestError(
            f"{option}={sources}: pictures of your own belong to no target; give one file"
        )
    found = [origin_of(path) for path in place.states(companions)]
    mine = [o for o in found if o.method == method]
    if len(found) == 1 and found[0].method in ("", method):
        return found[0]
    if len(mine) != 1:
        what = "several of its files are" if mine else "none of its files is known to be"
        listed = ", ".join(o.words for o in mine or found)
        raise RequestError(f"{option}={place.text}: {what} of {method}: {listed}; name one file")
    return mine[0]

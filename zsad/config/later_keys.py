"""Keys of a schema that came after results were stored, and what they mean for an identity."""

from __future__ import annotations

import dataclasses
from typing import Any

_ADDED, _NO_FIGURE, _WAS = "zsad.added", "zsad.no_figure", "zsad.was"


def added(
    default: Any = dataclasses.MISSING,
    *,
    default_factory: Any = dataclasses.MISSING,
    changes_figures: bool = True,
) -> Any:
    """Declare a key of a schema that came after results were stored.

    It enters an identity (:func:`zsad.config.identity`) only where it differs from its default,
    so that what was stored without it is still found.  The default stays what it is for ever.
    ``changes_figures`` False: two values of it give the same figures, so it enters none.
    """
    if default is dataclasses.MISSING and default_factory is dataclasses.MISSING:
        raise TypeError("a key that is added later needs a default")
    found: Any = dataclasses.field(
        default=default,
        default_factory=default_factory,
        metadata={_ADDED: True, _NO_FIGURE: not changes_figures},
    )
    return found


def replaced(default: Any, *, was: Any) -> Any:
    """Declare a key of a schema whose default changed after results were stored.

    For a key whose effect a fingerprint states elsewhere, such as the detector, whose answers
    enter it where there are any.  At its new default it is hashed as the former one
    (:func:`zsad.config.hashed`), so that what was stored where it had no effect is still found.
    """
    found: Any = dataclasses.field(default=default, metadata={_WAS: was})
    return found


def former(field: dataclasses.Field[Any], held: Any) -> Any:
    """A value as fingerprints have it: see :func:`replaced`."""
    return field.metadata[_WAS] if _WAS in field.metadata and held == field.default else held


def is_added(field: dataclasses.Field[Any]) -> bool:
    """Whether a field was declared with :func:`added`."""
    return _ADDED in field.metadata


def default_of(field: dataclasses.Field[Any]) -> Any:
    """The default of a field that has one."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def left_out(field: dataclasses.Field[Any], value: Any) -> bool:
    """Whether an identity says nothing of a field that holds ``value``."""
    if not is_added(field):
        return False
    return bool(field.metadata.get(_NO_FIGURE)) or bool(value == default_of(field))

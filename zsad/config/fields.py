"""How a schema's key says that it came after results were stored, or changed its default then."""

from __future__ import annotations

import dataclasses
from typing import Any

ADDED, WAS = "zsad.added", "zsad.was"


def added(default: Any = dataclasses.MISSING, *, default_factory: Any = dataclasses.MISSING) -> Any:
    """Declare a key of a schema that came after results were stored.

    It enters an identity (:func:`zsad.config.identity`) only where it differs from its default, so that
    what was stored without it is still found.  The default stays what it is for ever.
    """
    if default is dataclasses.MISSING and default_factory is dataclasses.MISSING:
        raise TypeError("a key that is added later needs a default")
    found: Any = dataclasses.field(
        default=default, default_factory=default_factory, metadata={ADDED: True}
    )
    return found


def replaced(default: Any, *, was: Any) -> Any:
    """Declare a key of a schema whose default changed after results were stored.

    For a key whose effect an identity states elsewhere, such as the detector, whose answers enter
    it where there are any.  At its new default it enters as the former one, so that what was
    stored where it had no effect is still found.
    """
    found: Any = dataclasses.field(default=default, metadata={WAS: was})
    return found


def is_added(field: dataclasses.Field[Any]) -> bool:
    """Whether a field was declared with :func:`added`."""
    return ADDED in field.metadata


def default_of(field: dataclasses.Field[Any]) -> Any:
    """The default of a field that has one."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def former(field: dataclasses.Field[Any], held: Any) -> Any:
    """A value as identities have it: see :func:`replaced`."""
    return field.metadata[WAS] if WAS in field.metadata and held == field.default else held

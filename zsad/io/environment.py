"""Values of environment variables that settings refer to: they are used, and never stored.

``${oc.env:NAME}`` in a file of settings stands for a variable of the environment, which may hold
what nobody else is to read.  What a run leaves (records, the manifest) says the reference again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

SHORTEST = 6  # characters of a value that is looked for inside of others; shorter ones as a whole
_TAKEN: dict[str, str] = {}  # value -> the reference it came from


def taken(name: str, *default: str | None) -> str | None:
    """The value of a variable, or its default.  Raises ``KeyError`` where there is neither."""
    if name in os.environ:
        value = os.environ[name]
        if value:
            _TAKEN[value] = f"${{oc.env:{name}}}"
        return value
    if default:
        return default[0]
    raise KeyError(f"environment variable '{name}' not found")


def concealed(value: Any) -> Any:
    """The value with references in place of what :func:`taken` returned, nested as it is."""
    if isinstance(value, str):
        for secret, reference in _TAKEN.items():
            if value == secret:
                return reference
            if len(secret) >= SHORTEST:
                value = value.replace(secret, reference)
        return value
    if isinstance(value, Mapping):
        return {concealed(key): concealed(held) for key, held in value.items()}
    if isinstance(value, (list, tuple)):
        return [concealed(held) for held in value]
    return value

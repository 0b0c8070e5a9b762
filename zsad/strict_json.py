"""Reads JSON that others wrote: the one place where it is done."""

from __future__ import annotations

import json
import math
from typing import Any

from zsad.errors import DataError

MOST_DEPTH = 100  # of containers in each other: no file of ours, or of a dataset, has a tenth


def parse_json(text: str | bytes, name: str, depth: int = MOST_DEPTH) -> Any:
    """Read JSON of any origin.

    ``name``: what it is, for errors.  NaN and infinities, which are not JSON, are refused, and so
    are brackets and numbers without end, and more than ``depth`` containers in each other, so that
    whatever walks through what was read comes to its end.  Raises :class:`DataError` that names
    the line.
    """
    try:
        found = json.loads(text, parse_constant=_no_number, parse_float=_finite)
        if _deeper(found, depth):
            raise RecursionError
        return found
    except json.JSONDecodeError as error:
        raise DataError(f"{name}, line {error.lineno}: not valid JSON ({error.msg})") from None
    except RecursionError:
        raise DataError(f"{name}: not JSON that can be read (too many brackets)") from None
    except ValueError as error:  # not UTF-8, not a number, a number without end
        raise DataError(f"{name}: not JSON that can be read ({error})") from None


def _deeper(value: Any, depth: int) -> bool:
    """Whether more than ``depth`` containers lie in each other."""
    level = [value]
    for _ in range(depth + 1):
        containers = [v for v in level if isinstance(v, (dict, list))]
        if not containers:
            return False
        level = [v for c in containers for v in (c.values() if isinstance(c, dict) else c)]
    return True


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def _finite(text: str) -> float:
    """``1e999`` is valid JSON, and infinity to Python."""
    value = float(text)
    return value if math.isfinite(value) else _no_number(text)

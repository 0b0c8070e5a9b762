"""Which devices there can be, by name.  No torch: whether one is there is seen when it is used."""

from __future__ import annotations

import re

from zsad.errors import RequestError

# Not all that torch has a name for: tensors of "meta" hold no numbers, a TPU needs other programs.
_KNOWN = re.compile(r"auto|cpu|mps(:0)?|(cuda|xpu)(:[0-9]{1,2})?", re.ASCII)


def require_device(name: str) -> None:
    """Raise :class:`RequestError` for what is the name of no device that torch computes on."""
    if not _KNOWN.fullmatch(str(name)):
        raise RequestError(f"--device {name}: no device; give auto, cpu, cuda, cuda:1, mps or xpu")

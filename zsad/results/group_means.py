"""Means over a paper's datasets of one domain, which papers print beside single datasets.

A paper trains on one dataset and takes another one for that dataset itself, whose figure it leaves
out of the mean: all members have learnt from the same pictures.
"""

from __future__ import annotations

from functools import cache

from zsad.data.catalog import group_members
from zsad.errors import ZsadError
from zsad.protocols import load_protocol

GROUPS = {"industrial_mean": "industrial", "medical_mean": "medical"}  # by the published name


def title(name: str) -> str:
    """How tables call such a mean."""
    return f"mean of the {GROUPS[name]} datasets that share a training set"


@cache
def members(name: str, protocol: str, level: str = "") -> tuple[str, ...]:
    """The datasets behind a mean in a protocol; ``level``: those that have figures at it.

    Empty for another name, and for a protocol that is not there."""
    from zsad.data.catalog import load_spec

    if name not in GROUPS:
        return ()
    try:
        auxiliary = load_protocol(protocol).auxiliary
    except ZsadError:  # somebody's own protocol file that is no longer there
        return ()
    alike = [d for d in group_members(GROUPS[name]) if auxiliary.of(d) == auxiliary.default]
    return tuple(d for d in alike if not level or level in load_spec(d).levels)

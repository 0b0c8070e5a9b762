"""Which part of which block a set of taps needs: nothing else is computed.

The rows of a transformer block are independent outside its attention, so a block whose full
output nobody reads can be run for the class row alone, and a v-v attention only where a tap
sums it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from zsad.types import Tap

VALUE_KINDS = ("values", "values_proj", "values_norm", "values_block")
WINDOW_KINDS = {  # window tap -> the tap of the last block that a window pass must deliver
    "window": "cls",
    "window_pixels": "cls",
    "window_values": "values_proj",
    "window_values_norm": "values_norm",
    "window_values_block": "values_block",
}


class Rows(IntEnum):
    """Rows of a state that are computed."""

    NONE = 0
    CLASS = 1
    ALL = 2


@dataclass
class BlockNeed:
    """What one block must compute.

    ``attention``: rows of x + attention; ``output``: rows of the block's output (after the
    feed-forward part); ``vv``: its v-v attention a_l; ``values``: its v, for a tap; ``starts``:
    the v-v paths that add its a_l.
    """

    attention: Rows = Rows.NONE
    output: Rows = Rows.NONE
    vv: bool = False
    values: bool = False
    starts: frozenset[int] = frozenset()


def plan(taps: Iterable[Tap], depth: int) -> list[BlockNeed]:
    """Return what each block, from the first to the last needed one, must compute.

    Raises ``ValueError`` for a tap that an encoder of ``depth`` blocks does not have.
    """
    needs = [BlockNeed() for _ in range(depth + 1)]  # needs[0]: the embedded input x_0
    last = 0
    for tap in taps:
        check(tap, depth)
        kind, layer, start = tap
        if kind in ("cls", "cls_raw"):
            layer = depth
            _require(needs[layer], output=Rows.CLASS)
        elif kind in ("tokens", "tokens_proj"):
            _require(needs[layer], output=Rows.ALL)
        elif kind == "mid":
            layer += 1
            _require(needs[layer], attention=Rows.ALL)
        elif kind in ("vv", "vv_proj"):
            if layer < start:  # the path has not begun: it is the ordinary state
                _require(needs[layer], output=Rows.ALL)
            for j in range(start, layer + 1):
                needs[j].vv = True
                needs[j].starts |= {start}
        elif kind == "vv_ffn":
            needs[layer].vv = True
        elif kind in VALUE_KINDS:
            needs[layer].values = True
        else:  # pre_tokens and windows need no block of the full pass
            continue
        last = max(last, layer)
    for need in needs[:last]:
        _require(need, output=Rows.ALL)
    return needs[1 : last + 1]


def _require(need: BlockNeed, *, attention: Rows = Rows.NONE, output: Rows = Rows.NONE) -> None:
    """Let a block compute at least these rows; what it outputs needs as many of its attention."""
    need.output = max(need.output, output)
    need.attention = max(need.attention, attention, need.output)


def check(tap: Tap, depth: int) -> None:
    """Raise ``ValueError`` unless ``tap`` exists in an encoder of ``depth`` blocks."""
    kind, layer, start = tap
    lowest, highest = {
        "cls": (0, depth),
        "cls_raw": (0, depth),
        "tokens": (0, depth),
        "tokens_proj": (0, depth),
        "mid": (0, depth - 1),
        "vv": (0, depth),
        "vv_proj": (0, depth),
        "vv_ffn": (1, depth),
        **dict.fromkeys(VALUE_KINDS, (1, depth)),
        "pre_tokens": (0, 0),
        **dict.fromkeys(WINDOW_KINDS, (1, 1 << 30)),
    }.get(kind, (1, 0))
    if highest < lowest:
        raise ValueError(f"unknown tap kind '{kind}'")
    if not lowest <= layer <= highest:
        raise ValueError(f"tap {tuple(tap)}: layer must be in {lowest}..{highest}")
    if kind in ("vv", "vv_proj") and not 1 <= start <= depth:
        raise ValueError(f"tap {tuple(tap)}: start must be in 1..{depth}")

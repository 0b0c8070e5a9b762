"""Implausible values: said once for a folder, where they are read.

Nothing here changes a value.  Pictures that are nearly black because their camera fills 10 or 12 of
16 bits, masks that mark nearly everything or nothing, soft edges that a threshold of 0 widens.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from zsad.errors import counted
from zsad.runtime.pictures import FIRST_ALONE
from zsad.types import Sample

log = logging.getLogger(__name__)

DARK = 16  # a deep picture that uses at most 1/16 of its range holds 12 bits or fewer in 16
MOST = 0.5  # a mask that marks a larger share of its picture is rather the other way round
WIDER = 1.1  # times the area at half the height, from which on a mask's edge counts as soft
LEVELS = 8  # fewer grey values are classes, not a soft edge
FAINT = 32  # of 255: masks whose brightest value is below it hold class numbers

_TOLD: set[tuple[str, str]] = set()
_RANGES: dict[str, float] = {}  # folder -> what its 32-bit pictures were divided by
_LOCK = threading.Lock()


def forget() -> None:
    """Say everything again, as a new process does."""
    with _LOCK:
        _TOLD.clear()
        _RANGES.clear()


def _once(kind: str, uri: str, text: str) -> None:
    key = kind, os.path.dirname(uri)
    with _LOCK:
        known = key in _TOLD
        _TOLD.add(key)
    if not known:
        log.warning("%s: %s", uri, text)


# ------------------------------------------------------------------------------- pictures
def bits_used(high: float) -> int:
    """The bits of a camera whose brightest value is ``high``: 10 or 12, or as many as it needs."""
    needed = max(1, int(high).bit_length())
    return next((n for n in (8, 10, 12, 14, 16) if needed <= n), needed)


def is_dark(high: float, full: float) -> bool:
    """Whether a deep picture whose brightest value is ``high`` of ``full`` looks black."""
    return 0 < high <= full / DARK


def look_at_range(uri: str, high: float, full: float, chosen: bool) -> None:
    """Say that a deep picture is nearly black, or is divided by another value than its neighbours.

    ``chosen``: whether the divisor ``full`` was chosen by the values of this picture."""
    bits = bits_used(high)
    if is_dark(high, full):
        _once(
            "dark",
            uri,
            f"its values reach {high:g} of {full:g}, so it is nearly black; if the camera gives "
            f"{bits} bits, say so: data.folder.bits={bits} for pictures of `zsad predict` and "
            f"folder: datasets, `bits: {bits}` of the variant in a definition",
        )
    if chosen:
        with _LOCK:
            before = _RANGES.setdefault(os.path.dirname(uri), full)
        if before != full:
            _once(
                "range",
                uri,
                f"divided by {full:g}, others of its folder by {before:g}, as their values "
                "suggest; data.folder.bits=N takes one range for all",
            )


def tell_of_more(uri: str) -> None:
    """Say that a file holds further pictures, which nobody looks at."""
    _once("more", uri, FIRST_ALONE)


# ---------------------------------------------------------------------------------- masks
def widened(values: np.ndarray, threshold: int) -> float:
    """How many times the area at half the height a soft mask marks; 1 for one that is not soft.

    values: uint8 [H, W]."""
    high = int(values.max(initial=0))
    if high <= max(FAINT, 2 * threshold):
        return 1.0
    half = int(np.count_nonzero(values > high // 2))  # of whole numbers: more than half
    ratio = int(np.count_nonzero(values > threshold)) / max(1, half)
    return ratio if ratio > WIDER and len(np.unique(values)) >= LEVELS else 1.0


def look_at_mask(uri: str, values: np.ndarray, threshold: int) -> None:
    """Say that a mask's edge is soft and the threshold widens it."""
    ratio = widened(values, threshold)
    if ratio > 1:
        _once(
            "soft",
            uri,
            f"its edge is soft: values above {threshold} cover {ratio:.1f} times the area of those "
            "above half; data.folder.mask_threshold=127 cuts it in the middle (in a definition: "
            "`mask_threshold: 127` of the variant)",
        )


def findings(shares: Mapping[str, float]) -> list[str]:
    """What is odd about masks of anomalous pictures: ``{name: marked share of the picture}``."""
    out = []
    full = [name for name, share in shares.items() if share > MOST]
    if 2 * len(full) > len(shares):
        out.append(
            f"{len(full)} of {counted(len(shares), 'mask')} mark more than half of their "
            "picture (first: "
            f"{full[0]}): a defect must be bright on black; these look inverted, or painted on "
            "white"
        )
    empty = [name for name, share in shares.items() if share == 0]
    if empty:
        out.append(
            f"{counted(len(empty), 'anomalous image has', 'anomalous images have')} an empty mask "
            f"(first: {empty[0]})"
        )
    return out


def few_full(shares: Mapping[str, float]) -> str:
    """What is to be said where some masks mark most of their picture, and :func:`findings` takes
    none for inverted; "" where none does."""
    full = [name for name, share in shares.items() if share > MOST]
    if not full or 2 * len(full) > len(shares):
        return ""
    return (
        f"{len(full)} of {counted(len(shares), 'mask')} "
        f"{'marks' if len(full) == 1 else 'mark'} more than half of the picture (first: "
        f"{full[0]}): look whether the defect is that large, or the mask inverted"
    )


def marked(samples: Iterable[Sample], masks: Iterable[Any]) -> dict[str, float]:
    """How much of each anomalous picture its mask marks, by name.  masks: bool tensors [H, W]."""
    return {
        s.uid: float(mask.float().mean())
        for s, mask in zip(samples, masks)
        if s.label and s.mask is not None
    }


def tell_masks(where: str, shares: Mapping[str, float]) -> None:
    """Say what :func:`findings` finds, once for ``where``."""
    for text in findings(shares):
        _once(text, f"{where}/", text)

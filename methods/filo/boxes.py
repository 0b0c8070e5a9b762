"""From a detector's raw answer to kept boxes and a position (section 3.3.1 and 3.3.2).

The rules themselves are those of :mod:`zsad.runtime.boxes`, which packages use, too.
"""

from __future__ import annotations

from collections.abc import Sequence

from zsad.methods.filo.config import Grounding
from zsad.runtime import boxes as given
from zsad.runtime.boxes import Arithmetic, BoxRule
from zsad.types import Boxes

Located = given.Located[Boxes]


def rule(asked: Sequence[str], options: Grounding, arithmetic: Arithmetic) -> BoxRule:
    """Which boxes count.  ``asked``: words of which a phrase must contain one."""
    return BoxRule(
        asked=tuple(asked),
        box_threshold=options.box_threshold,
        area=options.area,
        phrase_filter=options.phrase_filter,
        arithmetic=arithmetic,
        required=options.enabled is True,
    )


def locate(
    boxes: Boxes | None,
    asked: Sequence[str],
    options: Grounding,
    arithmetic: Arithmetic,
    image_size: int,
) -> Located:
    """Filter one image's detections.  ``image_size``: pixels of the working image (``released``
    only)."""
    return given.locate(boxes, rule(asked, options, arithmetic), image_size)

"""How AA-CLIP's training changes pictures, masks along with them.  Torch-free."""

from __future__ import annotations

import random
from collections.abc import Callable

from zsad.data.augment import Change
from zsad.types import BackboneInfo

TURN, SHIFT, TONE = 30.0, 0.15, 0.5  # most that it turns (degrees), shifts (sides), recolours


def changes(backbone: BackboneInfo, toned: bool) -> Callable[[random.Random], Change]:
    """Return what draws the change of a picture; ``toned``: its colours, too."""
    mean = tuple(round(255 * m) for m in backbone.mean)  # 0 once it is normalised

    def drawn(draw: random.Random) -> Change:
        shift = (draw.uniform(-SHIFT, SHIFT), draw.uniform(-SHIFT, SHIFT))
        tones = [draw.uniform(1 - TONE, 1 + TONE) if draw.random() < 0.7 else 1.0 for _ in range(3)]
        bright, contrast, saturation = tones if toned else (1.0, 1.0, 1.0)
        return Change(
            turn=draw.uniform(-TURN, TURN) if draw.random() < 0.5 else 0.0,
            shift=shift if draw.random() < 0.5 else (0.0, 0.0),
            flips=(draw.random() < 0.5, draw.random() < 0.5),
            border="colour",
            colour=(mean[0], mean[1], mean[2]),
            brightness=bright,
            contrast=contrast,
            saturation=saturation,
        )

    return drawn

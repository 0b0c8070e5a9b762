"""Groups of keys that the configs of several methods hold.  Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zsad.config.method_config import MethodConfig


@dataclass(frozen=True)
class Deep:
    """``deep.*``: learned tokens at the inputs of the first text blocks.

    ``depth`` counts the prompt's own context as layer 1, so ``depth - 1`` sets are learned.
    """

    depth: int = 9
    tokens: int = 4

    def __post_init__(self) -> None:
        if self.depth < 1 or self.tokens < 1:
            raise ValueError("deep.depth and deep.tokens must be at least 1")


class LayeredConfig(MethodConfig):
    """What :class:`zsad.components.released_state.LayeredRelease` reads; sub-classes declare it.

    ``layers``: ``stages`` = the backbone's four feature layers, or 1-based block numbers.
    """

    layers: Literal["stages"] | list[int]


class StageConfig(LayeredConfig):
    """What :class:`zsad.components.stage_method.StageMethod` reads; sub-classes declare the keys.

    ``scale`` multiplies cosines.  ``fuse``: how the maps of the layers are joined.  ``sigma``:
    smoothing of the map, output pixels.
    """

    scale: float
    fuse: Literal["mean", "sum"]
    sigma: float

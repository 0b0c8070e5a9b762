"""What the single prompts of a method say of a picture, to be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PromptView:
    """The T prompts of a method as they were for one image.

    ``names``: what each is called; ``abnormal`` [T] bool: for which of both labels it stands;
    ``embeddings`` [T, E] and ``image`` [E]: unit vectors of the joint space; ``kept`` [T] bool:
    which of them counted for this image.  ``maps`` [A, h, w]: what each of the A abnormal ones
    alone finds anomalous, in [0, 1] and in their order; None for a method that makes no map of a
    single prompt.
    """

    names: Sequence[str]
    abnormal: Tensor
    embeddings: Tensor
    image: Tensor
    kept: Tensor
    maps: Tensor | None = None

"""What a tower is: the two sides of a backbone, whoever built it.

CLIP's :class:`zsad.backbones.clip_vit.ImageEncoder` and :class:`zsad.backbones.text.TextEncoder`
are the first of each.  Methods ask for taps by name and never look inside; those that resume a
pass or learn tokens need CLIP's own, and say so by reading text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NoReturn, Protocol

import torch
from torch import Tensor

from zsad.backbones.counters import Counters
from zsad.errors import RequestError
from zsad.types import EncoderVariant, ImageFeatures, Tap


class ImageTower(Protocol):
    """Turns pictures into taps, under one :class:`EncoderVariant`.

    ``patch``: pixels of a side; ``depth``: blocks; ``dtype``: of the features; ``counters``: what
    :func:`begin_pass` counts into.
    """

    variant: EncoderVariant
    counters: Counters
    patch: int
    depth: int

    @property
    def dtype(self) -> torch.dtype: ...

    def encode(self, images: Tensor, taps: Iterable[Tap]) -> ImageFeatures:
        """Encode normalised images [B, 3, H, W] once and return the wanted taps.

        Raises ``ValueError`` for a tap that the tower does not have.
        """
        ...

    def taps_of(self, images: Tensor, taps: Iterable[Tap]) -> dict[Tap, Tensor]:
        """The same as a pure function of the images."""
        ...


def begin_pass(tower: ImageTower, images: Tensor) -> tuple[int, int]:
    """Count a pass over images [B, 3, H, W], and return its grid of patches (rows, columns).

    Raises ``ValueError`` for images of another size than the tower's variant asks for.
    """
    height, width = images.shape[-2:]
    wanted = tower.variant.image_size
    if wanted and (height, width) != (wanted, wanted):
        raise ValueError(f"images are {(height, width)}, the request is for {wanted} pixels")
    tower.counters.image_forwards += 1
    tower.counters.images += len(images)
    return height // tower.patch, width // tower.patch


class NoText:
    """Stands where a text tower would be.  Whoever reads text from it is refused in one line."""

    def __init__(self, backbone: str) -> None:
        self._backbone = backbone

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):  # what Python itself asks for
            raise AttributeError(name)
        raise RequestError(
            f"backbone '{self._backbone}' has no text tower, and the method reads text; choose a "
            "method that reads none (`zsad list methods`), or a CLIP such as vit-l-14-336"
        )


class TextTower(Protocol):
    """Turns sentences into embeddings of the pictures' space.  ``context_length``: tokens."""

    context_length: int

    @property
    def embed(self) -> int:
        """E, the width of the embeddings."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Return the embeddings [N, E] of N texts; not normalised."""
        ...

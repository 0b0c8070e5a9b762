"""The encoder for fixed taps as one module, recorded by ``torch.export``.

What depends on the shape alone (position tables, window indices) is a constant of the recording,
never an operation in it: the encoder has made it before.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from zsad.backbones.batch_size import WINDOW_TOKENS
from zsad.backbones.windows import prepare_windows
from zsad.types import Tap

if TYPE_CHECKING:
    from zsad.backbones.clip_vit import ImageEncoder


class TapGraph(nn.Module):
    """Image [1, 3, S, S] -> the taps, in the order in which they were given."""

    def __init__(self, encoder: ImageEncoder, taps: Sequence[Tap]) -> None:
        super().__init__()
        self.visual = encoder.visual  # known to the recorder by this name
        self._encoder, self._taps = encoder, tuple(taps)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        found = self._encoder.taps_of(image, self._taps)
        return tuple(found[tap] for tap in self._taps)


def make_constants(encoder: ImageEncoder, size: int, taps: Sequence[Tap]) -> None:
    """Make what depends on the shape alone: made while something records it, it would be an
    operation of the recording, and what the encoder kept of it would be no values."""
    grid = (size // encoder.patch, size // encoder.patch)
    table = encoder.positions(grid)
    prepare_windows(grid, taps, table.device)


def record(encoder: ImageEncoder, size: int, taps: Sequence[Tap]) -> torch.export.ExportedProgram:
    """Record the encoder for one square image of ``size`` pixels; nothing is computed."""
    make_constants(encoder, size, taps)
    twin = copy.copy(encoder)
    twin.window_tokens = WINDOW_TOKENS  # every chunk is one more copy of all blocks in the graph
    module = TapGraph(twin, taps).eval()
    image = torch.zeros(1, 3, size, size)
    with torch.no_grad():
        return torch.export.export(module, (image,), strict=False)

"""``backbone.compile=true``: the whole encoder for fixed taps, compiled by ``torch.compile``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zsad.backbones.engines.interface import Graph
from zsad.backbones.engines.recording import TapGraph, make_constants
from zsad.types import Tap

if TYPE_CHECKING:
    from zsad.backbones.clip_vit import ImageEncoder


class Compiled:
    """Compiles at the first image of a graph; one graph serves batches of every size."""

    name = "compile"

    def __init__(self) -> None:
        self.version = str(torch.__version__)

    def graph(self, encoder: ImageEncoder, size: int, taps: Sequence[Tap]) -> Graph:
        make_constants(encoder, size, taps)
        run = torch.compile(TapGraph(encoder, taps).eval(), dynamic=True)

        def call(images: Tensor) -> dict[Tap, Tensor]:
            return dict(zip(taps, run(images), strict=True))

        return call

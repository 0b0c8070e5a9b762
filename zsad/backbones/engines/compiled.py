"""``backbone.compile=true``: the parts of a block between its products, fused by ``torch.compile``.

Norms, activations and the casts around them are half of the kernels of a block and nothing but
memory traffic; the products and the attention are kernels already.  What is compiled are two
functions of a state and a block's weights, not the encoder: one compilation serves all blocks, all
batch sizes, the full pass and the window passes of every size.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zsad.backbones.blocks import Block, activation_of, exact_gelu
from zsad.backbones.engines.interface import Graph
from zsad.torchvision_compat import open_clip
from zsad.types import Tap

if TYPE_CHECKING:
    from zsad.backbones.clip_vit import ImageEncoder


class Compiled:
    """Compiles at the first image of a graph."""

    name = "compile"

    def __init__(self) -> None:
        self.version = str(torch.__version__)
        self.normed: Callable[..., Tensor] = torch.compile(normed)
        self.fed: Callable[..., Tensor] = torch.compile(fed)

    def graph(self, encoder: ImageEncoder, size: int, taps: Sequence[Tap]) -> Graph:
        """Return the encoder with fused blocks; those that are built otherwise stay as they are."""
        twin = copy.copy(encoder)
        activation = activation_of(encoder.variant.activation)
        twin.blocks = [
            FusedBlock(self, b.block, activation) if fusible(b) else b for b in encoder.blocks
        ]

        def call(images: Tensor) -> dict[Tap, Tensor]:
            return twin.taps_of(images, taps)

        return call


class FusedBlock(Block):
    """A block whose norms and feed-forward part are compiled."""

    def __init__(self, compiled: Compiled, *block: object) -> None:
        super().__init__(*block)  # type: ignore[arg-type]
        self.compiled = compiled
        self.quick = not exact_gelu(self.activation)

    def norm(self, x: Tensor) -> Tensor:
        own = self.block.ln_1
        return self.compiled.normed(_rows(x), own.weight, own.bias, own.eps).view(x.shape)

    def feed_forward(self, x: Tensor) -> Tensor:
        own, up, down = self.block.ln_2, self.block.mlp.c_fc, self.block.mlp.c_proj
        made = self.compiled.fed(
            _rows(x),
            *(own.weight, own.bias, own.eps),
            *(up.weight, up.bias, down.weight, down.bias),
            self.quick,
        )
        return made.view(x.shape)


def fusible(block: Block) -> bool:
    """Whether a block is made of what :func:`normed` and :func:`fed` compute."""
    own = block.block
    quick = isinstance(block.activation, open_clip.transformer.QuickGELU)
    plain = isinstance(own.ls_2, nn.Identity) and (quick or exact_gelu(block.activation))
    return plain and isinstance(own.ln_1, nn.LayerNorm) and isinstance(own.ln_2, nn.LayerNorm)


def _rows(x: Tensor) -> Tensor:
    """[*, D] -> [N, D], of which no number of rows is compiled by itself."""
    flat = x.reshape(-1, x.shape[-1])
    torch._dynamo.maybe_mark_dynamic(flat, 0)
    return flat


def normed(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """A layer norm of [N, D] in float32, in the dtype of ``x``."""
    return F.layer_norm(x.float(), x.shape[-1:], weight, bias, eps).to(x.dtype)


def fed(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    up: Tensor,
    up_bias: Tensor,
    down: Tensor,
    down_bias: Tensor,
    quick: bool,
) -> Tensor:
    """The feed-forward part of a block with its norm, [N, D] -> [N, D]."""
    hidden = F.linear(normed(x, weight, bias, eps), up, up_bias)
    hidden = hidden * torch.sigmoid(1.702 * hidden) if quick else F.gelu(hidden)
    return F.linear(hidden, down, down_bias)

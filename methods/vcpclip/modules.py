"""The learned parts of VCP-CLIP: Pre-VCP, the deep tokens, Post-VCP."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zsad.components.prompt_learning import unit

TEMPERATURE = math.log(1 / 0.07)  # start of both learned temperatures
KERNEL = 3  # of the convolution along the features of the image vector


class PreVCP(nn.Module):
    """Class vectors [B, r, W]: a learned query, shifted by a convolution along the features of the
    image vector g [B, E] (raw, not unit).

    Where joint and text width differ, as they do in no CLIP of the paper, a linear layer carries
    the shift over [ours].
    """

    def __init__(self, tokens: int, embed: int, width: int, use_image: bool) -> None:
        super().__init__()
        query = torch.empty(tokens, width)
        self.query = nn.Parameter(nn.init.trunc_normal_(query, std=1.0, a=-2.0, b=2.0))
        self.along = nn.Conv1d(1, tokens, KERNEL, padding=1)
        self.carry = nn.Linear(embed, width) if embed != width else nn.Identity()
        self.use_image = use_image

    def forward(self, image: Tensor) -> Tensor:
        if not self.use_image:
            return self.query.expand(len(image), -1, -1)
        shift: Tensor = self.carry(self.along(image[:, None]))
        return self.query + shift


class DeepTokens(nn.Module):
    """Learned tokens for the input of every text block, all through one linear map.

    Returns [depth, n, W]: first those that are inserted, then those that overwrite them.
    """

    def __init__(self, depth: int, tokens: int, width: int) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.empty(depth, tokens, width).uniform_(-1, 1))
        self.proj = nn.Linear(width, width)
        nn.init.kaiming_normal_(self.proj.weight, mode="fan_out")

    def forward(self) -> Tensor:
        found: Tensor = self.proj(self.tokens)
        return found


class PostVCP(nn.Module):
    """Text that has looked at the patches: one multi-head attention for all layers.

    text [B, 2, E] asks, unit patches [B, L, D] answer; the result [B, 2, D] is unit, without a
    residual.  The attention is not scaled by the width of a head; ``temper`` is a factor.
    """

    def __init__(self, embed: int, width: int, heads: int, temper: float) -> None:
        super().__init__()
        self.heads, self.temper = heads, temper
        self.q = nn.Linear(embed, width)
        self.k = nn.Linear(width, width)
        self.v = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, text: Tensor, patches: Tensor) -> Tensor:
        z = unit(patches)
        q, k, v = (
            x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for x in (self.q(text), self.k(z), self.v(z))
        )  # [B, heads, 2 or L, D / heads]
        seen = F.scaled_dot_product_attention(q, k, v, scale=self.temper)
        return unit(self.out(seen.transpose(1, 2).flatten(2)))

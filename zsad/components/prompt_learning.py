"""Learned text tokens: context words in front of a prompt, and deep tokens inside the tower.

Names of parameters are those of stored checkpoints.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from zsad.backbones.text import PromptTokens, TextEncoder

INIT_STD = 0.02  # of all learned tokens, in the released codes of CoOp and its descendants


def learned_tokens(*shape: int) -> nn.Parameter:
    """Return learned embeddings of the given shape, drawn from N(0, 0.02^2)."""
    return nn.Parameter(torch.randn(*shape) * INIT_STD)


class DeepPrompts(nn.Module):
    """Learned tokens that overwrite positions 1..n at the inputs of text blocks 2, 3, ...

    ``half`` rounds the inserted values to half precision as the released code does; only the
    values are rounded, the gradient is that of the unrounded tokens.
    """

    def __init__(self, depth: int, tokens: int, width: int, half: bool = False) -> None:
        super().__init__()
        self.sets = nn.ParameterList([learned_tokens(tokens, width) for _ in range(depth - 1)])
        self.half_values = half

    def forward(self) -> list[Tensor]:
        """Return the token sets, each [n, W], first the one for block 2."""
        if not self.half_values:
            return list(self.sets)
        return [p + (p.detach().half().float() - p.detach()) for p in self.sets]


class PromptLearner(nn.Module):
    """Learned context vectors, shifted per image by a meta-net (CoCoOp) or not (CoOp).

    The shift is the same for all context positions.
    """

    def __init__(self, n_ctx: int, text_width: int, embed: int, conditional: bool) -> None:
        super().__init__()
        self.ctx = nn.Parameter(torch.empty(n_ctx, text_width).normal_(std=INIT_STD))
        self.meta_net: nn.Sequential | None = None
        if conditional:
            hidden = max(1, embed // 16)
            self.meta_net = nn.Sequential(
                OrderedDict(
                    linear1=nn.Linear(embed, hidden),
                    relu=nn.ReLU(),
                    linear2=nn.Linear(hidden, text_width),
                )
            )

    def forward(self, unit_image: Tensor | None) -> Tensor:
        """Return contexts [B, K, W] for unit image vectors [B, E]; [1, K, W] without a meta-net."""
        if self.meta_net is None or unit_image is None:
            return self.ctx[None]
        shift: Tensor = self.meta_net(unit_image)
        return self.ctx + shift[:, None]


def encode(
    learner: PromptLearner | None,
    tokens: PromptTokens,
    unit_image: Tensor | None,
    text: TextEncoder,
) -> Tensor:
    """Return unit features [B, T, E] of prompts for image vectors [B, E].

    The result has B = 1 where the image plays no part (no learner, or one without a meta-net).
    """
    context = learner(unit_image) if learner is not None else None  # [B, K, W]
    return F.normalize(text.encode_tokens(tokens, context).float(), dim=-1)


def unit(x: Tensor) -> Tensor:
    """Return ``x`` [..., E] with L2 norm 1 along the last dimension, in float32."""
    return F.normalize(x.float(), dim=-1)


def prompt_text(words: int, *rest: str) -> str:
    """Return a prompt of ``words`` one-token placeholders followed by ``rest`` and a dot."""
    return " ".join(["X"] * words + [w for w in rest if w]) + "."

"""Learned text tokens that AnomalyCLIP and FAPrompt share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

INIT_STD = 0.02  # of all learned tokens, both released codes


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


def unit(x: Tensor) -> Tensor:
    """Return ``x`` with L2 norm 1 along the last dimension, in float32."""
    return nn.functional.normalize(x.float(), dim=-1)


def prompt_text(words: int, *rest: str) -> str:
    """Return a prompt of ``words`` one-token placeholders followed by ``rest`` and a dot."""
    return " ".join(["X"] * words + [w for w in rest if w]) + "."

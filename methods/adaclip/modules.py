"""What AdaCLIP learns; the names are those of its released checkpoints."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zsad.components.prompt_learning import learned_tokens


class StaticPrompts(nn.Module):
    """One set of ``length`` tokens for each of the first ``depth`` blocks of a tower."""

    def __init__(self, depth: int, length: int, width: int) -> None:
        super().__init__()
        self.static_prompts = nn.ParameterList(
            [learned_tokens(length, width) for _ in range(depth)]
        )


class Heads(nn.Module):
    """``count`` linear layers of one shape."""

    def __init__(self, count: int, inner: int, outer: int) -> None:
        super().__init__()
        self.head = nn.ModuleList([nn.Linear(inner, outer) for _ in range(count)])

    def forward(self, x: Tensor) -> Tensor:
        """Return what every layer makes of ``x`` [B, inner]: [B, count, outer]."""
        return torch.stack([head(x) for head in self.head], 1)

    def each(self, parts: list[Tensor]) -> list[Tensor]:
        """Return what every layer makes of its own input [*, inner]: count times [*, outer]."""
        return [head(part) for head, part in zip(self.head, parts)]


def contexts(
    static: StaticPrompts, dynamic: Tensor | None, kind: str, *, half: bool
) -> list[Tensor]:
    """Return the tokens of every depth, [B, n, width] each.

    ``dynamic`` [B, n, width]: the image's own, the same for all depths; None with ``kind`` S, where
    B is 1.  ``kind``: S the static tokens, D the dynamic ones, SD their sum.  ``half`` rounds the
    values to half precision as the released code does; the gradient is that of the unrounded ones.
    """
    found = []
    for tokens in static.static_prompts:
        own = tokens[None] if dynamic is None else dynamic
        found.append(tokens + dynamic if kind == "SD" and dynamic is not None else own)
    return [c + (c.detach().half().float() - c.detach()) for c in found] if half else found

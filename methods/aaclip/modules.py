"""AA-CLIP's adapters; the names are those of the files that its training writes."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Adapter(nn.Module):
    """A bias-free linear layer, then a leaky ReLU where ``relu`` says so."""

    def __init__(self, inner: int, outer: int, relu: bool = True) -> None:
        super().__init__()
        linear = nn.Linear(inner, outer, bias=False)
        nn.init.xavier_uniform_(linear.weight)
        self.fc: nn.Module = nn.Sequential(linear, nn.LeakyReLU()) if relu else linear

    def forward(self, x: Tensor) -> Tensor:
        """[*, inner] -> [*, outer]."""
        out: Tensor = self.fc(x)
        return out


class ImageAdapter(nn.Module):
    """Adapters of the first blocks, and the projections of the stages and of the image."""

    def __init__(self, until: int, stages: int, width: int, embed: int, relu: bool) -> None:
        super().__init__()
        self.layer_adapters = nn.ModuleList([Adapter(width, width) for _ in range(until)])
        self.seg_proj = nn.ModuleList([Adapter(width, embed, relu) for _ in range(stages)])
        self.det_proj = Adapter(width, embed, relu)


def text_adapter(until: int, width: int, embed: int) -> nn.ModuleList:
    """Adapters of the first blocks of the text tower, and at the end its projection."""
    return nn.ModuleList([*(Adapter(width, width) for _ in range(until)), Adapter(width, embed)])


def mixed(adapter: nn.Module, x: Tensor, share: float) -> Tensor:
    """Return tokens [*, D] with a ``share`` of what the adapter makes of them, brought to the
    length of each."""
    stream = x.float()
    own = adapter(stream)
    length = stream.norm(dim=-1, keepdim=True) / own.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    return torch.lerp(stream, own * length, share).to(x.dtype)

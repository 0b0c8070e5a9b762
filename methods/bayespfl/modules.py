"""The learned parts of Bayes-PFL: encoders of latents, planar flows, fusion, RCA."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zsad.components.prompt_learning import INIT_STD, unit

DET_OFFSET = 1e-5  # inside the logarithm of a step's determinant


def linear(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    """Return a linear layer as the released code begins it: N(0, 0.02^2), bias 0."""
    layer = nn.Linear(inputs, outputs, bias=bias)
    nn.init.normal_(layer.weight, std=INIT_STD)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


class MLP(nn.Module):
    """Three linear layers with softplus in between."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [linear(inputs, hidden), linear(hidden, hidden), linear(hidden, outputs)]
        )

    def forward(self, x: Tensor) -> Tensor:
        first, second, third = self.layers
        out: Tensor = third(F.softplus(second(F.softplus(first(x)))))
        return out


class Gaussian(NamedTuple):
    """A diagonal Gaussian [*, W]: its mean, and s, of which the variance is exp(s / 2)."""

    mean: Tensor
    s: Tensor

    def at(self, noise: Tensor) -> Tensor:
        """Return mean + noise * deviation."""
        return self.mean + noise * (self.s / 4).exp()

    def log_density(self, noise: Tensor) -> Tensor:
        """Return the log-density [*] at :meth:`at`, without constants."""
        return -0.5 * (self.s / 2 + noise**2).sum(-1)


class Encoder(nn.Module):
    """What a latent is drawn from, given an image vector or a label's state."""

    def __init__(self, inputs: int, hidden: int, width: int) -> None:
        super().__init__()
        self.mean = MLP(inputs, hidden, width)
        self.s = MLP(inputs, hidden, width)

    def forward(self, x: Tensor) -> Gaussian:
        return Gaussian(self.mean(x), self.s(x))


def planar_flow(z: Tensor, u: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return z_K and the sum of the log-determinants of K planar steps z <- z + u tanh(w.z + b).

    z [..., W]; u, w [..., K, W] and b [..., K], with leading axes that fit those of z; nothing
    constrains u.
    """
    total = torch.zeros_like(z[..., 0])
    for k in range(u.shape[-2]):
        bend = ((w[..., k, :] * z).sum(-1) + b[..., k]).tanh()
        volume = 1 + (1 - bend**2) * (w[..., k, :] * u[..., k, :]).sum(-1)
        total = total + (volume.abs() + DET_OFFSET).log()
        z = z + u[..., k, :] * bend[..., None]
    return z, total


class ContextFlow(nn.Module):
    """A flow whose steps are linear functions of the image vector g [B, E]."""

    def __init__(self, inputs: int, width: int, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.u = linear(inputs, steps * width)
        self.w = linear(inputs, steps * width)
        self.b = linear(inputs, steps)

    def forward(self, g: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """z [B, R, W] -> z_K [B, R, W], log-determinants [B, R]."""
        u, w = (part(g).unflatten(-1, (self.steps, -1))[:, None] for part in (self.u, self.w))
        return planar_flow(z, u, w, self.b(g)[:, None])


class StateFlow(nn.Module):
    """A label's learned state, and the flow of its latent: the same for all images."""

    def __init__(self, width: int, steps: int) -> None:
        super().__init__()
        self.state = nn.Parameter(torch.randn(width))
        self.u = nn.Parameter(torch.randn(steps, width))
        self.w = nn.Parameter(torch.randn(steps, width))
        self.b = nn.Parameter(torch.randn(steps))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """z [R, W] -> z_K [R, W], log-determinants [R]."""
        return planar_flow(z, self.u, self.w, self.b)


class PatchFusion(nn.Module):
    """One vector [B, E] of the patches of all layers, by attention."""

    def __init__(self, layers: int, width: int, embed: int) -> None:
        super().__init__()
        hidden = width // 2
        self.join = linear(layers * width, hidden)
        self.weigh = linear(hidden, 1)
        self.out = linear(hidden, embed)

    def forward(self, patches: list[Tensor]) -> Tensor:
        joined = self.join(torch.cat(patches, -1))  # [B, L, D / 2]
        weights = self.weigh(joined).softmax(1)
        out: Tensor = self.out((weights * joined).sum(1))
        return out


class RCA(nn.Module):
    """Residual cross-attention: unit text rows [B, N, E] look at the patches of a layer.

    The scale of the attention is that of the whole width, not of a head.
    """

    def __init__(self, layers: int, width: int, embed: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = linear(embed, embed)
        self.fc = nn.ModuleList([linear(width, embed, bias=False) for _ in range(layers)])

    def forward(self, layer: int, text: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Return unit patches [B, L, E] in the joint space, and unit text that has seen them."""
        seen = unit(self.fc[layer](patches))
        q, kv = (
            x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (self.query(text), seen)
        )
        found = F.scaled_dot_product_attention(q, kv, kv, scale=1 / math.sqrt(text.shape[-1]))
        return seen, unit(found.transpose(1, 2).flatten(2) + text)

"""open_clip's residual block, taken apart: projections, attention and feed-forward part.

Both towers run on these, with the block's own parameters: nothing is copied or replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, Protocol, get_args, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Activation = Callable[[Tensor], Tensor]
Linear = Callable[[Tensor, Tensor, Tensor | None], Tensor]  # x, W, b -> x W^T + b
# What a linear layer of a block is given; "values": heads that no attention has averaged, or only
# that of a value with itself, go through the same layer as "out".
Part = Literal["in", "out", "values", "up", "down"]
RowModule = Callable[[Tensor], Tensor]  # of token states [*, D]
Adapters = Callable[[int, Tensor], Tensor] | Mapping[int, RowModule]  # of x_l, by layer


PARTS: tuple[Part, ...] = get_args(Part)
ALL_ROWS = slice(None)


@runtime_checkable
class FusedLinear(Protocol):
    """A :data:`Linear` that can also multiply and apply an exact GELU in one."""

    def gelu(self, x: Tensor, weight: Tensor, bias: Tensor | None, /) -> Tensor: ...


class FeedForward(Protocol):
    """The feed-forward part of open_clip's residual block."""

    c_fc: nn.Linear
    gelu: Activation
    c_proj: nn.Linear


class ResidualBlock(Protocol):
    """What :class:`Block` reads of open_clip's ``ResidualAttentionBlock``, which has no types."""

    ln_1: nn.Module
    attn: nn.MultiheadAttention
    ls_1: nn.Module
    ln_2: nn.Module
    mlp: FeedForward
    ls_2: nn.Module


def layer_norm(norm: nn.Module, x: Tensor) -> Tensor:
    """Apply a layer norm in float32 and return the dtype of ``x``; identity stays identity."""
    if not isinstance(norm, nn.LayerNorm):
        return x
    y = F.layer_norm(x.float(), norm.normalized_shape, norm.weight, norm.bias, norm.eps)
    return y.to(x.dtype)


class Block:
    """The parts of one ``ResidualAttentionBlock`` as functions.

    ``activation``: of the feed-forward part; None: the block's own module.  ``linear``: who
    multiplies.
    """

    def __init__(
        self,
        block: ResidualBlock,
        activation: Activation | None = None,
        linear: Linear = F.linear,
    ) -> None:
        self.block = block
        self.attn = block.attn
        self.activation: Activation = activation or block.mlp.gelu
        self.linear = linear
        fuses = isinstance(linear, FusedLinear) and exact_gelu(self.activation)
        self.fused: Linear | None = linear.gelu if fuses else None  # type: ignore[attr-defined]
        self.heads = self.attn.num_heads
        self.width = self.attn.embed_dim

    def weights(self, part: Part) -> tuple[Tensor, Tensor]:
        """Return the weight [out, in] and the bias [out] of one of the linear layers."""
        if part == "in":
            return self.attn.in_proj_weight, self.attn.in_proj_bias
        up, down = self.block.mlp.c_fc, self.block.mlp.c_proj
        own = {"up": up, "down": down}.get(part, self.attn.out_proj)
        return own.weight, own.bias

    def product(self, x: Tensor, part: Part, rows: slice = ALL_ROWS) -> Tensor:
        """Return x W^T + b, [*, in] -> [*, out], of a linear layer or some ``rows`` of its weight:
        the only products with weights in a block."""
        weight, bias = self.weights(part)
        return self.linear(x, weight[rows], bias[rows])

    def norm(self, x: Tensor) -> Tensor:
        """Return LN1(x)."""
        return layer_norm(self.block.ln_1, x)

    def project_in(self, y: Tensor, parts: str) -> tuple[Tensor, ...]:
        """Return the wanted of q, k and v of ``y`` [*, N, D], each [*, heads, N, D/heads].

        ``parts``: a run of the letters of "qkv".
        """
        first = "qkv".index(parts)
        rows = slice(first * self.width, (first + len(parts)) * self.width)
        return self.by_heads(self.product(y, "in", rows))

    def by_heads(self, projected: Tensor) -> tuple[Tensor, ...]:
        """Part projections [*, N, n D] into n of [*, heads, N, D/heads]."""
        count = projected.shape[-1] // self.width
        split = projected.unflatten(-1, (count, self.heads, self.width // self.heads))
        return tuple(t.transpose(-3, -2) for t in split.unbind(-3))

    def project_out(self, heads: Tensor, part: Part = "out") -> Tensor:
        """Join the heads [*, heads, N, d] and project: the attention output [*, N, D]."""
        out: Tensor = self.block.ls_1(self.product(heads_joined(heads), part))
        return out

    def feed_forward(self, x: Tensor) -> Tensor:
        """Return FFN(LN2(x)) [*, N, D]."""
        hidden = self.hidden(layer_norm(self.block.ln_2, x))
        out: Tensor = self.block.ls_2(self.product(hidden, "down"))
        return out

    def hidden(self, y: Tensor) -> Tensor:
        """Return the activated hidden layer of the feed-forward part, [*, N, D] -> [*, N, 4 D]."""
        if self.fused is not None:
            return self.fused(y, *self.weights("up"))
        return self.activation(self.product(y, "up"))

    def after(self, x: Tensor, heads: Tensor, part: Part = "out") -> Tensor:
        """Return what the block makes of ``x`` [*, N, D] once its heads [*, heads, N, d] have
        attended: both residual branches."""
        x = x + self.project_out(heads, part)
        return x + self.feed_forward(x)

    def __call__(self, x: Tensor, *, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        """Run the whole block on [*, N, D]."""
        q, k, v = self.project_in(self.norm(x), "qkv")
        return self.after(x, attend(q, k, v, mask=mask, causal=causal))

    def with_values(self, x: Tensor) -> Tensor:
        """Run the block on [*, N, D] with its values in place of queries and keys."""
        (v,) = self.project_in(self.norm(x), "v")
        return self.after(x, attend(v, v, v), "values")


def adapted(adapters: Adapters | None, layer: int, x: Tensor) -> Tensor:
    """Return x_l, the output of block ``layer``, as the adapters leave it."""
    if adapters is None:
        return x
    if callable(adapters):
        return adapters(layer, x)
    return adapters[layer](x) if layer in adapters else x


def attend(
    q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None, causal: bool = False
) -> Tensor:
    """Return softmax(q k^T / sqrt(d)) v, [*, heads, N, d].

    ``mask``: True where a key counts, or what is added to the logits."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)


def heads_joined(heads: Tensor) -> Tensor:
    """[*, heads, N, d] -> [*, N, D]."""
    return heads.transpose(-3, -2).flatten(-2)


def activation_of(name: str) -> Activation | None:
    """Map ``EncoderVariant.activation`` to a function; None: the one of the weights."""
    return {"weights": None, "gelu": F.gelu}[name]


def exact_gelu(activation: object) -> bool:
    """Whether it is GELU as it is defined, not one of its approximations."""
    return activation is F.gelu or (
        isinstance(activation, nn.GELU) and activation.approximate == "none"
    )


def cast(model: nn.Module, dtype: torch.dtype) -> None:
    """Cast all parameters but those of layer norms, which are computed in float32."""
    for module in model.modules():
        wanted = torch.float32 if isinstance(module, nn.LayerNorm) else dtype
        for parameter in module.parameters(recurse=False):
            parameter.data = parameter.data.to(wanted)

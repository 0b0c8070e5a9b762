"""The trained modules of KAnoCLIP: Bi-CMCI and Conv-Adapter."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zsad.methods.kanoclip.config import BiCMCI as BiCMCIConfig
from zsad.on_device import able, constant


class Attention(nn.Module):
    """Multi-head attention; queries [B, N, m], context [B, M, m] -> [B, N, m]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, queries: Tensor, context: Tensor, projected: Tensor | None = None) -> Tensor:
        """``projected``: what :attr:`query` makes of ``queries``, where it is known already."""
        q = self.query(queries) if projected is None else projected
        k, v = self.key(context), self.value(context)
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (q, k, v))
        heads = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.out(heads.transpose(1, 2).flatten(2))
        return out


class PairAttention(Attention):
    """The same attention to a context of two: queries [B, N, m], context [B, 2, m] -> [B, N, m].

    A softmax over two keys is a sigmoid of how much the first is preferred.  So a query needs one
    number a head, which is read from it by the difference of the keys, projected back; and what
    it gets is the second value and that share of the way to the first.
    """

    def forward(self, queries: Tensor, context: Tensor, projected: Tensor | None = None) -> Tensor:
        k, v = self.key(context), self.value(context)
        key, value = ((x[:, 0] - x[:, 1]).unflatten(-1, (self.heads, -1)) for x in (k, v))
        by_head = self.query.weight.unflatten(0, (self.heads, -1))  # [heads, d, m]
        preferred = torch.einsum("bhd,hdm->bmh", key, by_head)
        offset = torch.einsum("bhd,hd->bh", key, self.query.bias.unflatten(0, (self.heads, -1)))
        logits = torch.baddbmm(offset[:, None], queries, preferred)  # [B, N, heads]
        share = torch.sigmoid(logits * key.shape[-1] ** -0.5)
        way = torch.einsum("bhd,mhd->bhm", value, self.out.weight.unflatten(1, (self.heads, -1)))
        return torch.baddbmm(self.out(v[:, 1:]), share, way)


class DeformableAttention(nn.Module):
    """Self-attention of all patches to a few points that move with the content.

    A regular grid of reference points (every ``stride`` cells) is shifted, per channel group, by
    an offset that a small network reads from the queries; keys and values are sampled there.
    The offset is at most ``2 * stride`` cells.  The network's last layer starts at zero, so
    training begins with attention to the regular grid.  (Deformable attention transformer.)
    """

    def __init__(self, width: int, heads: int, groups: int, stride: int) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.groups, self.stride = groups, stride
        inner = width // groups
        self.depthwise = nn.Conv2d(inner, inner, 5, stride, 2, groups=inner)
        self.norm = nn.LayerNorm(inner)
        self.offset = nn.Conv2d(inner, 2, 1, bias=False)
        nn.init.zeros_(self.offset.weight)

    def points(self, projected: Tensor, grid: tuple[int, int]) -> Tensor:
        """Sampling points in cells, (x, y), for projected queries [B, L, m]:
        [B * groups, rows, columns, 2]."""
        queries = projected.transpose(1, 2).unflatten(-1, grid)
        local = self.depthwise(queries.unflatten(1, (self.groups, -1)).flatten(0, 1))
        local = F.gelu(self.norm(local.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        shift = 2 * self.stride * torch.tanh(self.offset(local)).permute(0, 2, 3, 1)
        rows = torch.arange(shift.shape[1], device=shift.device, dtype=shift.dtype) * self.stride
        columns = torch.arange(shift.shape[2], device=shift.device, dtype=shift.dtype) * self.stride
        start = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)
        return start + shift

    def sample(self, x: Tensor, projected: Tensor, grid: tuple[int, int]) -> Tensor:
        """Patch tokens [B, L, m] at the sampling points, bilinear: [B, points, m]."""
        batch = x.shape[0]
        points = self.points(projected, grid)
        height, width = grid
        extent = constant(
            torch.tensor, (max(width - 1, 1), max(height - 1, 1)), device=x.device, dtype=x.dtype
        )
        planes = x.transpose(1, 2).unflatten(-1, grid).unflatten(1, (self.groups, -1)).flatten(0, 1)
        found = F.grid_sample(
            able(planes),
            able(points / extent * 2 - 1),
            mode="bilinear",
            padding_mode="border",
            align_corners=True,
        ).to(x.device)
        grouped: Tensor = found.flatten(2).unflatten(0, (batch, self.groups))
        return grouped.flatten(1, 2).transpose(1, 2)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        queries = self.attention.query(x)
        out: Tensor = self.attention(x, self.sample(x, queries, grid), queries)
        return out


class DenseAttention(nn.Module):
    """Ordinary self-attention with the interface of :class:`DeformableAttention`."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = Attention(width, heads)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        out: Tensor = self.attention(x, x)
        return out


class BiCMCI(nn.Module):
    """One stage of bi-directional cross-modal interaction (Eq. 9), pre-norm, residual.

    Patches [B, L, D] and the text pair [B, 2, E] -> logits [B, 2, L] = ``scale`` * cosine.  The
    gates of both residual branches start at zero, so the module starts as a linear stage.
    """

    def __init__(self, config: BiCMCIConfig, visual: int, embed: int) -> None:
        super().__init__()
        m = config.width_for(visual)
        self.directions = config.directions
        self.visual_in = nn.Sequential(nn.LayerNorm(visual), nn.Linear(visual, m))
        self.text_in = nn.Sequential(nn.LayerNorm(embed), nn.Linear(embed, m))
        self.text_norm, self.visual_norm = nn.LayerNorm(m), nn.LayerNorm(m)
        self.text_self = Attention(m, config.heads)
        self.visual_self: nn.Module = (
            DeformableAttention(m, config.heads, config.groups, config.stride)
            if config.deformable
            else DenseAttention(m, config.heads)
        )
        self.text_cross_norm, self.visual_cross_norm = nn.LayerNorm(m), nn.LayerNorm(m)
        if config.directions in ("both", "t2v"):
            self.text_to_visual = PairAttention(m, config.heads)
        if config.directions in ("both", "v2t"):
            self.visual_to_text = Attention(m, config.heads)
        self.skip = nn.Linear(visual, embed)
        self.visual_out, self.text_out = nn.Linear(m, embed), nn.Linear(m, embed)
        self.visual_gate = nn.Parameter(torch.zeros(()))
        self.text_gate = nn.Parameter(torch.zeros(()))

    def fuse(self, patches: Tensor, text: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return the interacted patches [B, L, E] and text pair [B, 2, E], not normalised."""
        v, t = self.visual_in(patches), self.text_in(text)
        normed = self.text_norm(t)
        t = t + self.text_self(normed, normed)
        v = v + self.visual_self(self.visual_norm(v), grid)
        v_context, t_context = self.visual_cross_norm(v), self.text_cross_norm(t)
        if self.directions in ("both", "t2v"):
            v = v + self.text_to_visual(v_context, t_context)
        if self.directions in ("both", "v2t"):
            t = t + self.visual_to_text(t_context, v_context)
        return self._gated(patches, v), text + self.text_gate * self.text_out(t)

    def _gated(self, patches: Tensor, v: Tensor) -> Tensor:
        """skip(patches) + gate * out(v), [B, L, E]: the gate is applied to the weights, which are
        fewer, and one product is added while the other is written."""
        skip, out, gate = self.skip, self.visual_out, self.visual_gate
        straight = F.linear(patches, skip.weight, skip.bias + gate * out.bias)
        weight = (gate * out.weight).T
        return torch.addmm(straight.flatten(0, 1), v.flatten(0, 1), weight).view_as(straight)

    def forward(
        self, patches: Tensor, text: Tensor, grid: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        return self.fuse(patches, text, grid)


class ConvAdapter(nn.Module):
    """Bottleneck on the global feature (Eq. 11): W_up ReLU(W_down LN(g)), [B, E] -> [B, E].

    A depthwise k x k kernel with zero padding sees one position of a 1 x 1 extent: it is one
    factor per channel, which the norm's affine part already has.  ``conv1d`` slides a depthwise
    kernel of 3 along the feature axis instead (ablation).  ``bottle``: d_bottle, 0 for E/2.
    """

    def __init__(self, embed: int, kind: str, residual: bool, bottle: int = 0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(embed)
        self.slide = nn.Conv1d(1, 1, 3, padding=1) if kind == "conv1d" else None
        bottle = bottle or embed // 2
        self.down = nn.Linear(embed, bottle, bias=False)
        self.up = nn.Linear(bottle, embed, bias=False)
        self.residual = residual
        if residual:  # starts as CLIP's own feature
            nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        if self.slide is not None:
            y = self.slide(y[:, None])[:, 0]
        out: Tensor = self.up(F.relu(self.down(y)))
        return x + out if self.residual else out

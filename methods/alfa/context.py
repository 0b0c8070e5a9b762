"""Contextual scoring (Sec. 4.2, Eq. 2-4, Algorithm 1): which prompts speak about this image.

Every label's cosines with the image span an interval.  A prompt whose cosine lies in both
intervals is ambiguous and is dropped.  The printed Eq. 4 cannot do that (a prompt always lies in
its own interval, so its score is at least ½ and never 0); the readings are explained in the README.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from zsad.methods.alfa.config import Context


class Kept(NamedTuple):
    """``weight`` [B, T] in [0, 1], 0 = dropped; ``score`` [B, T] in [0, 1], the contextual score
    of every prompt with distances in units of the cosines' spread; ``emptied`` [B, 2] bool: the
    filter alone would have left the label no prompt."""

    weight: Tensor
    score: Tensor
    emptied: Tensor


def adapt(cosine: Tensor, labels: Tensor, template: Tensor, config: Context) -> Kept:
    """Filter the prompts for each image of a batch.

    ``cosine`` [B, T]: Eq. 2-3; ``labels`` [T]: 0 normal, 1 abnormal; ``template`` [T] bool: the
    prompt comes from the template.  Computed in float32 at least.
    """
    d = cosine if cosine.dtype == torch.float64 else cosine.float()
    sides = torch.stack([labels == 0, labels == 1])  # [2, T]
    if not config.enabled:
        ones = torch.ones_like(d)
        return Kept(ones, ones, torch.zeros(len(d), 2, dtype=torch.bool, device=d.device))
    low, high = intervals(d, sides, config)
    distance = torch.maximum(low[..., None] - d[:, None], d[:, None] - high[..., None])
    distance = distance.clamp_min(0)  # [B, 2, T]: D of Eq. 4
    margin = distance[:, 0] - distance[:, 1]
    if config.reading != "signed":
        margin = margin.abs()
    scaled = config.slope * margin / spread_of(d, sides).clamp_min(torch.finfo(d.dtype).tiny)
    if config.reading == "literal":
        keep, score = torch.ones_like(d, dtype=torch.bool), torch.sigmoid(scaled)
    else:  # the logistic, shifted so that it is 0 for an ambiguous prompt: 2 s(x) - 1 = tanh(x/2)
        keep, score = margin > 0, torch.tanh(scaled / 2).clamp_min(0)
    kept = keep[:, None] & sides  # [B, 2, T]
    emptied = ~kept.any(-1)  # [B, 2]
    rescued = on_empty(d, sides, emptied, low, high, template, config)
    weight = score if config.weighting == "tanh" else keep.to(d.dtype)
    weight = torch.where(rescued.any(1), 1.0, weight * keep)
    return Kept(weight, score, emptied)


def intervals(d: Tensor, sides: Tensor, config: Context) -> tuple[Tensor, Tensor]:
    """Return the ends [B, 2] of both labels' intervals of cosines."""
    if config.interval == "quantile":
        q = torch.tensor([config.quantile, 1 - config.quantile], dtype=d.dtype, device=d.device)
        ends = torch.stack([torch.quantile(d[:, side], q, dim=1) for side in sides], dim=-1)
        return ends[0], ends[1]
    # masked, not chosen: how many there are must not decide the shape of a recording
    low = torch.stack([d.masked_fill(~side, torch.inf).amin(1) for side in sides], dim=-1)
    high = torch.stack([d.masked_fill(~side, -torch.inf).amax(1) for side in sides], dim=-1)
    return low, high


def spread_of(d: Tensor, sides: Tensor) -> Tensor:
    """Return the pooled standard deviation of the cosines within the labels: [B, 1]."""
    if torch.compiler.is_compiling() or d.device.type != "cpu":
        counts = sides.sum(1).to(d)  # [2]
        means = torch.stack([d.masked_fill(~s, 0).sum(1) for s in sides]) / counts[:, None]
        off = (d - means[..., None]).square().masked_fill(~sides[:, None], 0)  # [2, B, T]
        variance = off.sum(-1) / counts[:, None]
    else:
        variance = torch.stack([d[:, side].var(1, unbiased=False) for side in sides])
    share = sides.sum(1).to(d) / sides.sum()
    return (variance * share[:, None]).sum(0, keepdim=True).sqrt().T


def on_empty(
    d: Tensor,
    sides: Tensor,
    emptied: Tensor,
    low: Tensor,
    high: Tensor,
    template: Tensor,
    config: Context,
) -> Tensor:
    """Return the prompts that are kept for labels without any: [B, 2, T] bool.

    ``keep_side``: all of the emptied label.  ``disable``: all of both labels.
    ``template_only``: the emptied label's templates.  ``top_m``: the emptied label's prompts
    nearest to leaving the other interval.
    """
    own = emptied[..., None] & sides  # [B, 2, T]
    if config.on_empty == "disable":
        return emptied.any(1)[:, None, None] & sides
    if config.on_empty == "template_only":
        return own & template
    if config.on_empty == "top_m":
        other_low, other_high = low.flip(1)[..., None], high.flip(1)[..., None]
        inside = torch.minimum(d[:, None] - other_low, other_high - d[:, None])  # [B, 2, T]
        rank = inside.masked_fill(~sides, torch.inf).argsort(dim=-1, stable=True).argsort(dim=-1)
        return own & (rank < config.top_m)
    return own

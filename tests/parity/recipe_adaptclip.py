"""Deterministic fillers for the learned parts of AdaptCLIP.

An extension of ``recipe.py`` (same rule: every tensor has its own generator, seeded from its
name).  The names in the returned dictionaries are those of the released checkpoints.  CLIP
weights, images and masks come from ``recipe.py``.
"""

from __future__ import annotations

from collections import OrderedDict

import torch

from tests.parity.recipe import ClipDims, rand, randn


# --------------------------------------------------------------------------
# AdaptCLIP
# --------------------------------------------------------------------------
def recipe_adaptclip(
    dims: ClipDims,
    seed: int,
    n_ctx: int = 12,
    reduction: int = 4,
    mid: int = 128,
    levels: int = 4,
    aliases: bool = False,
):
    """Return ``(textual, visual, pq)``.  With ``aliases`` the shared prompt-query heads are
    repeated under every layer index, as in a released file; else only under index 0."""
    e, t = dims.embed, dims.text_width
    textual: OrderedDict[str, torch.Tensor] = OrderedDict()
    textual["ctx_pos"] = randn("adc.ctx_pos", (1, 1, n_ctx, t), seed, 0.3)
    textual["ctx_neg"] = randn("adc.ctx_neg", (1, 1, n_ctx, t), seed, 0.3)

    def norm(out, name, n, key, scale=1.0, shift=0.0):
        out[f"{name}.weight"] = randn(f"adc.{key}.g", (n,), seed, 0.1, 1.0)
        out[f"{name}.bias"] = randn(f"adc.{key}.b", (n,), seed, 0.1)
        out[f"{name}.running_mean"] = randn(f"adc.{key}.m", (n,), seed, 0.2 * scale, shift)
        out[f"{name}.running_var"] = (0.5 + rand(f"adc.{key}.v", (n,), seed)) * scale * scale
        out[f"{name}.num_batches_tracked"] = torch.tensor(7, dtype=torch.int64)

    visual: OrderedDict[str, torch.Tensor] = OrderedDict()
    for part in ("local_adater", "global_adapter"):  # the first name is spelled like this
        visual[f"{part}.fc.0.weight"] = randn(f"adc.{part}.0", (e // reduction, e), seed, e**-0.5)
        norm(visual, f"{part}.fc.1", e // reduction, f"{part}.bn")
        visual[f"{part}.fc.3.weight"] = randn(
            f"adc.{part}.3", (e, e // reduction), seed, (e // reduction) ** -0.5
        )

    pq: OrderedDict[str, torch.Tensor] = OrderedDict()
    for i in range(levels):  # inputs are sums of unit features: entries of size E ** -0.5
        norm(pq, f"sharebn.{i}", e, f"sharebn.{i}", scale=e**-0.5)
    half = mid // 2
    head: OrderedDict[str, torch.Tensor] = OrderedDict()
    head["local_adapter.0.0.weight"] = randn("adc.l.0", (mid, e, 3, 3), seed, (9 * e) ** -0.5)
    norm(head, "local_adapter.0.1", mid, "l.1")
    head["local_adapter.0.3.weight"] = randn("adc.l.3", (mid, mid, 2, 2), seed, mid**-0.5)
    head["local_adapter.0.3.bias"] = randn("adc.l.3b", (mid,), seed, 0.05)
    head["local_adapter.0.4.weight"] = randn("adc.l.4", (half, mid, 3, 3), seed, (9 * mid) ** -0.5)
    norm(head, "local_adapter.0.5", half, "l.5")
    head["local_adapter.0.7.weight"] = randn("adc.l.7", (half, half, 2, 2), seed, half**-0.5)
    head["local_adapter.0.7.bias"] = randn("adc.l.7b", (half,), seed, 0.05)
    head["local_adapter.0.8.weight"] = randn("adc.l.8", (2, half, 1, 1), seed, half**-0.5)
    head["local_adapter.0.8.bias"] = randn("adc.l.8b", (2,), seed, 0.05)
    head["global_adapter.0.0.weight"] = randn("adc.g.0", (mid, e), seed, e**-0.5)
    norm(head, "global_adapter.0.1", mid, "g.1")
    head["global_adapter.0.3.weight"] = randn("adc.g.3", (half, mid), seed, mid**-0.5)
    norm(head, "global_adapter.0.4", half, "g.4")
    head["global_adapter.0.6.weight"] = randn("adc.g.6", (2, half), seed, half**-0.5)
    for k, v in head.items():
        pq[k] = v
    if aliases:
        for i in range(1, levels):
            for k, v in head.items():
                part, rest = k.split(".0.", 1)
                pq[f"{part}.{i}.{rest}"] = v
    return textual, visual, pq

"""Further deterministic fillers for the parity cases of MVFA-AD, AnoVL, APRIL-GAN,
MuSc, WinCLIP, MaskCLIP, CoOp and CoCoOp.

Same rules as ``recipe.py`` (which this file imports): every tensor is a pure function of
(dimensions, seed) and has a generator of its own, seeded from its name.
"""

from __future__ import annotations

from collections import OrderedDict

import torch

from tests.parity.recipe import ClipDims, images, rand, randn


def recipe_mvfa(dims: ClipDims, seed: int, stages: int = 4) -> "OrderedDict[str, torch.Tensor]":
    """Both adapter lists of MVFA-AD under ``<part>.<stage>.<layer>.0.weight``; no biases exist."""
    w, e = dims.vision_width, dims.embed
    out: "OrderedDict[str, torch.Tensor]" = OrderedDict()
    for part in ("seg_adapters", "det_adapters"):
        for i in range(stages):
            out[f"{part}.{i}.fc1.0.weight"] = randn(f"mvfa.{part}.{i}.fc1", (e, w), seed, w**-0.5)
            out[f"{part}.{i}.fc2.0.weight"] = randn(f"mvfa.{part}.{i}.fc2", (w, e), seed, e**-0.5)
    return out


def mvfa_checkpoint(flat) -> dict:
    """The released file's layout: two dictionaries whose keys lack the part's name."""
    parts = ("seg_adapters", "det_adapters")
    return {
        p: OrderedDict((k[len(p) + 1 :], v) for k, v in flat.items() if k.startswith(p))
        for p in parts
    }


def recipe_aprilgan(dims: ClipDims, seed: int, layers: int = 4) -> "OrderedDict[str, torch.Tensor]":
    """The linear layers of APRIL-GAN: ``fc.<i>.weight`` (E, D) and ``fc.<i>.bias`` (E,)."""
    w, e = dims.vision_width, dims.embed
    out: "OrderedDict[str, torch.Tensor]" = OrderedDict()
    for i in range(layers):
        out[f"fc.{i}.weight"] = randn(f"aprilgan.fc.{i}.w", (e, w), seed, w**-0.5)
        out[f"fc.{i}.bias"] = randn(f"aprilgan.fc.{i}.b", (e,), seed, 0.05)
    return out


def recipe_anovl_adapter(prompts: int, embed: int, seed: int):
    """Weight (prompts, embed) and bias (prompts,) that AnoVL's test-time layer gets at every reset.

    Uniform in +-embed**-0.5, the usual initialisation of a linear layer.  Row order: the order of
    the released text list (all normal prompts, then all anomalous ones; template-major,
    state-minor within a label).
    """
    bound = embed**-0.5
    weight = (2 * rand("anovl.ad.w", (prompts, embed), seed) - 1) * bound
    bias = (2 * rand("anovl.ad.b", (prompts,), seed) - 1) * bound
    return weight, bias


def recipe_anovl_noise(
    image: int, step: int, side: int, embed: int, seed: int, std: float = 0.05 * 1.1
) -> torch.Tensor:
    """Noise (1, side, side, embed) that is added to the patch tokens of ``image`` in ``step``."""
    return randn(f"anovl.noise.{image}.{step}", (1, side, side, embed), seed, std)


def references(k: int, size: int, seed: int) -> torch.Tensor:
    """``k`` normal reference images (few-shot): plain ``recipe.images`` of another seed."""
    return images(k, size, seed + 500)


def recipe_coop(
    dims: ClipDims, seed: int, n_ctx: int, conditional: bool
) -> "OrderedDict[str, torch.Tensor]":
    """CoOp's ``ctx`` (n_ctx, W); with ``conditional`` (CoCoOp) also its meta-net E -> E/16 -> W."""
    w, e = dims.text_width, dims.embed
    out: "OrderedDict[str, torch.Tensor]" = OrderedDict()
    out["ctx"] = randn("coop.ctx", (n_ctx, w), seed, 0.3)
    if conditional:
        out["meta_net.linear1.weight"] = randn("coop.l1.w", (e // 16, e), seed, 1.0)
        out["meta_net.linear1.bias"] = randn("coop.l1.b", (e // 16,), seed, 0.1)
        out["meta_net.linear2.weight"] = randn("coop.l2.w", (w, e // 16), seed, 0.1)
        out["meta_net.linear2.bias"] = randn("coop.l2.b", (w,), seed, 0.02)
    return out


def maskclip_text(dims: ClipDims, seed: int) -> torch.Tensor:
    """Two unit vectors (2, E) that stand for label embeddings."""
    return torch.nn.functional.normalize(randn("maskclip.text", (2, dims.embed), seed), dim=-1)

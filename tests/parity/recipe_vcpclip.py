"""Deterministic fillers for the trained parts of VCP-CLIP; beside ``recipe.py``.

Same rules: every tensor has its own generator, seeded from ``"<seed>/<name>"`` (``recipe.randn``),
so that adding or dropping one tensor never shifts the others.  Names are those of the released
checkpoints.

The per-position features of a random CLIP are large, so the weights of the new linear layers are
scaled by ``width ** -0.5``; with these scales the maps do not saturate.
"""

from __future__ import annotations

from collections import OrderedDict

import torch

from tests.parity import recipe as R

State = "OrderedDict[str, torch.Tensor]"


def _linear(
    out: State,
    name: str,
    tag: str,
    rows: int,
    cols: int,
    seed: int,
    gain: float = 1.0,
    bias: float = 0.05,
    kernel: tuple[int, ...] = (),
) -> None:
    out[f"{name}.weight"] = R.randn(f"{tag}.w", (rows, cols, *kernel), seed, gain * cols**-0.5)
    out[f"{name}.bias"] = R.randn(f"{tag}.b", (rows,), seed, bias)


# ------------------------------------------------------------------------------- VCP-CLIP
def recipe_vcpclip(
    dims: R.ClipDims, seed: int, prompt_len: int = 2, deep_len: int = 1, stages: int = 4
) -> dict[str, State]:
    """Four parts, as in a released checkpoint:

    ``trainable_linearlayer`` and ``New_Lan_Embed`` and ``Zero_try`` are sub-dictionaries there,
    ``prompt`` stands for the entries at the top level of the file (all of whose names begin with
    ``prompt_`` or ``deep_prompt_``).
    """
    if dims.text_width != dims.embed:
        raise ValueError("VCP-CLIP needs text width == joint width")
    vw, e, w = dims.vision_width, dims.embed, dims.text_width
    line: State = OrderedDict()
    for i in range(stages):
        _linear(line, f"fc.{i}", f"vcp.lin.{i}", e, vw, seed)
    pre: State = OrderedDict()
    pre["prompt_query"] = R.randn("vcp.query", (1, prompt_len, w), seed, 0.3)
    pre["prompt_temp"] = torch.tensor(2.6593, dtype=torch.float32) + 0.2 * R.randn(
        "vcp.temp", (), seed
    )
    pre["prompt_linear1.fc.weight"] = R.randn("vcp.conv.w", (prompt_len, 1, 3), seed, 0.3)
    pre["prompt_linear1.fc.bias"] = R.randn("vcp.conv.b", (prompt_len,), seed, 0.1)
    post: State = OrderedDict()
    post["prompt_temp_l1"] = torch.tensor(2.6593, dtype=torch.float32) + 0.2 * R.randn(
        "vcp.temp1", (), seed
    )
    _linear(post, "q_proj_pre", "vcp.q", vw, w, seed, gain=20.0, bias=0.3, kernel=(1,))
    _linear(post, "k_proj_pre_1", "vcp.k", vw, vw, seed, gain=8.0, bias=0.2, kernel=(1,))
    _linear(post, "v_proj_pre_1", "vcp.v", vw, vw, seed, gain=3.0, bias=0.02, kernel=(1,))
    _linear(post, "proj_post_t", "vcp.o", vw, vw, seed, gain=1.0, bias=0.02, kernel=(1,))
    top: State = OrderedDict()
    top["prompt_text_projection"] = R.randn("vcp.unused", (w, e), seed, w**-0.5)  # never used
    top["prompt_embeddings"] = R.randn("vcp.first", (1, deep_len, w), seed, 0.6)
    top["deep_prompt_embeddings"] = R.randn(
        "vcp.deep", (dims.text_layers - 1, deep_len, w), seed, 0.6
    )
    _linear(top, "prompt_proj", "vcp.proj", w, w, seed, gain=1.4, bias=0.1)
    top["prompt_norm.weight"] = R.randn("vcp.norm.w", (w,), seed, 0.2, 1.0)
    top["prompt_norm.bias"] = R.randn("vcp.norm.b", (w,), seed, 0.1)
    return {"trainable_linearlayer": line, "New_Lan_Embed": pre, "Zero_try": post, "prompt": top}


def vcpclip_dropout(
    dims: R.ClipDims, seed: int, label: int, image: int, layer: int, deep_len: int = 1
) -> torch.Tensor:
    """A factor (deep_len, W) in {0, 1 / 0.9} for the deep tokens of one label (0 normal,
    1 abnormal), one image of the batch and one text layer (0: the inserted tokens, i: the input
    of block i + 1)."""
    keep = R.rand(f"vcp.drop.{label}.{image}.{layer}", (deep_len, dims.text_width), seed) >= 0.1
    return keep.float() / 0.9


def flat(parts: dict[str, State]) -> list[torch.Tensor]:
    """The tensors of all parts in order, for ``recipe.fingerprint``."""
    return [t for part in parts.values() for t in part.values()]

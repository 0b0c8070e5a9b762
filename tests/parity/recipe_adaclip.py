"""Deterministic fillers for what AdaCLIP learns; same rules as ``recipe.py``.

The per-position features of a random CLIP are large, so the weights of the linear layers are
scaled by ``width ** -0.5``; with these scales the maps do not saturate.
"""

from __future__ import annotations

from collections import OrderedDict

from tests.parity.recipe import ClipDims, randn

State = "OrderedDict[str, torch.Tensor]"


def _linear(
    out: State, name: str, tag: str, rows: int, cols: int, seed: int, gain: float = 1.0
) -> None:
    out[f"{name}.weight"] = randn(f"{tag}.w", (rows, cols), seed, gain * cols**-0.5)
    out[f"{name}.bias"] = randn(f"{tag}.b", (rows,), seed, 0.05)


def recipe_adaclip(
    dims: ClipDims, seed: int, length: int = 5, depth: int = 4, stages: int = 4
) -> State:
    """Names as in a released checkpoint, without their common prefix ``clip_model.``."""
    vw, e = dims.vision_width, dims.embed
    out: State = OrderedDict()
    for i in range(depth):
        out[f"text_prompter.static_prompts.{i}"] = randn(f"ada.text.{i}", (length, e), seed, 0.3)
    for i in range(depth):
        name = f"visual_prompter.static_prompts.{i}"
        out[name] = randn(f"ada.visual.{i}", (length, vw), seed, 0.6)
    for i in range(stages):
        _linear(out, f"patch_token_layer.head.{i}", f"ada.patch.{i}", e, vw, seed)
    _linear(out, "cls_token_layer.head.0", "ada.cls", e, e, seed)
    for i in range(length):
        name = f"dynamic_visual_prompt_generator.head.{i}"
        _linear(out, name, f"ada.dyn.v.{i}", vw, e, seed, gain=0.5)
    for i in range(length):
        name = f"dynamic_text_prompt_generator.head.{i}"
        _linear(out, name, f"ada.dyn.t.{i}", e, e, seed, gain=0.3)
    return out

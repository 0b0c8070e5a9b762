"""Released AdaCLIP checkpoints: one flat dictionary, every key behind ``clip_model.``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from zsad.components.released_state import take_released
from zsad.errors import WeightsError
from zsad.method import ImportedCheckpoint
from zsad.types import BackboneInfo

PREFIX = "clip_model."
_VISUAL = re.compile(r"visual_prompter\.static_prompts\.(\d+)")
_PATCH = re.compile(r"patch_token_layer\.head\.(\d+)\.weight")


def import_official(state: object, layers: int, backbone: BackboneInfo) -> ImportedCheckpoint:
    """Translate a loaded file for ``layers`` feature layers; depth and length of its prompts are
    its own.

    Raises :class:`WeightsError` with missing keys, for other layers, or for the first tensor of
    another shape than the backbone needs.
    """
    given = _stripped(state)
    depth = len([k for k in given if _VISUAL.fullmatch(k)])
    first = given.get("visual_prompter.static_prompts.0")
    if not isinstance(first, Tensor) or first.dim() != 2:
        raise WeightsError(
            "not a released adaclip checkpoint: no 'clip_model.visual_prompter.static_prompts.0' "
            "of [tokens, width] in it; give the file as its authors released it"
        )
    length = len(first)
    held = len([k for k in given if _PATCH.fullmatch(k)])
    hint = f"; the file has {held} layers, name them in adaclip.layers" if held > layers else ""
    wanted = shapes(backbone, depth, length, layers)
    taken = take_released("adaclip", given, wanted, backbone, hint)
    prompts = {"depth": depth, "length": length}
    return replace(taken, config={**taken.config, "prompts": prompts})


def shapes(
    backbone: BackboneInfo, depth: int, length: int, layers: int
) -> dict[str, tuple[int, ...]]:
    """The shape of every trained tensor by name."""
    width, embed, text = backbone.width, backbone.embed, backbone.text_width
    wanted: dict[str, tuple[int, ...]] = {}
    for i in range(depth):
        wanted[f"text_prompter.static_prompts.{i}"] = (length, text)
        wanted[f"visual_prompter.static_prompts.{i}"] = (length, width)
    linear = [(f"patch_token_layer.head.{i}", embed, width) for i in range(layers)]
    linear.append(("cls_token_layer.head.0", embed, embed))
    for i in range(length):
        linear.append((f"dynamic_visual_prompt_generator.head.{i}", width, embed))
        linear.append((f"dynamic_text_prompt_generator.head.{i}", text, embed))
    for name, rows, columns in linear:
        wanted[f"{name}.weight"] = (rows, columns)
        wanted[f"{name}.bias"] = (rows,)
    return wanted


def _stripped(state: object) -> dict[str, object]:
    """The entries of a file without their common prefix."""
    if not isinstance(state, Mapping):
        return {}
    return {str(key).removeprefix(PREFIX): value for key, value in state.items()}

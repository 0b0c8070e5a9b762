"""Released VCP-CLIP checkpoints: three dictionaries and seven tensors beside them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from zsad.components.released_state import take_released
from zsad.errors import WeightsError
from zsad.method import ImportedCheckpoint
from zsad.types import BackboneInfo

PARTS = ("trainable_linearlayer", "New_Lan_Embed", "Zero_try")
TOKENS = ("prompt_embeddings", "deep_prompt_embeddings")
UNUSED = "prompt_text_projection"  # trained along, and read by nothing
_LAYER = re.compile(r"trainable_linearlayer\.fc\.(\d+)\.weight")
_POST = {"q_proj_pre": "q", "k_proj_pre_1": "k", "v_proj_pre_1": "v", "proj_post_t": "out"}


def names(layers: int) -> dict[str, str]:
    """Our names of the released tensors, but for the two of the deep tokens."""
    found = {
        "New_Lan_Embed.prompt_query": "pre.query",
        "New_Lan_Embed.prompt_linear1.fc.weight": "pre.along.weight",
        "New_Lan_Embed.prompt_linear1.fc.bias": "pre.along.bias",
        "New_Lan_Embed.prompt_temp": "temperature_plain",
        "Zero_try.prompt_temp_l1": "temperature_refined",
        "prompt_proj.weight": "deep.proj.weight",
        "prompt_proj.bias": "deep.proj.bias",
        "prompt_norm.weight": "norm.weight",
        "prompt_norm.bias": "norm.bias",
    }
    for leaf in ("weight", "bias"):
        found |= {f"Zero_try.{old}.{leaf}": f"post.{new}.{leaf}" for old, new in _POST.items()}
        found |= {f"trainable_linearlayer.fc.{i}.{leaf}": f"fc.{i}.{leaf}" for i in range(layers)}
    return found


def import_official(state: object, layers: int, backbone: BackboneInfo) -> ImportedCheckpoint:
    """Translate a loaded file with linear layers at ``layers`` blocks.

    Raises :class:`WeightsError` with missing keys, for another number of layers, or for the first
    tensor of another shape than the backbone needs.
    """
    given = _flat(state)
    if any(not any(k.startswith(f"{part}.") for k in given) for part in PARTS):
        raise WeightsError(
            "not a released vcpclip checkpoint: it must hold the dictionaries "
            f"{', '.join(PARTS)}; give the file as its authors released it"
        )
    own = names(layers)
    count = 1 + max([int(m[1]) for k in given if (m := _LAYER.fullmatch(k))], default=-1)
    hint = (
        f"; the file has {count} linear layers, name their blocks in vcpclip.layers"
        if count > layers
        else ""
    )
    tokens, words = (
        given[k].shape[1] if isinstance(given.get(k), Tensor) and given[k].ndim == 3 else 1
        for k in ("New_Lan_Embed.prompt_query", "prompt_embeddings")
    )
    taken = take_released("vcpclip", given, _shapes(own, tokens, words, backbone), backbone, hint)
    found = {ours: _plain(old, taken.state[old]) for old, ours in own.items()}
    first, later = (taken.state[name] for name in TOKENS)
    found["deep.tokens"] = torch.cat([first, later])
    if UNUSED in given:
        taken.report.append(f"'{UNUSED}' is read by no score and no loss, and left out")
    config = {"preset": "released", "class_tokens": tokens, "deep_tokens": words}
    return ImportedCheckpoint(found, config, taken.report)


def _flat(state: object) -> dict[str, Any]:
    """The tensors by ``part.name``, whether their dictionaries were kept or their names joined to
    ``part/name``; nothing for what is not a dictionary."""
    found: dict[str, Any] = {}
    for key, value in state.items() if isinstance(state, Mapping) else ():
        if isinstance(value, Mapping):
            found |= {f"{key}.{inner}": one for inner, one in value.items()}
        else:
            found[str(key).replace("/", ".")] = value
    return found


def _plain(name: str, value: Tensor) -> Tensor:
    """A released tensor in the shape that it has here: no batch axis, 1x1 kernels as matrices."""
    if name == "New_Lan_Embed.prompt_query":
        return value[0]
    is_kernel = any(name == f"Zero_try.{old}.weight" for old in _POST)
    return value.squeeze(-1) if is_kernel else value


def _shapes(
    own: Mapping[str, str], tokens: int, words: int, backbone: BackboneInfo
) -> dict[str, tuple[int, ...]]:
    """The shapes of the released tensors on a backbone."""
    width, embed, text = backbone.width, backbone.embed, backbone.text_width
    shapes: dict[str, tuple[int, ...]] = {
        "New_Lan_Embed.prompt_query": (1, tokens, text),
        "New_Lan_Embed.prompt_linear1.fc.weight": (tokens, 1, 3),
        "New_Lan_Embed.prompt_linear1.fc.bias": (tokens,),
        "New_Lan_Embed.prompt_temp": (),
        "Zero_try.prompt_temp_l1": (),
        "Zero_try.q_proj_pre.weight": (width, embed, 1),
        "prompt_proj.weight": (text, text),
        "prompt_proj.bias": (text,),
        "prompt_norm.weight": (text,),
        "prompt_norm.bias": (text,),
        "prompt_embeddings": (1, words, text),
        "deep_prompt_embeddings": (backbone.text_depth - 1, words, text),
    }
    for name in own:
        if name.startswith("trainable_linearlayer"):
            shapes[name] = (embed, width) if name.endswith("weight") else (embed,)
        elif name.startswith("Zero_try.") and name not in shapes:
            shapes[name] = (width, width, 1) if name.endswith("weight") else (width,)
    return shapes

"""Released Bayes-PFL checkpoints: ``{"MyModel": state}``, whose shared parts are repeated."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from zsad.components.released_state import take_released
from zsad.errors import WeightsError, counted
from zsad.method import ImportedCheckpoint
from zsad.types import BackboneInfo

# Prefix in a file -> that of the tensors which it repeats.
ALIASES = (
    ("PFL_context.encoder.", "context_encoder."),
    ("PFL_context.decoder.", "context_decoder."),
    ("PFL_normal.encoder.", "state_encoder."),
    ("PFL_normal.decoder.", "state_decoder."),
    ("PFL_abnormal.encoder.", "state_encoder."),
    ("PFL_abnormal.decoder.", "state_decoder."),
)
UNUSED = re.compile(r"(context|state)_decoder\..*|PFL_\w+\.p_mu\..*")  # in no loss, no score
_LAYER = re.compile(r"RCA\.linear_proj\.(\d+)\.weight")
_ENCODER = {"weight_mean": "mean", "weight_log_variance": "s"}
_FUSION = {"fuse_modules": "join", "compress": "weigh", "post_process": "out"}


def names(layers: int) -> dict[str, str]:
    """Our names of the released tensors that a score or a loss reads."""
    found = {
        "prompt_context": "prompt_context",
        "prompt_state_normal": "prompt_normal",
        "prompt_state_abnormal": "prompt_abnormal",
        "temperature_pixel": "temperature_pixel",
        "temperature_image": "temperature_image",
    }
    for label in ("normal", "abnormal"):
        found |= {f"PFL_{label}.amor_{x}": f"flow_{label}.{x}" for x in "uwb"}
        found[f"PFL_{label}.state"] = f"flow_{label}.state"
    for leaf in ("weight", "bias"):
        for who in ("context", "state"):
            for old, new in _ENCODER.items():
                for i in range(3):
                    theirs = f"{who}_encoder.{old}.module.{2 * i}.{leaf}"
                    found[theirs] = f"{who}_encoder.{new}.layers.{i}.{leaf}"
        found |= {f"PFL_context.amor_{x}.{leaf}": f"flow_context.{x}.{leaf}" for x in "uwb"}
        found |= {f"fuse.{old}.{leaf}": f"fusion.{new}.{leaf}" for old, new in _FUSION.items()}
        found[f"RCA.q_proj_pre.{leaf}"] = f"rca.query.{leaf}"
        found[f"class_mapping.{leaf}"] = f"map_text.{leaf}"
        found[f"image_mapping.{leaf}"] = f"map_image.{leaf}"
    return found | {f"RCA.linear_proj.{i}.weight": f"rca.fc.{i}.weight" for i in range(layers)}


def import_official(state: object, layers: int, backbone: BackboneInfo) -> ImportedCheckpoint:
    """Translate a loaded file for ``layers`` layers.

    Raises :class:`WeightsError` with missing keys, for another number of layers, where a repeated
    tensor differs, or for the first tensor of another shape than the backbone needs.
    """
    inner = state.get("MyModel", state) if isinstance(state, Mapping) else None
    if not isinstance(inner, Mapping) or "prompt_context" not in inner:
        raise WeightsError(
            "not a released bayespfl checkpoint: no 'prompt_context' in its dictionary 'MyModel'; "
            "give the file as its authors released it"
        )
    given = _once(inner)
    unused = [given.pop(k) for k in list(given) if UNUSED.fullmatch(k)]
    own = names(layers)
    count = 1 + max([int(m[1]) for k in given if (m := _LAYER.fullmatch(k))], default=-1)
    hint = f"; the file has {count} layers, name them in bayespfl.layers" if count > layers else ""
    sizes = {
        "bank": _side(given, "prompt_context", 0),
        "context_tokens": _side(given, "prompt_context", 1),
        "state_tokens": _side(given, "prompt_state_normal", 1),
        "flows": _side(given, "PFL_normal.amor_u", 1),
    }
    taken = take_released("bayespfl", given, _shapes(layers, sizes, backbone), backbone, hint)
    found = {ours: _plain(old, taken.state[old]) for old, ours in own.items()}
    if unused:
        values = sum(v.numel() for v in unused if isinstance(v, Tensor))
        taken.report.append(
            f"left out {counted(len(unused), 'tensor')} ({counted(values, 'value')}) of decoders "
            "and priors, which no score and no loss reads"
        )
    return ImportedCheckpoint(found, {"preset": "released", **sizes}, taken.report)


def _once(state: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors without those that repeat others; a part that stands under its second name alone
    is taken from there."""
    given = {str(k): v for k, v in state.items()}
    for alias, original in ALIASES:
        for name in [k for k in given if k.startswith(alias)]:
            value, first = given.pop(name), original + name[len(alias) :]
            held = given.setdefault(first, value)
            both = isinstance(held, Tensor) and isinstance(value, Tensor)
            if both and (held.shape != value.shape or not torch.equal(held, value)):
                raise WeightsError(
                    f"bayespfl checkpoint: '{name}' should repeat '{first}' and differs from it; "
                    f"give the file as its authors released it"
                )
    return given


def _side(given: Mapping[str, Any], name: str, axis: int) -> int:
    """A side of a tensor; 1 where there is no such tensor."""
    value = given.get(name)
    return int(value.shape[axis]) if isinstance(value, Tensor) and value.ndim > axis else 1


def _plain(name: str, value: Tensor) -> Tensor:
    """A released tensor in the shape that it has here."""
    if name.endswith(".amor_b"):
        return value.flatten()
    if name.endswith((".amor_u", ".amor_w")):
        return value.flatten(2)[0]
    if name.endswith(".state"):
        return value[0]
    return value[..., 0] if name == "RCA.q_proj_pre.weight" else value


def _shapes(
    layers: int, sizes: Mapping[str, int], backbone: BackboneInfo
) -> dict[str, tuple[int, ...]]:
    """The shapes of the released tensors on a backbone."""
    width, embed, text = backbone.width, backbone.embed, backbone.text_width
    hidden, flows, bank = width // 2, sizes["flows"], sizes["bank"]
    shapes: dict[str, tuple[int, ...]] = {
        "prompt_context": (bank, sizes["context_tokens"], text),
        "prompt_state_normal": (bank, sizes["state_tokens"], text),
        "prompt_state_abnormal": (bank, sizes["state_tokens"], text),
        "temperature_pixel": (),
        "temperature_image": (),
        "RCA.q_proj_pre.weight": (embed, embed, 1),
        "RCA.q_proj_pre.bias": (embed,),
        **{f"RCA.linear_proj.{i}.weight": (embed, width) for i in range(layers)},
    }
    for label in ("normal", "abnormal"):
        shapes |= {
            f"PFL_{label}.amor_u": (1, flows, text, 1),
            f"PFL_{label}.amor_w": (1, flows, 1, text),
            f"PFL_{label}.amor_b": (1, flows, 1, 1),
            f"PFL_{label}.state": (1, text),
        }

    def add(name: str, outputs: int, inputs: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (outputs, inputs), (outputs,)

    for who, inputs in (("context", embed), ("state", text)):
        for part in _ENCODER:
            sides = ((hidden, inputs), (hidden, hidden), (text, hidden))
            for i, (rows, columns) in enumerate(sides):
                add(f"{who}_encoder.{part}.module.{2 * i}", rows, columns)
    add("PFL_context.amor_u", flows * text, embed)
    add("PFL_context.amor_w", flows * text, embed)
    add("PFL_context.amor_b", flows, embed)
    add("fuse.fuse_modules", hidden, layers * width)
    add("fuse.compress", 1, hidden)
    add("fuse.post_process", embed, hidden)
    add("class_mapping", embed, embed)
    add("image_mapping", embed, embed)
    return shapes

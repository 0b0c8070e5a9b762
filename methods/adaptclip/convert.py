"""Released AdaptCLIP checkpoints: the dictionaries of the three adapters."""

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

PARTS = ("textual_learner", "visual_learner", "pq_learner")
BUFFERS = re.compile(r"textual_learner\.(token_prefix|token_suffix|tokenized_prompts)_.*")
_HEAD = re.compile(r"pq_learner\.(local|global)_adapter\.(\d+)\.(.+)")
_LAYER = re.compile(r"pq_learner\.sharebn\.(\d+)\.weight")
_RENAMED = (
    ("visual_learner.local_adater.", "visual_local."),  # spelled so
    ("visual_learner.global_adapter.", "visual_global."),
    ("pq_learner.local_adapter.0.", "query.local_adapter."),
    ("pq_learner.global_adapter.0.", "query.global_adapter."),
    ("pq_learner.sharebn.", "query.sharebn."),
)
_NORM = ("weight", "bias", "running_mean", "running_var")
_COUNT = "num_batches_tracked"


def our_name(name: str) -> str:
    """Our name of a released tensor."""
    for old, new in _RENAMED:
        if name.startswith(old):
            return new + name[len(old) :]
    return {
        "textual_learner.ctx_pos": "normal_tokens",
        "textual_learner.ctx_neg": "abnormal_tokens",
    }[name]


def import_official(state: object, layers: int, backbone: BackboneInfo) -> ImportedCheckpoint:
    """Translate a loaded file for ``layers`` layers.

    Raises :class:`WeightsError` with missing keys, for another number of layers, where the repeated
    heads differ, or for the first tensor of another shape than the backbone needs.
    """
    if not isinstance(state, Mapping) or any(
        not isinstance(state.get(part), Mapping) for part in PARTS
    ):
        raise WeightsError(
            "not a released adaptclip checkpoint: it must hold the dictionaries "
            f"{', '.join(PARTS)}; give the file as its authors released it"
        )
    given = {f"{part}.{k}": v for part in PARTS for k, v in state[part].items()}
    beside = {str(k): v for k, v in state.items() if k not in PARTS}
    buffers = [given.pop(k) for k in list(given) if BUFFERS.fullmatch(k)]
    repeated = _take_repeated(given)
    count = 1 + max([int(m[1]) for k in given if (m := _LAYER.fullmatch(k))], default=-1)
    hint = f"; the file has {count} layers, name them in adaptclip.layers" if count > layers else ""
    sizes = {
        "n_ctx": _side(given, "textual_learner.ctx_pos", 2, 1),
        "reduction": backbone.embed
        // _side(given, "visual_learner.global_adapter.fc.0.weight", 0, backbone.embed),
        "mid": _side(given, "pq_learner.global_adapter.0.0.weight", 0, 2),
    }
    shapes = _shapes(layers, sizes, backbone)
    taken = take_released("adaptclip", given | beside, shapes, backbone, hint)
    found = {our_name(k): v[0, 0] if ".ctx_" in k else v for k, v in taken.state.items()}
    if buffers:
        taken.report.append(f"skipped {len(buffers)} token buffers: they follow from the backbone")
    if repeated:
        taken.report.append(f"skipped {repeated} tensors of heads that repeat the first layer's")
    return ImportedCheckpoint(found, {"preset": "released", **sizes}, taken.report)


def _take_repeated(given: dict[str, Any]) -> int:
    """Take the heads of all layers but the first out, and return how many tensors that were.

    All layers share one; raises :class:`WeightsError` where they differ.
    """
    count = 0
    for name in list(given):
        match = _HEAD.fullmatch(name)
        if match is None or match[2] == "0":
            continue
        first = f"pq_learner.{match[1]}_adapter.0.{match[3]}"
        value, held = given.pop(name), given.get(first)
        if not isinstance(value, Tensor) or not isinstance(held, Tensor):
            continue  # what is missing is said elsewhere
        if held.shape != value.shape or not torch.equal(held, value):
            raise WeightsError(
                f"adaptclip checkpoint: '{name}' should repeat '{first}' and differs from it; give "
                f"the file as its authors released it"
            )
        count += 1
    return count


def _side(given: Mapping[str, Any], name: str, axis: int, otherwise: int) -> int:
    """A side of a tensor; ``otherwise`` where there is no such tensor."""
    value = given.get(name)
    if not isinstance(value, Tensor) or value.ndim <= axis:
        return otherwise
    return max(1, int(value.shape[axis]))


def _shapes(
    layers: int, sizes: Mapping[str, int], backbone: BackboneInfo
) -> dict[str, tuple[int, ...]]:
    """The shapes of the released tensors on a backbone."""
    embed, mid = backbone.embed, sizes["mid"]
    half, inner = mid // 2, max(1, embed // max(1, sizes["reduction"]))
    shapes: dict[str, tuple[int, ...]] = {
        f"textual_learner.ctx_{label}": (1, 1, sizes["n_ctx"], backbone.text_width)
        for label in ("pos", "neg")
    }

    def norm(name: str, width: int) -> None:
        shapes.update({f"{name}.{leaf}": (width,) for leaf in _NORM})
        shapes[f"{name}.{_COUNT}"] = ()

    for part in ("local_adater", "global_adapter"):
        name = f"visual_learner.{part}.fc"
        shapes[f"{name}.0.weight"] = (inner, embed)
        norm(f"{name}.1", inner)
        shapes[f"{name}.3.weight"] = (embed, inner)
    for layer in range(layers):
        norm(f"pq_learner.sharebn.{layer}", embed)
    local = "pq_learner.local_adapter.0"
    shapes[f"{local}.0.weight"] = (mid, embed, 3, 3)
    norm(f"{local}.1", mid)
    shapes |= {f"{local}.3.weight": (mid, mid, 2, 2), f"{local}.3.bias": (mid,)}
    shapes[f"{local}.4.weight"] = (half, mid, 3, 3)
    norm(f"{local}.5", half)
    shapes |= {f"{local}.7.weight": (half, half, 2, 2), f"{local}.7.bias": (half,)}
    shapes |= {f"{local}.8.weight": (2, half, 1, 1), f"{local}.8.bias": (2,)}
    whole = "pq_learner.global_adapter.0"
    shapes[f"{whole}.0.weight"] = (mid, embed)
    norm(f"{whole}.1", mid)
    shapes[f"{whole}.3.weight"] = (half, mid)
    norm(f"{whole}.4", half)
    shapes[f"{whole}.6.weight"] = (2, half)
    return shapes

"""Released APRIL-GAN checkpoints: ``{"trainable_linearlayer": {"fc.0.weight": [E, D], ...}}``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from zsad.errors import WeightsError
from zsad.method import ImportedCheckpoint
from zsad.types import BackboneInfo

_KEY = re.compile(r"fc\.(\d+)\.(weight|bias)")


def import_official(state: Any, layers: int, backbone: BackboneInfo) -> ImportedCheckpoint:
    """Translate a loaded file for ``layers`` linear layers.

    Raises :class:`WeightsError` with missing and unexpected keys, or the first tensor of another
    shape than the backbone needs.
    """
    inner = state.get("trainable_linearlayer") if isinstance(state, Mapping) else None
    if not isinstance(inner, Mapping):
        raise WeightsError(
            "not a released aprilgan checkpoint: no dictionary 'trainable_linearlayer' in it; "
            "give the file as its authors released it"
        )
    wanted = [f"fc.{i}.{part}" for i in range(layers) for part in ("weight", "bias")]
    missing = [k for k in wanted if k not in inner]
    unexpected = sorted(str(k) for k in inner if k not in wanted)
    if missing or unexpected:
        extra = sum(1 for k in unexpected if _KEY.fullmatch(k)) // 2
        hint = f"; the file has {layers + extra} layers, name them in aprilgan.layers"
        raise WeightsError(
            f"not a released aprilgan checkpoint of {layers} layers; "
            f"missing: {', '.join(missing) or 'none'}; "
            f"unexpected: {', '.join(unexpected) or 'none'}{hint if extra else ''}"
        )
    shapes = {"weight": (backbone.embed, backbone.width), "bias": (backbone.embed,)}
    for key in wanted:
        value, shape = inner[key], shapes[key.rpartition(".")[2]]
        if not isinstance(value, Tensor) or tuple(value.shape) != shape:
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise WeightsError(
                f"aprilgan checkpoint: '{key}' is {got}, backbone '{backbone.name}' needs {shape}; "
                f"use the backbone that it was trained with (vit-l-14-336)"
            )
    count = sum(inner[k].numel() for k in wanted)
    return ImportedCheckpoint(
        state={k: inner[k].float() for k in wanted},
        config={"preset": "released"},
        report=[f"trained tensors taken: {len(wanted)} ({count:,} values)"],
    )

"""Released MVFA checkpoints: ``{"seg_adapters": {"0.fc1.0.weight": ...}, "det_adapters": ...}``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from zsad.errors import WeightsError
from zsad.method import ImportedCheckpoint
from zsad.types import BackboneInfo

PARTS = ("seg_adapters", "det_adapters")


def import_official(state: Any, stages: int, backbone: BackboneInfo) -> ImportedCheckpoint:
    """Translate a loaded file with adapters at ``stages`` stages.

    Raises :class:`WeightsError` with missing and unexpected keys, or the first tensor of another
    shape than the backbone needs.
    """
    if not isinstance(state, Mapping) or any(
        not isinstance(state.get(part), Mapping) for part in PARTS
    ):
        raise WeightsError(
            "not a released mvfa checkpoint: it must hold the dictionaries 'seg_adapters' and "
            "'det_adapters'; give the file as its authors released it"
        )
    width, joint = backbone.width, backbone.embed
    wanted = {}
    for part in PARTS:
        for i in range(stages):
            wanted[f"{part}.{i}.fc1.0.weight"] = (joint, width)
            wanted[f"{part}.{i}.fc2.0.weight"] = (width, joint)
    given = {f"{part}.{key}": value for part in PARTS for key, value in state[part].items()}
    missing = [k for k in wanted if k not in given]
    unexpected = sorted(k for k in given if k not in wanted)
    if missing or unexpected:
        raise WeightsError(
            f"not a released mvfa checkpoint of {stages} stages; "
            f"missing: {', '.join(missing) or 'none'}; "
            f"unexpected: {', '.join(unexpected) or 'none'}"
        )
    for key, shape in wanted.items():
        value = given[key]
        if not isinstance(value, Tensor) or tuple(value.shape) != shape:
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise WeightsError(
                f"mvfa checkpoint: '{key}' is {got}, backbone '{backbone.name}' needs {shape}; "
                f"use the backbone that it was trained with (vit-l-14-336)"
            )
    count = sum(v.numel() for v in given.values())
    return ImportedCheckpoint(
        state={k: v.float() for k, v in given.items()},
        config={"preset": "released"},
        report=[f"trained tensors taken: {len(wanted)} ({count:,} values)"],
    )

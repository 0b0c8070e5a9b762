"""Released MVFA checkpoints: ``{"seg_adapters": {"0.fc1.0.weight": ...}, "det_adapters": ...}``."""

from __future__ import annotations

import re
from collections.abc import Mapping

from zsad.components.released_state import take_released
from zsad.errors import WeightsError
from zsad.method import ImportedCheckpoint
from zsad.types import BackboneInfo

PARTS = ("seg_adapters", "det_adapters")
_ADAPTER = re.compile(r"(seg|det)_adapters\.\d+\.fc[12]\.0\.weight")


def import_official(state: object, stages: int, backbone: BackboneInfo) -> ImportedCheckpoint:
    """Translate a loaded file with adapters at ``stages`` stages.

    Raises :class:`WeightsError` with missing keys, for adapters at more stages, or for the first
    tensor of another shape than the backbone needs.
    """
    if not isinstance(state, Mapping) or any(
        not isinstance(state.get(part), Mapping) for part in PARTS
    ):
        raise WeightsError(
            "not a released mvfa checkpoint: it must hold the dictionaries 'seg_adapters' and "
            "'det_adapters'; give the file as its authors released it"
        )
    wanted = {}
    for part in PARTS:
        for i in range(stages):
            wanted[f"{part}.{i}.fc1.0.weight"] = (backbone.embed, backbone.width)
            wanted[f"{part}.{i}.fc2.0.weight"] = (backbone.width, backbone.embed)
    given = {f"{part}.{key}": value for part in PARTS for key, value in state[part].items()}
    extra = [k for k in given if k not in wanted and _ADAPTER.fullmatch(k)]
    hint = f"; the file has adapters at other stages than mvfa.layers: {extra[0]}" if extra else ""
    return take_released("mvfa", given, wanted, backbone, hint)

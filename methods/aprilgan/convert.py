"""Released APRIL-GAN checkpoints: ``{"trainable_linearlayer": {"fc.0.weight": [E, D], ...}}``."""

from __future__ import annotations

import re
from collections.abc import Mapping

from zsad.components.released_state import take_released
from zsad.errors import WeightsError
from zsad.method import ImportedCheckpoint
from zsad.types import BackboneInfo

_KEY = re.compile(r"fc\.(\d+)\.(weight|bias)")


def import_official(state: object, layers: int, backbone: BackboneInfo) -> ImportedCheckpoint:
    """Translate a loaded file for ``layers`` linear layers.

    Raises :class:`WeightsError` with missing keys, for more layers than ``layers``, or for the
    first tensor of another shape than the backbone needs.
    """
    inner = state.get("trainable_linearlayer", state) if isinstance(state, Mapping) else None
    if not isinstance(inner, Mapping) or not any(_KEY.fullmatch(str(k)) for k in inner):
        raise WeightsError(
            "not a released aprilgan checkpoint: no dictionary 'trainable_linearlayer' in it; "
            "give the file as its authors released it"
        )
    wanted: dict[str, tuple[int, ...]] = {}
    for i in range(layers):
        wanted[f"fc.{i}.weight"] = (backbone.embed, backbone.width)
        wanted[f"fc.{i}.bias"] = (backbone.embed,)
    extra = {m[1] for k in inner if k not in wanted and (m := _KEY.fullmatch(str(k)))}
    hint = (
        f"; the file has {layers + len(extra)} layers, name them in aprilgan.layers"
        if extra
        else ""
    )
    return take_released("aprilgan", inner, wanted, backbone, hint)

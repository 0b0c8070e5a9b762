"""Released checkpoints that use our names already."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from zsad.backbones.wrappers import ignored_note, listed
from zsad.errors import WeightsError, counted
from zsad.method import ImportedCheckpoint
from zsad.types import BackboneInfo


def take_released(
    method: str,
    given: Mapping[str, Any],
    wanted: Mapping[str, tuple[int, ...]],
    backbone: BackboneInfo,
    hint: str = "",
) -> ImportedCheckpoint:
    """Take the tensors of a released checkpoint that uses our names already.

    ``wanted``: the shape of every tensor that must be there; others are ignored, and the report
    says so.  ``hint``: why some of the others must not be ignored.  Raises :class:`WeightsError`
    with the keys that are missing, for a hint, or for the first tensor of another shape.
    """
    missing = [k for k in wanted if k not in given]
    further = {str(k) for k in given if k not in wanted}
    if missing or hint:
        raise WeightsError(
            f"not a released {method} checkpoint for backbone '{backbone.name}'; "
            f"missing: {', '.join(missing) or 'none'}; "
            f"further entries: {listed(further) or 'none'}{hint}"
        )
    for key, shape in wanted.items():
        value = given[key]
        if not isinstance(value, Tensor) or tuple(value.shape) != shape:
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise WeightsError(
                f"{method} checkpoint: '{key}' is {got}, backbone '{backbone.name}' needs {shape}; "
                "use the backbone that it was trained with (vit-l-14-336)"
            )
    count = sum(given[k].numel() for k in wanted)
    return ImportedCheckpoint(
        state={k: given[k].float() for k in wanted},
        config={"preset": "released"},
        report=[
            f"trained tensors taken: {len(wanted)} ({counted(count, 'value')})",
            *ignored_note(further),
        ],
    )

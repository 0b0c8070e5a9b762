"""Released checkpoints: those that use our names already, and those of a part per layer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, TypeVar

from torch import Tensor

from zsad.backbones.wrappers import ignored_note, listed
from zsad.components.schemas import LayeredConfig
from zsad.errors import WeightsError, counted
from zsad.method import ImportedCheckpoint, Method, chosen_blocks
from zsad.types import BackboneInfo

LayeredConfigT = TypeVar("LayeredConfigT", bound=LayeredConfig)
TextT = TypeVar("TextT")


class LayeredRelease(Method[LayeredConfigT, TextT]):
    """A method whose released file holds a part for each of ``config.layers``."""

    @staticmethod
    @abstractmethod
    def from_release(state: object, layers: int, backbone: BackboneInfo, /) -> ImportedCheckpoint:
        """Translate a loaded file for that many layers of a backbone.

        Raises :class:`WeightsError` with missing and unexpected keys.
        """

    @classmethod
    def import_official(
        cls, state: object, config: LayeredConfigT, backbone: BackboneInfo
    ) -> ImportedCheckpoint:
        layers = len(chosen_blocks(cls.name, config.layers, backbone))
        return cls.from_release(state, layers, backbone)


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

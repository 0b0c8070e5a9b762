"""Configuration of ``winclip`` (torch-free)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zsad import config as cfg
from zsad.config.method_config import MethodConfig
from zsad.types import Names


@dataclass(frozen=True)
class Config(MethodConfig):
    """Keys of ``winclip.*``; the README says where the values come from.

    ``temperature`` divides cosines.  ``scales``: window sizes in patches.
    ``include_image_scale``: the image's own score is one more scale of the zero-shot map.
    ``shots``: normal reference images per category, 0 = zero-shot.  ``memory_layer``: the block
    whose patch tokens the memory holds.  ``sigma``: smoothing of the map, output pixels.

    ``templates``: the paper's 22, or the 21 that the ``reproduction`` by AnomalyCLIP's authors
    averages over.  ``unit_first``: sentences are unit vectors before their mean is taken.
    ``names``: which name of a category prompts say.  ``fewshot_map``: how the language map and
    the distances to the references are joined.  ``floor``: smallest value in a harmonic mean.
    ``references``: ``distinct`` images, or drawn with ``replacement``.
    """

    preset: str
    temperature: float
    scales: tuple[int, ...]
    include_image_scale: bool
    shots: int
    memory_layer: Literal["penultimate", "last"]
    sigma: float
    templates: Literal["paper", "reproduction"] = cfg.added("paper")
    unit_first: bool = cfg.added(True)
    names: Names = cfg.added("spoken")
    fewshot_map: Literal["mean", "sum"] = cfg.added("mean")
    floor: float = cfg.added(1e-6)
    references: Literal["distinct", "replacement"] = cfg.added("distinct")

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"temperature={self.temperature} must be above 0")
        if not self.scales and not self.include_image_scale:
            raise ValueError("scales=[] leaves no map; name window sizes such as [2,3]")
        if any(k < 1 for k in self.scales) or len(set(self.scales)) != len(self.scales):
            raise ValueError(f"scales={list(self.scales)} must be different sizes of 1 or more")
        if self.shots < 0:
            raise ValueError(f"shots={self.shots} must be 0 or above")
        if self.sigma < 0 or self.floor < 0:
            raise ValueError(f"sigma={self.sigma} and floor={self.floor} must be 0 or above")

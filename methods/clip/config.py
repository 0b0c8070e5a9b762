"""Configuration of ``clip`` (torch-free)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zsad.config.method_config import MethodConfig


@dataclass(frozen=True)
class Config(MethodConfig):
    """Keys of ``clip.*``; the README says where the values come from.

    ``prompts``: ``two`` = one sentence per label; ``ac`` = the ImageNet template ensemble around
    one state word per label (CLIP-AC); ``ac-ensemble`` = the same templates around several state
    phrases per label.  ``normal_word`` / ``anomalous_word``: the state words of ``two`` and
    ``ac``.  ``temperature`` divides cosines.  ``map_max``: weight of the anomaly map's maximum
    in the image score, 0 = class token only.  ``sigma``: smoothing of the map, output pixels.
    """

    preset: str
    prompts: Literal["two", "ac", "ac-ensemble"]
    normal_word: str
    anomalous_word: str
    temperature: float
    map_max: float
    sigma: float

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"temperature={self.temperature} must be above 0")
        if not 0 <= self.map_max <= 1:
            raise ValueError(f"map_max={self.map_max} must lie in 0..1")
        if self.sigma < 0:
            raise ValueError(f"sigma={self.sigma} must be 0 or above")

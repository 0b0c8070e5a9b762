"""Configuration of ``musc`` (torch-free); where the values come from stands in config.yaml."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zsad.config.method_config import MethodConfig


@dataclass(frozen=True)
class Config(MethodConfig):
    """Keys of ``musc.*``.

    ``layers``: ``stages`` = the backbone's four feature layers, or 1-based block numbers.
    ``degrees``: sides of the neighbourhoods that patches are averaged over.  ``nearest``: share
    of the other images, the most similar ones, whose distances count.  ``image_neighbours``: how
    many images, itself included, smooth an image's score; the mean over the list; [1] = none.
    ``sigma``: smoothing of the map, output pixels.
    """

    preset: str
    layers: Literal["stages"] | list[int]
    degrees: tuple[int, ...]
    nearest: float
    image_neighbours: tuple[int, ...]
    sigma: float

    def __post_init__(self) -> None:
        if not self.degrees or any(r < 1 or r % 2 == 0 for r in self.degrees):
            raise ValueError(f"degrees={list(self.degrees)} must be odd numbers such as [1,3,5]")
        if not 0 < self.nearest <= 1:
            raise ValueError(f"nearest={self.nearest} must be above 0 and at most 1")
        if not self.image_neighbours or any(k < 1 for k in self.image_neighbours):
            raise ValueError(
                f"image_neighbours={list(self.image_neighbours)} must be numbers of 1 or more"
            )
        if self.sigma < 0:
            raise ValueError(f"sigma={self.sigma} must be 0 or above")

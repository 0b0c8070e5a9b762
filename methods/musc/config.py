"""Configuration of ``musc`` (torch-free); config.yaml says where the values come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zsad import config as cfg
from zsad.config.method_config import MethodConfig
from zsad.types import EncoderVariant


@dataclass(frozen=True)
class Config(MethodConfig):
    """Keys of ``musc.*``.

    ``layers``: ``stages`` = the backbone's four feature layers, or 1-based block numbers.
    ``degrees``: sides of the neighbourhoods that patches are averaged over.  ``nearest``: share
    of the other images, the most similar ones, whose distances count.  ``image_neighbours``: how
    many images, itself included, smooth an image's score; the mean over the list; [1] = none.
    ``sigma``: smoothing of the map, output pixels.

    ``encoder``: the forward pass that the features come from.  ``distance``: half the Euclidean
    distance of unit vectors, in [0, 1], or the distance itself.  ``image_maximum``: an image's
    score is the largest one of its ``patches``, or of the ``pixels`` of its enlarged map.
    ``negative_cosines``: whether images that are unlike weigh in against each other, or nothing.
    ``stretch``: image scores are stretched to [0, 1] over the images of the category.
    ``neighbours_on``: other ``image_neighbours`` for the datasets that it names.
    """

    preset: str
    layers: Literal["stages"] | list[int]
    degrees: tuple[int, ...]
    nearest: float
    image_neighbours: tuple[int, ...]
    sigma: float
    encoder: EncoderVariant = cfg.added(default_factory=EncoderVariant)
    distance: Literal["halved", "euclidean"] = cfg.added("halved")
    image_maximum: Literal["patches", "pixels"] = cfg.added("patches")
    negative_cosines: bool = cfg.added(False)
    stretch: bool = cfg.added(False)
    neighbours_on: dict[str, list[int]] = cfg.added(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.degrees or any(r < 1 or r % 2 == 0 for r in self.degrees):
            raise ValueError(f"degrees={list(self.degrees)} must be odd numbers such as [1,3,5]")
        if not 0 < self.nearest <= 1:
            raise ValueError(f"nearest={self.nearest} must be above 0 and at most 1")
        for counts in (self.image_neighbours, *self.neighbours_on.values()):
            if not counts or any(k < 1 for k in counts):
                raise ValueError(f"image_neighbours={list(counts)} must be numbers of 1 or more")
        if self.sigma < 0:
            raise ValueError(f"sigma={self.sigma} must be 0 or above")

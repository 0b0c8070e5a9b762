"""Configuration of ``patchcore`` (torch-free); config.yaml says where the values come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from zsad.config.method_config import ALL_SHOTS, MethodConfig


@dataclass(frozen=True)
class Config(MethodConfig):
    """Keys of ``patchcore.*``.

    ``shots``: normal reference images per category, or ``all`` of the training part.
    ``layers``: whose patch tokens the memory holds: ``middle`` = the two middle stages of the
    backbone, ``penultimate`` = the block before the last (the memory of ALFA and WinCLIP), or
    1-based block numbers. ``neighbourhood``: side of the mean filter over patches, 1 = off.
    ``coreset``: share of the memory that is kept. ``neighbours``: rows that weigh the image
    score, 1 = the largest distance as it is. ``seed`` of the coreset. ``sigma``: smoothing of
    the map, output pixels.
    """

    full_shot: ClassVar[bool] = True

    preset: str
    shots: int
    layers: Literal["middle", "penultimate"] | list[int]
    neighbourhood: int
    coreset: float
    neighbours: int
    seed: int
    sigma: float

    def __post_init__(self) -> None:
        if self.shots < 1 and self.shots != ALL_SHOTS:
            raise ValueError(
                f"shots={self.shots}: PatchCore compares with normal reference images and has no "
                f"zero-shot mode; choose shots of 1 or more, or all"
            )
        if self.neighbourhood < 1 or self.neighbourhood % 2 == 0:
            raise ValueError(f"neighbourhood={self.neighbourhood} must be odd: 1, 3, 5")
        if not 0 < self.coreset <= 1:
            raise ValueError(f"coreset={self.coreset} must be above 0 and at most 1")
        if self.neighbours < 1:
            raise ValueError(f"neighbours={self.neighbours} must be at least 1")
        if self.sigma < 0:
            raise ValueError(f"sigma={self.sigma} must be 0 or above")

"""Configuration of ``aprilgan`` (torch-free); config.yaml says where the values come from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from zsad import config as cfg
from zsad.components.schemas import StageConfig
from zsad.data.mosaic import Mosaic, MosaicConfig
from zsad.types import EncoderVariant, Names


@dataclass(frozen=True)
class Train:
    """``train.*``: Adam at a constant rate.

    ``epochs``, and other numbers of them for a training on the auxiliary datasets that
    ``epochs_on`` names.
    """

    epochs: int = 3
    epochs_on: dict[str, int] = field(default_factory=dict)
    batch_size: int = 8
    lr: float = 1e-3
    betas: tuple[float, float] = (0.5, 0.999)
    mosaic: Mosaic = field(default_factory=Mosaic)

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError("train.epochs and train.batch_size must be at least 1")
        for dataset, epochs in self.epochs_on.items():
            if epochs < 1:
                raise ValueError(f"train.epochs_on.{dataset}={epochs} must be at least 1")

    def epochs_for(self, datasets: Iterable[str]) -> int:
        """Return the number of epochs for a training on ``datasets``."""
        named = [self.epochs_on[d] for d in datasets if d in self.epochs_on]
        return max(named, default=self.epochs)


@dataclass(frozen=True)
class Config(StageConfig, MosaicConfig):
    """Keys of ``aprilgan.*``.

    ``scale`` multiplies cosines.  ``layers``: ``stages`` = the backbone's four feature layers, or
    1-based block numbers.  ``fuse``: how the maps of the layers are joined; ``mean`` keeps them
    in [0, 1], ranks are the same.  ``sigma``: smoothing of the map, output pixels.

    ``encoder``: the forward pass that the features come from.  ``names``: which name of a category
    prompts say.  ``shots``: normal reference images per category, 0 = zero-shot.  ``stretch``: of
    the few-shot image score the map's part is stretched to [0, 1] over the images of the category.
    ``references``: ``distinct`` images, or drawn with ``replacement``.
    """

    inference_only: ClassVar[tuple[str, ...]] = (
        *("preset", "fuse", "sigma"),
        *("shots", "stretch", "references"),
    )

    preset: str
    scale: float
    layers: Literal["stages"] | list[int]
    fuse: Literal["mean", "sum"]
    sigma: float
    train: Train = field(default_factory=Train)
    encoder: EncoderVariant = cfg.added(default_factory=EncoderVariant)
    names: Names = cfg.added("spoken")
    shots: int = cfg.added(0)
    stretch: bool = cfg.added(False)
    references: Literal["distinct", "replacement"] = cfg.added("distinct")

    def __post_init__(self) -> None:
        if self.shots < 0:
            raise ValueError(f"shots={self.shots} must be 0 or above")
        if self.scale <= 0:
            raise ValueError(f"scale={self.scale} must be above 0")
        if self.sigma < 0:
            raise ValueError(f"sigma={self.sigma} must be 0 or above")

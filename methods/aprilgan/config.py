"""Configuration of ``aprilgan`` (torch-free); where the values come from stands in config.yaml."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal


@dataclass(frozen=True)
class Train:
    """``train.*``: Adam at a constant rate.  ``mosaic``: the authors' 2x2 mosaics of MVTec, see
    the README for why only ``off`` exists."""

    epochs: int = 3
    batch_size: int = 8
    lr: float = 1e-3
    betas: tuple[float, float] = (0.5, 0.999)
    mosaic: Literal["off"] = "off"

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError("train.epochs and train.batch_size must be at least 1")


@dataclass(frozen=True)
class Config:
    """Keys of ``aprilgan.*``.

    ``scale`` multiplies cosines.  ``layers``: ``stages`` = the backbone's four feature layers, or
    1-based block numbers.  ``fuse``: how the maps of the layers are joined; ``mean`` keeps them
    in [0, 1], ranks are the same.  ``sigma``: smoothing of the map, output pixels.
    """

    inference_only: ClassVar[tuple[str, ...]] = ("preset", "fuse", "sigma")

    preset: str
    scale: float
    layers: Literal["stages"] | list[int]
    fuse: Literal["mean", "sum"]
    sigma: float
    train: Train = field(default_factory=Train)

    def __post_init__(self) -> None:
        if self.scale <= 0:
            raise ValueError(f"scale={self.scale} must be above 0")
        if self.sigma < 0:
            raise ValueError(f"sigma={self.sigma} must be 0 or above")

"""Configuration of ``mvfa`` (torch-free); config.yaml says where the values come from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from zsad import config as cfg
from zsad.components.schemas import StageConfig
from zsad.types import EncoderVariant, Names


@dataclass(frozen=True)
class Loss:
    """``loss.*``.  ``image``: ``bce`` = binary cross-entropy of each stage's image probability;
    ``released`` = with a sigmoid on top of that probability, as the released code has it."""

    image: Literal["bce", "released"] = "bce"


@dataclass(frozen=True)
class Train:
    """``train.*``: Adam at a constant rate."""

    epochs: int = 50
    batch_size: int = 16
    lr: float = 1e-3
    betas: tuple[float, float] = (0.5, 0.999)

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError("train.epochs and train.batch_size must be at least 1")


@dataclass(frozen=True)
class Config(StageConfig):
    """Keys of ``mvfa.*``.

    ``layers``: ``stages`` = the backbone's four feature layers, or 1-based block numbers.
    ``mix``: share of each of the two adapters in the stream.  ``scale`` multiplies cosines.
    ``fuse``: how the maps of the stages are joined; ``mean`` keeps them in [0, 1].  ``sigma``:
    smoothing of the map, output pixels.

    ``encoder``: the forward pass that the features come from.  ``names``: which name of a category
    prompts say.  ``image_fuse``: how the image scores of the stages are joined.
    """

    inference_only: ClassVar[tuple[str, ...]] = ("preset", "fuse", "image_fuse", "sigma")

    preset: str
    layers: Literal["stages"] | list[int]
    mix: float
    scale: float
    fuse: Literal["mean", "sum"]
    sigma: float
    loss: Loss = field(default_factory=Loss)
    train: Train = field(default_factory=Train)
    encoder: EncoderVariant = cfg.added(default_factory=EncoderVariant)
    names: Names = cfg.added("spoken")
    image_fuse: Literal["mean", "sum"] = cfg.added("mean")

    def __post_init__(self) -> None:
        if not 0 <= self.mix <= 0.5:
            raise ValueError(f"mix={self.mix} must lie in 0..0.5: there are two adapters")
        if self.scale <= 0:
            raise ValueError(f"scale={self.scale} must be above 0")
        if self.sigma < 0:
            raise ValueError(f"sigma={self.sigma} must be 0 or above")

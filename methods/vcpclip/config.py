"""Config of VCP-CLIP.  Torch-free; ``config.yaml`` has the values and their origin."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from zsad.components.schemas import LayeredConfig
from zsad.data.augment import InspectedConfig
from zsad.data.mosaic import Mosaic
from zsad.types import EncoderVariant


@dataclass(frozen=True)
class Words:
    """``words.*``: what stands before the class vectors, of each label."""

    normal: str = "a photo of a good"
    anomalous: str = "a photo of a damaged"


@dataclass(frozen=True)
class Score:
    """``score.*``: the image score is made of the largest values of the two mean maps, before they
    are fused and smoothed.  ``pixels``: how many, 0: 0.745 % of them; ``join``: of both maps."""

    pixels: int = 0
    join: Literal["mean", "sum"] = "mean"


@dataclass(frozen=True)
class Post:
    """``post.*``: Gaussian smoothing of the map, sigma in output pixels (0: none)."""

    sigma: float = 8.0


@dataclass(frozen=True)
class Train:
    """``train.*``: Adam at constant rates, one for the two temperatures and one for all else.

    ``lr_on``: other rates by auxiliary dataset.  ``augment``: ``inspection`` changes every picture
    anew (:func:`zsad.data.augment.inspection`), so that none of its features can be kept.
    """

    epochs: int = 10
    batch_size: int = 32
    lr: float = 4e-5
    lr_on: dict[str, float] = field(default_factory=dict)
    temperature_lr: float = 0.01
    betas: tuple[float, float] = (0.5, 0.999)
    dropout: float = 0.1
    augment: Literal["none", "inspection"] = "none"
    mosaic: Mosaic = field(default_factory=Mosaic)

    def rate_for(self, datasets: Iterable[str]) -> float:
        """Return the rate for a training on ``datasets``."""
        return max((self.lr_on[d] for d in datasets if d in self.lr_on), default=self.lr)


@dataclass(frozen=True)
class Config(LayeredConfig, InspectedConfig):
    """Keys of ``vcpclip.*``; see the README for what each one changes."""

    # Keys below these prefixes change only inference: a checkpoint serves all their values.
    inference_only: ClassVar[tuple[str, ...]] = ("preset", "alpha", "score", "stretch", "post")

    preset: str = "default"
    layers: Literal["stages"] | list[int] = "stages"
    alpha: float = 0.8
    class_tokens: int = 2
    deep_tokens: int = 1
    use_image: bool = True
    words: Words = field(default_factory=Words)
    heads: int = 8
    temper: float = 1.0
    score: Score = field(default_factory=Score)
    stretch: bool = False
    post: Post = field(default_factory=Post)
    encoder: EncoderVariant = field(default_factory=EncoderVariant)
    train: Train = field(default_factory=Train)

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha={self.alpha} must lie in 0..1")
        if self.class_tokens < 1 or self.deep_tokens < 1 or self.heads < 1:
            raise ValueError("class_tokens, deep_tokens and heads must be at least 1")
        if self.post.sigma < 0:
            raise ValueError(f"post.sigma={self.post.sigma} must be 0 or above")
        if self.score.pixels < 0:
            raise ValueError(f"score.pixels={self.score.pixels} must be 0 or above")

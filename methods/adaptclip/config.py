"""Config of AdaptCLIP.  Torch-free; ``config.yaml`` has the values and their origin."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from zsad.components.schemas import LayeredConfig
from zsad.types import EncoderVariant


@dataclass(frozen=True)
class Post:
    """``post.*``: Gaussian smoothing of the map, sigma in output pixels (0: none)."""

    sigma: float = 4.0


@dataclass(frozen=True)
class Train:
    """``train.*``: Adam at a constant rate, one for all adapters."""

    epochs: int = 15
    batch_size: int = 8
    lr: float = 1e-3
    betas: tuple[float, float] = (0.5, 0.999)


@dataclass(frozen=True)
class Config(LayeredConfig):
    """Keys of ``adaptclip.*``; see the README for what each one changes."""

    # Keys below these prefixes change only inference: a checkpoint serves all their values.
    inference_only: ClassVar[tuple[str, ...]] = ("preset", "fusion", "shots", "post")

    preset: str = "default"
    layers: Literal["stages"] | list[int] = "stages"
    n_ctx: int = 12
    object: str = "object"
    reduction: int = 4
    mid: int = 128
    context: bool = True
    temperature: float = 0.07
    vv_blocks: int = 19
    image_token: Literal["cls", "cls_raw"] = "cls"
    fusion: Literal["avg", "harm"] = "avg"
    shots: int = 0
    post: Post = field(default_factory=Post)
    encoder: EncoderVariant = field(default_factory=EncoderVariant)
    train: Train = field(default_factory=Train)

    def __post_init__(self) -> None:
        if min(self.n_ctx, self.reduction) < 1 or self.mid < 2:
            raise ValueError("n_ctx and reduction start at 1, mid at 2")
        if self.temperature <= 0:
            raise ValueError(f"temperature={self.temperature} must be above 0")
        if self.shots < 0 or self.post.sigma < 0:
            raise ValueError("shots and post.sigma must be 0 or above")
        if not self.object.strip():
            raise ValueError("object is empty; give a word, such as 'object'")

"""Config of AnomalyCLIP.  Torch-free; ``config.yaml`` has the values and their origin."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from zsad import config as cfg
from zsad.components.schemas import Deep
from zsad.config.method_config import MethodConfig


@dataclass(frozen=True)
class Loss:
    """``loss.*``: factor of the pixel terms (the image term has factor 1)."""

    pixel_weight: float = 4.0


@dataclass(frozen=True)
class Post:
    """``post.*``: Gaussian smoothing of the map, sigma in output pixels (0: none)."""

    sigma: float = 4.0


@dataclass(frozen=True)
class Train:
    """``train.*``: Adam, constant rate."""

    epochs: int = 15
    batch_size: int = 8
    lr: float = 1e-3
    betas: tuple[float, float] = (0.5, 0.999)


@dataclass(frozen=True)
class Config(MethodConfig):
    """AnomalyCLIP's open points; see the README for what each one changes."""

    # Keys below these prefixes change only inference: a checkpoint serves all their values.
    inference_only: ClassVar[tuple[str, ...]] = ("preset", "post", "fuse")

    preset: str = "default"
    n_ctx: int = 12
    class_word: str = "object"
    state_word: str = "damaged"
    temperature: float = 0.07
    layers: Literal["last", "all"] | list[int] = "last"
    fuse: Literal["mean", "sum"] = "mean"
    vv_blocks: int = 19
    image_token: Literal["cls_raw", "cls"] = "cls_raw"
    pos_interp: Literal["bicubic_aa", "bicubic", "bilinear"] = "bicubic_aa"
    decoding: Literal["rgb", "released"] = cfg.added("rgb")
    deep_half: bool = False
    deep: Deep = field(default_factory=Deep)
    loss: Loss = field(default_factory=Loss)
    post: Post = field(default_factory=Post)
    ensemble: int = cfg.added(1)
    train: Train = field(default_factory=Train)

    def __post_init__(self) -> None:
        if self.n_ctx < 1:
            raise ValueError("n_ctx must be at least 1")
        if self.ensemble < 1:
            raise ValueError("ensemble must be at least 1")
        if self.temperature <= 0:
            raise ValueError("temperature must be above 0")

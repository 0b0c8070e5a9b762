"""Configuration of ``coop`` and ``cocoop`` (torch-free); config.yaml has the values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from zsad import config as cfg
from zsad.config.method_config import MethodConfig


@dataclass(frozen=True)
class Loss:
    """``loss.*``: factor of the pixel terms; 0 = the image's cross-entropy alone."""

    pixel_weight: float = 0.0

    def __post_init__(self) -> None:
        if self.pixel_weight < 0:
            raise ValueError(f"loss.pixel_weight={self.pixel_weight} must be 0 or above")


@dataclass(frozen=True)
class Train:
    """``train.*``: stochastic gradient descent.

    ``schedule``: ``cosine`` = ``warmup_epochs`` at the rate ``warmup_lr``, then a cosine that
    begins at ``lr``; ``constant`` = always ``lr``.  ``augment``: ``crop_flip`` = every picture is
    seen as another part of it in every epoch, mirrored or not, which encodes it anew each time.
    """

    epochs: int
    batch_size: int
    lr: float
    momentum: float
    weight_decay: float
    schedule: Literal["cosine", "constant"]
    warmup_epochs: int
    warmup_lr: float
    augment: Literal["none", "crop_flip"] = cfg.added("none")

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError("train.epochs and train.batch_size must be at least 1")
        if self.lr <= 0 or self.warmup_lr < 0:
            raise ValueError("train.lr must be above 0, train.warmup_lr 0 or above")
        if self.schedule == "cosine" and not 0 <= self.warmup_epochs < self.epochs:
            raise ValueError(
                f"train.warmup_epochs={self.warmup_epochs} must lie below train.epochs="
                f"{self.epochs}; set it to 0, or train.schedule=constant"
            )


@dataclass(frozen=True)
class Config(MethodConfig):
    """Keys of ``coop.*`` and ``cocoop.*``.

    ``n_ctx``: learned words, shared by both labels.  ``normal_word`` / ``anomalous_word``: the
    state words between them and the class name.  ``temperature`` divides cosines; ``weights``: the
    backbone's own, 0.01 for OpenAI's.  ``sigma``: smoothing of the map, output pixels.
    ``ctx_init``: words whose embeddings the learned ones begin with, as many as ``n_ctx``; empty:
    random ones.
    """

    inference_only: ClassVar[tuple[str, ...]] = ("preset", "sigma")

    preset: str
    n_ctx: int
    normal_word: str
    anomalous_word: str
    temperature: float | Literal["weights"]
    sigma: float
    train: Train
    loss: Loss = field(default_factory=Loss)
    ctx_init: str = cfg.added("")

    def __post_init__(self) -> None:
        if self.n_ctx < 1:
            raise ValueError(f"n_ctx={self.n_ctx} must be at least 1")
        if self.ctx_init and len(self.ctx_init.split()) != self.n_ctx:
            raise ValueError(
                f"ctx_init='{self.ctx_init}' must have n_ctx={self.n_ctx} words; change one of them"
            )
        if not isinstance(self.temperature, str) and self.temperature <= 0:
            raise ValueError(f"temperature={self.temperature} must be above 0")
        if self.sigma < 0:
            raise ValueError(f"sigma={self.sigma} must be 0 or above")

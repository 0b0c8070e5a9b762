"""Configuration of ``anovl`` (torch-free); config.yaml says where the values come from."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from zsad import config as cfg
from zsad.config.method_config import MethodConfig
from zsad.types import EncoderVariant, Names


@dataclass(frozen=True)
class Adapter:
    """``adapter.*``: the test-time adapter, fitted anew to every image.

    ``steps`` of AdamW at rate ``lr``; ``noise``: standard deviation of what is added to the patch
    tokens that count as anomalous; ``mix``: share of the adapted tokens; ``hard_weight``: factor
    of their loss; ``seed`` of the initial weights and the noise.  ``state``: ``fresh`` = the same
    start and the same noise for every image, which therefore do not depend on each other; ``kept``
    = as released, weights and noise are drawn anew for every image, and the optimiser goes on with
    the moments and the step count that the category's image before left.  With ``script: visa`` it
    is a plain linear layer (:mod:`zsad.methods.anovl.halves`).
    """

    enabled: bool = False
    steps: int = 5
    lr: float = 1e-3
    noise: float = 0.055
    mix: float = 0.5
    hard_weight: float = 0.5
    seed: int = 0
    state: Literal["fresh", "kept"] = cfg.added("fresh")

    def __post_init__(self) -> None:
        if self.steps < 0 or self.lr <= 0 or self.noise < 0:
            raise ValueError("adapter.steps and adapter.noise must not be negative, lr above 0")
        if not 0 <= self.mix <= 1:
            raise ValueError(f"adapter.mix={self.mix} must lie in 0..1")


@dataclass(frozen=True)
class Config(MethodConfig):
    """Keys of ``anovl.*``.

    ``domain``: which domain words the templates use; ``auto`` follows the category's domain,
    ``industrial`` is the paper's for all.  ``vv_blocks``: length of the v-v path in 24ths of the
    encoder, counted from its end.  ``temperature`` divides cosines.  ``pool``: side of the mean
    filter on the patch grid, 1 = off.  ``sigma``: further smoothing, output pixels.

    ``encoder``: the forward pass that the features come from.  ``names``: which name of a category
    prompts say; ``released`` also takes the script's list of textures.  ``vv_last``: length of the
    v-v path in blocks, counted from the encoder's end; 0: as ``vv_blocks`` says.  ``views``: of
    the image, whose scores are averaged; each is a forward pass.  ``script``: which of the authors'
    two scripts is followed: ``mvtec`` sees the whole picture in a square, ``visa`` a left and a
    right square (and no views), with another adapter; ``target``: the one for VisA on the dataset
    ``visa`` and the other one everywhere else, and on pictures of no dataset.
    """

    preset: str
    domain: Literal["auto", "industrial"]
    vv_blocks: int
    temperature: float
    pool: int
    sigma: float
    adapter: Adapter = field(default_factory=Adapter)
    encoder: EncoderVariant = cfg.added(default_factory=EncoderVariant)
    names: Names = cfg.added("spoken")
    vv_last: int = cfg.added(0)
    views: Literal[1, 22] = cfg.added(1)
    script: Literal["mvtec", "visa", "target"] = cfg.added("mvtec")

    def for_target(self, dataset: str) -> Config:
        """Choose the script."""
        if self.script != "target":
            return self
        return replace(self, script="visa" if dataset == "visa" else "mvtec")

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"temperature={self.temperature} must be above 0")
        if self.pool < 1 or self.pool % 2 == 0:
            raise ValueError(f"pool={self.pool} must be odd: 1, 3, 5")
        if self.sigma < 0:
            raise ValueError(f"sigma={self.sigma} must be 0 or above")
        if self.vv_last < 0:
            raise ValueError(f"vv_last={self.vv_last} must be 0 or above")
        if not 1 <= self.vv_blocks <= 24:
            raise ValueError(f"vv_blocks={self.vv_blocks} must lie in 1..24")

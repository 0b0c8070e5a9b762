"""Configuration of ``anovl`` (torch-free); where the values come from stands in config.yaml."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from zsad.config.method_config import MethodConfig


@dataclass(frozen=True)
class Adapter:
    """``adapter.*``: the test-time adapter, fitted anew to every image.

    ``steps`` of AdamW at rate ``lr``; ``noise``: standard deviation of what is added to the patch
    tokens that count as anomalous; ``mix``: share of the adapted tokens; ``hard_weight``: factor
    of their loss; ``seed`` of the initial weights and the noise, the same for every image.
    """

    enabled: bool = False
    steps: int = 5
    lr: float = 1e-3
    noise: float = 0.055
    mix: float = 0.5
    hard_weight: float = 0.5
    seed: int = 0

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
    """

    preset: str
    domain: Literal["auto", "industrial"]
    vv_blocks: int
    temperature: float
    pool: int
    sigma: float
    adapter: Adapter = field(default_factory=Adapter)

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"temperature={self.temperature} must be above 0")
        if self.pool < 1 or self.pool % 2 == 0:
            raise ValueError(f"pool={self.pool} must be odd: 1, 3, 5")
        if self.sigma < 0:
            raise ValueError(f"sigma={self.sigma} must be 0 or above")
        if not 1 <= self.vv_blocks <= 24:
            raise ValueError(f"vv_blocks={self.vv_blocks} must lie in 1..24")

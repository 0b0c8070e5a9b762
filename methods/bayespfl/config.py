"""Config of Bayes-PFL.  Torch-free; values and their origin stand in ``config.yaml``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from zsad.components.schemas import LayeredConfig
from zsad.data.augment import InspectedConfig
from zsad.data.mosaic import Mosaic
from zsad.types import EncoderVariant


@dataclass(frozen=True)
class Sampling:
    """``sampling.*``: the draws that scores are means over.

    ``noise``: ``fixed``, the same for every image; ``per_image``, those of the context by the
    image's name; ``mean``, none at all, and one draw of the means; ``released``, one stream per
    category in the order of its images, whose first image draws the states of all.
    """

    noise: Literal["fixed", "mean", "per_image", "released"] = "fixed"
    draws: int = 10
    seed: int = 0

    @property
    def count(self) -> int:
        """Draws of an image."""
        return 1 if self.noise == "mean" else self.draws


@dataclass(frozen=True)
class Image:
    """``image.*``: the image score.

    ``head``: the image vector is compared as it is (``stage1``), or joined with the patches
    (``stage2``).  ``pixels``: how many of the largest of the unsmoothed map count, 0: 0.745 % of
    them; ``small_pixels``: the same for classes of small defects, 0: no exception.  ``map_share``:
    of the map in the score.
    """

    head: Literal["stage1", "stage2"] = "stage2"
    pixels: int = 0
    small_pixels: int = 0
    map_share: float = 0.5


@dataclass(frozen=True)
class Post:
    """``post.*``: Gaussian smoothing of the map, sigma in output pixels (0: none)."""

    sigma: float = 8.0


@dataclass(frozen=True)
class Loss:
    """``loss.*``: factor of the divergences.  ``state_det``: the log-determinant of the states'
    flows counts in ``full``, or divided by the ``batch`` (released code)."""

    state_det: Literal["full", "batch"] = "full"
    kl_weight: float = 0.01


@dataclass(frozen=True)
class Train:
    """``train.*``: Adam; stage 1 with warm-up and cosine by step, the image head at ``lr``.

    ``prompt_lr``: of prompts, flows and states.  ``augment``: ``inspection`` changes every picture
    anew (:func:`zsad.data.augment.inspection`), so that none of its features can be kept.
    """

    epochs: int = 20
    image_epochs: int = 5
    batch_size: int = 32
    lr: float = 1e-4
    prompt_lr: float = 1e-3
    temperature_lr: float = 0.01
    betas: tuple[float, float] = (0.5, 0.999)
    warmup: float = 0.1
    augment: Literal["none", "inspection"] = "none"
    mosaic: Mosaic = field(default_factory=Mosaic)


@dataclass(frozen=True)
class Config(LayeredConfig, InspectedConfig):
    """Keys of ``bayespfl.*``; see the README for what each one changes."""

    # Keys below these prefixes change only inference: a checkpoint serves all their values.
    inference_only: ClassVar[tuple[str, ...]] = (
        "preset",
        "sampling",
        "image",
        "stretch",
        "post",
    )

    preset: str = "default"
    layers: Literal["stages"] | list[int] = "stages"
    bank: int = 3
    context_tokens: int = 5
    state_tokens: int = 5
    flows: int = 10
    names: Literal["spoken", "key"] = "spoken"
    heads: int = 4
    sampling: Sampling = field(default_factory=Sampling)
    image: Image = field(default_factory=Image)
    stretch: bool = False
    post: Post = field(default_factory=Post)
    encoder: EncoderVariant = field(default_factory=EncoderVariant)
    loss: Loss = field(default_factory=Loss)
    train: Train = field(default_factory=Train)

    def __post_init__(self) -> None:
        if (
            min(
                self.bank,
                self.context_tokens,
                self.state_tokens,
                self.flows,
                self.heads,
            )
            < 1
        ):
            raise ValueError("bank, context_tokens, state_tokens, flows and heads start at 1")
        if self.sampling.draws < 1:
            raise ValueError(f"sampling.draws={self.sampling.draws} must be at least 1")
        if self.post.sigma < 0:
            raise ValueError(f"post.sigma={self.post.sigma} must be 0 or above")
        if not 0 <= self.image.map_share <= 1:
            raise ValueError(f"image.map_share={self.image.map_share} must lie in 0..1")
        if min(self.image.pixels, self.image.small_pixels) < 0:
            raise ValueError("image.pixels and image.small_pixels must be 0 or above")

"""Configuration of ``aaclip`` (torch-free); config.yaml says where the values come from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from zsad.config.method_config import MethodConfig
from zsad.types import EncoderVariant, Names


@dataclass(frozen=True)
class Map:
    """``map.*``.  ``scale``: the probability of the mean difference of the stages' logits, or
    (a + 1 - n) / 2 of 100 x cosine, added up over the stages (released, unbounded)."""

    scale: Literal["probability", "released"] = "probability"


@dataclass(frozen=True)
class Score:
    """``score.*``.  ``norm``: map and image value as they are, or stretched over the test images of
    the category (released)."""

    norm: Literal["none", "category"] = "none"


@dataclass(frozen=True)
class Image:
    """``image.*``.  ``domain_rule``: one image score for all, or the map's maximum alone for
    medical categories (released, where scores are stretched)."""

    domain_rule: Literal["same", "released"] = "same"


@dataclass(frozen=True)
class Post:
    """``post.*``: Gaussian smoothing of the map on the patch grid, sigma in patches: 1 for
    industrial and 1.5 for medical categories (``domain``), or a number (0: none)."""

    sigma: Literal["domain"] | float = "domain"

    def __post_init__(self) -> None:
        if not isinstance(self.sigma, str) and self.sigma < 0:
            raise ValueError(f"post.sigma={self.sigma} must be 0 or above")


@dataclass(frozen=True)
class Stage1:
    """``stage1.*``: the text adapters, Adam.

    ``attention``: values attend along the tokens of an image, or along the batch (released: every
    patch to the same place in the other images).  ``layers``: losses of all stages, or of the last.
    ``orthogonal``: factor of the squared cosine of the two anchors.
    """

    attention: Literal["tokens", "batch"] = "tokens"
    layers: Literal["all", "last"] = "all"
    orthogonal: float = 0.1
    epochs: int = 5
    batch_size: int = 16
    lr: float = 1e-5

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError("stage1.epochs and stage1.batch_size must be at least 1")


@dataclass(frozen=True)
class Stage2:
    """``stage2.*``: the image adapters, Adam; the rate is halved after ``halve`` steps."""

    epochs: int = 20
    batch_size: int = 2
    lr: float = 5e-4
    halve: tuple[int, ...] = (16000, 32000)

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError("stage2.epochs and stage2.batch_size must be at least 1")


@dataclass(frozen=True)
class Train:
    """``train.*``.  ``augment``: turned, shifted, mirrored and recoloured pictures, anew in every
    epoch, which no store can keep."""

    augment: bool = False
    betas: tuple[float, float] = (0.5, 0.999)


@dataclass(frozen=True)
class Config(MethodConfig):
    """Keys of ``aaclip.*``.

    ``layers``: ``stages`` = the backbone's four feature layers, or 1-based block numbers.
    ``text_weight``, ``image_weight``: share of the adapters in the first ``text_until`` and
    ``image_until`` blocks (auto: a quarter of the text tower; up to the first stage).  ``relu``:
    leaky ReLUs behind the projections.  ``scale`` multiplies cosines.  ``names``: which name of a
    category prompts say, the spoken one or the authors' phrase.  ``encoder``: the forward pass.
    """

    inference_only: ClassVar[tuple[str, ...]] = ("preset", "map", "score", "image", "post")

    preset: str
    layers: Literal["stages"] | list[int]
    text_weight: float
    image_weight: float
    text_until: Literal["auto"] | int
    image_until: Literal["auto"] | int
    relu: bool
    scale: float
    names: Names
    map: Map = field(default_factory=Map)
    score: Score = field(default_factory=Score)
    image: Image = field(default_factory=Image)
    post: Post = field(default_factory=Post)
    stage1: Stage1 = field(default_factory=Stage1)
    stage2: Stage2 = field(default_factory=Stage2)
    train: Train = field(default_factory=Train)
    encoder: EncoderVariant = field(default_factory=EncoderVariant)

    def __post_init__(self) -> None:
        for key in ("text_weight", "image_weight"):
            if not 0 <= getattr(self, key) <= 1:
                raise ValueError(f"{key}={getattr(self, key)} must lie in 0..1")
        for key in ("text_until", "image_until"):
            if getattr(self, key) != "auto" and getattr(self, key) < 0:
                raise ValueError(f"{key}={getattr(self, key)} must be 0 or above")
        if self.scale <= 0:
            raise ValueError(f"scale={self.scale} must be above 0")
        if self.image.domain_rule == "released" and self.score.norm != "category":
            raise ValueError("image.domain_rule=released goes with score.norm=category")

"""Configuration of ``adaclip`` (torch-free); config.yaml says where the values come from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from zsad.components.schemas import LayeredConfig
from zsad.data.mosaic import Mosaic, MosaicConfig
from zsad.types import EncoderVariant, Names


@dataclass(frozen=True)
class Prompts:
    """``prompts.*``: learned tokens in the first blocks of the towers.

    ``type``: static ones (S), one set for all images; dynamic ones (D), made of the image's class
    token; or their sum (SD).  ``branch``: the towers that get them, visual (V), text (L) or both.
    ``length`` tokens in each of the first ``depth`` blocks.  ``half``: rounded to half precision.
    """

    type: Literal["S", "D", "SD"] = "SD"
    branch: Literal["VL", "V", "L", "none"] = "VL"
    length: int = 5
    depth: int = 4
    half: bool = False

    def __post_init__(self) -> None:
        if self.length < 1 or self.depth < 1:
            raise ValueError("prompts.length and prompts.depth must be at least 1")


@dataclass(frozen=True)
class Fusion:
    """``hsf.*``: hybrid semantic fusion, or ``none``.

    ``clusters`` of the most anomalous patches, five for each; ``alpha``: their share of the image's
    vector; ``seed`` of the clustering, the same for every image.  ``order`` of the patches, on
    which the first centres depend: by place, or by probability (released, where two patches that
    are nearly equal may change places, and the clusters with them).
    """

    kind: Literal["top_clusters", "none"] = "top_clusters"
    clusters: int = 20
    alpha: float = 0.2
    seed: int = 111
    order: Literal["place", "probability"] = "place"

    def __post_init__(self) -> None:
        if self.clusters < 1:
            raise ValueError(f"hsf.clusters={self.clusters} must be at least 1")
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"hsf.alpha={self.alpha} must lie in 0..1")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"hsf.seed={self.seed} must lie in 0..2**32-1")


@dataclass(frozen=True)
class Post:
    """``post.*``: Gaussian smoothing of the map, sigma in output pixels (0: none)."""

    sigma: float = 4.0

    def __post_init__(self) -> None:
        if self.sigma < 0:
            raise ValueError(f"post.sigma={self.sigma} must be 0 or above")


@dataclass(frozen=True)
class Loss:
    """``loss.*``.  ``dice``: samples are whole images, or every row of one (released, where the
    batch axis of a batch of one is squeezed away)."""

    dice: Literal["image", "row"] = "image"


@dataclass(frozen=True)
class Train:
    """``train.*``: AdamW at a constant rate."""

    epochs: int = 5
    batch_size: int = 1
    lr: float = 0.01
    betas: tuple[float, float] = (0.5, 0.999)
    weight_decay: float = 0.01
    mosaic: Mosaic = field(default_factory=Mosaic)

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError("train.epochs and train.batch_size must be at least 1")


@dataclass(frozen=True)
class Config(LayeredConfig, MosaicConfig):
    """Keys of ``adaclip.*``.

    ``layers``: ``stages`` = the backbone's four feature layers, or 1-based block numbers.
    ``scale`` multiplies cosines.  ``names``: which name of a category prompts say.  ``encoder``:
    the forward pass that the features come from.
    """

    inference_only: ClassVar[tuple[str, ...]] = ("preset", "post")

    preset: str
    layers: Literal["stages"] | list[int]
    scale: float
    names: Names
    prompts: Prompts = field(default_factory=Prompts)
    hsf: Fusion = field(default_factory=Fusion)
    loss: Loss = field(default_factory=Loss)
    post: Post = field(default_factory=Post)
    train: Train = field(default_factory=Train)
    encoder: EncoderVariant = field(default_factory=EncoderVariant)

    def __post_init__(self) -> None:
        if self.scale <= 0:
            raise ValueError(f"scale={self.scale} must be above 0")
        if self.preset == "released" and self.prompts.type == "D" and "L" in self.prompts.branch:
            raise ValueError(
                f"prompts.type=D with prompts.branch={self.prompts.branch}: the released code "
                "fails there; use preset=default"
            )

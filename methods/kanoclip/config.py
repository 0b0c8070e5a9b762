"""Config of KAnoCLIP.  Torch-free; ``config.yaml`` has the values and their origin."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import reduce
from typing import Any, ClassVar, Literal, cast

from zsad.config import added
from zsad.config.method_config import CaptionSource, MethodConfig


@dataclass(frozen=True)
class KnowledgeBase:
    """``knpl.kb.*``: the texts that pull the abnormal prompts (training only).

    ``vqa``: image-specific sentences from cached answers of a vision model (``endpoint``), from
    the training masks (``mask``), the first where cached and else the second (``auto``), or none
    (``off``).  ``vqa_images``: which training images are described.  ``weighting``:
    ``per_prompt`` is Eq. 3, ``per_source`` gives both sources the same weight.  ``n``: general
    descriptions of a category, the bank's first ones; ``m``: answers of a vision model about an
    image, one description each (Sec. 2.2.1).
    """

    vqa: Literal["auto", "endpoint", "mask", "off"] = "auto"
    vqa_images: Literal["anomalous", "all"] = "anomalous"
    weighting: Literal["per_prompt", "per_source"] = "per_prompt"
    n: int = added(5)
    m: int = added(1)

    def __post_init__(self) -> None:
        if self.n < 0 or self.m < 1:
            raise ValueError("knpl.kb.n must be at least 0, knpl.kb.m at least 1")


@dataclass(frozen=True)
class Prompts:
    """``knpl.*``: learnable prompts and the knowledge-driven loss (Eqs. 1-3)."""

    enabled: bool = True
    n_ctx: int = 12
    kd_form: Literal["hinge", "kgcoop"] = "hinge"
    kd_margin: float = 0.0
    kb: KnowledgeBase = KnowledgeBase()


@dataclass(frozen=True)
class VV:
    """``vv.*``: the v-v path over the last ``blocks`` of 24 blocks (Eqs. 4-8)."""

    enabled: bool = True
    blocks: int = 18


@dataclass(frozen=True)
class BiCMCI:
    """``bicmci.*``: cross-modal interaction at the four stages (Eq. 9).

    ``width`` 0: a quarter of the encoder's width (256 on the paper's), a multiple of ``heads``.
    """

    enabled: bool = True
    width: int = 0
    heads: int = 8
    groups: int = 4
    stride: int = 4
    deformable: bool = True
    directions: Literal["both", "t2v", "v2t", "none"] = "both"
    share_stages: bool = False
    fuse: Literal["mean_prob", "softmax_of_mean_logit"] = "mean_prob"

    def __post_init__(self) -> None:
        if min(self.heads, self.groups, self.stride) < 1 or self.width < 0:
            raise ValueError("bicmci.heads, groups and stride must be at least 1, width at least 0")
        if self.width % self.heads or self.heads % self.groups:
            raise ValueError("bicmci.width must divide by heads, and heads by groups")

    def width_for(self, encoder: int) -> int:
        """The width of the interaction beside an encoder of width ``encoder``."""
        return self.width or max(1, round(encoder / 4 / self.heads)) * self.heads


@dataclass(frozen=True)
class Score:
    """``score.*``: Eq. 12, halved to stay in [0, 1]."""

    temperature: float = 0.07
    scale: float = 100.0
    max_grad: bool = True


@dataclass(frozen=True)
class Loss:
    """``loss.*``: alpha, beta, gamma of Eq. 13 and where the local loss applies."""

    knowledge: float = 1.0
    image: float = 1.0
    local: float = 1.0
    local_on: Literal["fused", "stages"] = "fused"


@dataclass(frozen=True)
class Post:
    """``post.*``: Gaussian smoothing, sigma in output pixels (0: none)."""

    sigma: float = 4.0


@dataclass(frozen=True)
class Train:
    """``train.*``: Adam, constant rates."""

    epochs: int = 15
    batch_size: int = 8
    lr_context: float = 1e-3
    lr_modules: float = 1e-4
    betas: tuple[float, float] = (0.5, 0.999)
    gradient_clip: float = 1.0


@dataclass(frozen=True)
class Config(MethodConfig):
    """KAnoCLIP's open points; see the README for what each one changes."""

    # Keys below these prefixes change only inference: a checkpoint serves all their values.
    inference_only: ClassVar[tuple[str, ...]] = ("preset",)

    prompt_kind: ClassVar[str] = "kanoclip"  # texts of the prompt bank that training reads

    preset: str = "default"
    knpl: Prompts = Prompts()
    vv: VV = VV()
    global_token: Literal["original", "vv"] = "original"
    bicmci: BiCMCI = field(default_factory=BiCMCI)
    conv_adapter: Literal["pointwise", "conv1d", "off"] = "pointwise"
    conv_adapter_residual: bool = False
    d_bottle: int = added(0)  # width of Eq. 11's bottleneck; 0: half of the embedding's
    score: Score = Score()
    loss: Loss = Loss()
    post: Post = Post()
    train: Train = Train()

    def __post_init__(self) -> None:
        if self.d_bottle < 0:
            raise ValueError("d_bottle must be at least 0 (0: half of the embedding's width)")

    def own_readings(self) -> dict[str, Any]:
        """The value of every key of :data:`OWN_READINGS`; records and the manifest hold it."""
        found = {key: reduce(getattr, key.split("."), cast(Any, self)) for key in OWN_READINGS}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in found.items()}

    @property
    def caption_source(self) -> CaptionSource:
        """Where sentences about training images come from; ``off`` when nothing reads them."""
        return self.knpl.kb.vqa if self.knpl.enabled and self.loss.knowledge else "off"

    @property
    def caption_all(self) -> bool:
        """Whether normal training images are described, too."""
        return self.knpl.kb.vqa_images == "all"

    @property
    def caption_count(self) -> int:
        """Answers of a vision model about an image that are read: m of Sec. 2.2.1."""
        return self.knpl.kb.m


OWN_READINGS = (
    "knpl.kb.vqa",
    "knpl.kb.vqa_images",
    "knpl.kb.weighting",
    "vv.blocks",
    "global_token",
    "bicmci.width",
    "bicmci.heads",
    "bicmci.groups",
    "bicmci.stride",
    "bicmci.share_stages",
    "bicmci.fuse",
    "conv_adapter",
    "conv_adapter_residual",
    "d_bottle",
    "score.temperature",
    "score.scale",
    "score.max_grad",
    "loss.local_on",
    "post.sigma",
    "train.epochs",
    "train.batch_size",
    "train.lr_context",
    "train.lr_modules",
    "train.gradient_clip",
)
"""Keys at which the paper is silent or can be read in several ways."""

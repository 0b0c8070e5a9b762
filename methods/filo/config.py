"""Config of FiLo.  Torch-free; ``config.yaml`` has the values and their origin."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from zsad import config as cfg
from zsad.data.mosaic import Mosaic, MosaicConfig

KERNEL = re.compile(r"(\d{1,4})x(\d{1,4})")


@dataclass(frozen=True)
class Encoder:
    """``encoder.*``: the forward pass that the features come from (default: the common one).

    ``activation``: the one the weights were trained with, exact GELU, or as released: exact GELU
    wherever the image size differs from the weights' own, because the model is rebuilt then.
    ``decoding``: pictures are resized as RGB, or as released in the mode that their file has.
    """

    pos_interp: Literal["bicubic_aa", "bicubic", "bilinear"] = "bicubic_aa"
    activation: Literal["weights", "gelu", "released"] = "weights"
    decoding: Literal["rgb", "released"] = cfg.added("rgb")


@dataclass(frozen=True)
class Prompt:
    """``prompt.*``: FG-Des.

    ``learner``: context conditioned on the image (cocoop), learned but fixed (coop), or the
    hand-written template (fixed).  ``details``: descriptions and generic states (fine), generic
    states only, or none ("normal" / "anomalous", which a learner replaces altogether).
    ``positions``: the position of the best box (all nine without one), always all nine, or
    none.  ``names``: how a category is spoken: by its dataset's name, as the paper's list of
    descriptions says it (pcb, chewinggum), or so as released, where categories that are spoken
    alike share one table of prompts.
    """

    learner: Literal["cocoop", "coop", "fixed"] = "cocoop"
    n_ctx: int = 12
    class_name: bool = True
    details: Literal["fine", "generic", "none"] = "fine"
    positions: Literal["boxes", "all", "none"] = "boxes"
    names: Literal["dataset", "paper", "released"] = "dataset"

    def __post_init__(self) -> None:
        if self.n_ctx < 1:
            raise ValueError("prompt.n_ctx must be at least 1")


@dataclass(frozen=True)
class Branches:
    """``branches.*``: what projects the ordinary (q-k) and the v-v stages (Table 13)."""

    qkv: Literal["linear", "mmci", "none"] = "linear"
    vv: Literal["linear", "mmci", "none"] = "mmci"

    def __post_init__(self) -> None:
        if self.qkv == "none" and self.vv == "none":
            raise ValueError("branches.qkv and branches.vv cannot both be none")


@dataclass(frozen=True)
class Mmci:
    """``mmci.*``: kernels as ROWSxCOLUMNS; ``fusion``: the two readings of Eq. 2; ``fold``: run
    the parallel convolutions as one (auto: where that saves multiplications)."""

    kernels: tuple[str, ...] = ("1x1", "3x3", "5x5", "7x7", "1x5", "5x1")
    fusion: Literal["sum_then_softmax", "softmax_then_sum"] = "sum_then_softmax"
    fold: Literal["auto", "always", "never"] = "auto"

    def __post_init__(self) -> None:
        if not self.kernels:
            raise ValueError("mmci.kernels must name at least one kernel")
        if len(set(self.kernels)) < len(self.kernels):
            raise ValueError("mmci.kernels names a kernel twice")
        for text in self.kernels:
            found = KERNEL.fullmatch(text)
            if not found or any(int(side) % 2 == 0 for side in found.groups()):
                raise ValueError(
                    f"mmci.kernels: '{text}' is not ROWSxCOLUMNS with odd sides, such as 3x3 or 1x5"
                )


@dataclass(frozen=True)
class Adapter:
    """``adapter.*``: Algorithm 1 and Table 14."""

    kind: Literal["bottleneck", "linear", "none"] = "bottleneck"
    residual: bool = False
    bias: bool = True


@dataclass(frozen=True)
class Grounding:
    """``grounding.*``: where boxes come from.

    ``enabled``: ``auto`` goes without boxes, and says so, where the detector cannot be had;
    ``true`` makes that an error; ``false`` asks for none.  ``file``: boxes found before (JSON).
    ``detector``: transformers, groundingdino (groundingdino-py), or ``module:function``.
    ``weights``: stock (the published weights, from a local cache), a file, or files by target
    (:mod:`zsad.checkpoints.sources`); ``text_encoder``: folder of BERT's vocabulary and
    configuration.  A box needs a score above ``box_threshold`` and less than ``area`` of the
    image.  ``phrase_filter``: its phrase must hold an asked word.
    """

    enabled: Literal["auto"] | bool = "auto"
    file: str | None = None
    detector: str = cfg.replaced("transformers", was="groundingdino")
    weights: str | dict[str, str] = "stock"
    text_encoder: str | None = None
    box_threshold: float = 0.25
    text_threshold: float = 0.25
    area: float = 0.7
    phrase_filter: bool = True
    short_side: int = 518
    max_side: int = 1333
    cache: bool = True


@dataclass(frozen=True)
class BoxUse:
    """``boxes.*``: what boxes do to the map.  ``factor``: lambda, applied outside their union.
    ``arithmetic``: exact, or the released integer rectangles and nine-cell table.  ``order``: after
    the Gaussian, or before it (section 3.1)."""

    factor: float = 0.7
    arithmetic: Literal["exact", "released"] = "exact"
    order: Literal["after_blur", "before_blur"] = cfg.added("after_blur")

    def __post_init__(self) -> None:
        if not 0 <= self.factor <= 1:
            raise ValueError("boxes.factor must lie in 0..1")


@dataclass(frozen=True)
class Score:
    """``score.*``: the image score (Eq. 1, halved), or the released one without a softmax.
    ``max_from``: the map maximum after (filtered) or before (unfiltered) box suppression."""

    kind: Literal["softmax_plus_max", "released"] = "softmax_plus_max"
    max_from: Literal["filtered", "unfiltered"] = "filtered"
    temperature: float = 0.07


@dataclass(frozen=True)
class Post:
    """``post.*``: smoothing in output pixels; ``norm``: mean of the stages, or with a per-image
    min-max on top (ablation)."""

    blur: Literal["gaussian", "kernel3", "none"] = "gaussian"
    sigma: float = 4.0
    norm: Literal["mean", "minmax"] = "mean"


@dataclass(frozen=True)
class Loss:
    """``loss.*``: ``maps``: every stage's map, or their mean (Eq. 9); ``dice``: linear or squared
    denominators (Eq. 8); ``dice_rows``: released, every pixel row is a sample; ``image``: cross
    entropy of the two similarities, or of the image score with the map maximum (Eqs. 5, 6)."""

    maps: Literal["stages", "fused"] = "stages"
    dice: Literal["linear", "squared"] = "linear"
    dice_rows: bool = False
    image: Literal["similarity", "score"] = "similarity"


@dataclass(frozen=True)
class Rates:
    """``lr.*``: learning rates of the prompt learners, the projections and the adapter."""

    prompts: float = 1e-3
    heads: float = 1e-4
    adapter: float = 1e-5


@dataclass(frozen=True)
class Train:
    """``train.*``: AdamW at a constant rate; prompts and projections first, then the adapter.
    ``joint_global``: the image loss and the adapter take part in the first phase, too."""

    epochs: int = 15
    adapter_epochs: int = 5
    batch_size: int = 1
    betas: tuple[float, float] = (0.5, 0.999)
    weight_decay: float = 0.01
    joint_global: bool = False
    mosaic: Mosaic = field(default_factory=Mosaic)


@dataclass(frozen=True)
class Config(MosaicConfig):
    """FiLo's open points; the README says what each one changes."""

    # Keys below these prefixes change only inference: a checkpoint serves all their values.
    inference_only: ClassVar[tuple[str, ...]] = (
        "preset",
        "grounding",
        "boxes",
        "score",
        "post",
        "mmci.fold",
        "prompt.positions",
    )

    # Records say which boxes there were; a folded convolution is the same one.
    cosmetic: ClassVar[tuple[str, ...]] = (
        *("grounding.enabled", "grounding.detector", "grounding.cache", "mmci.fold"),
    )

    prompt_kind: ClassVar[str] = "filo"  # texts of the prompt bank that prompts are made of

    preset: str = "default"
    descriptions: str = "bank"
    taps: Literal["distinct", "released_alias"] = "distinct"
    vv_stages: tuple[int, ...] = ()
    vv_blocks: int = 18
    logit_scale: float = 100.0
    text_norm: Literal["row", "frobenius"] = "row"
    meta_input: Literal["raw", "adapted"] = "raw"
    encoder: Encoder = field(default_factory=Encoder)
    prompt: Prompt = field(default_factory=Prompt)
    branches: Branches = field(default_factory=Branches)
    mmci: Mmci = field(default_factory=Mmci)
    adapter: Adapter = field(default_factory=Adapter)
    grounding: bool | str | Grounding = field(default_factory=Grounding)
    boxes: BoxUse = field(default_factory=BoxUse)
    score: Literal["softmax_plus_max", "released"] | Score = field(default_factory=Score)
    post: Post = field(default_factory=Post)
    loss: Loss = field(default_factory=Loss)
    lr: Rates = field(default_factory=Rates)
    train: Train = field(default_factory=Train)

    @property
    def own_words(self) -> str:
        """The file that ``descriptions`` names."""
        return self.descriptions if self.descriptions.endswith((".yaml", ".yml")) else ""

    def __post_init__(self) -> None:
        # Short forms: filo.grounding=none|FILE and filo.score=released
        object.__setattr__(self, "grounding", _grounding(self.grounding))
        if isinstance(self.score, str):
            released = self.score == "released"
            short = Score("released", "unfiltered") if released else Score()
            object.__setattr__(self, "score", short)
        if self.vv_blocks < 1:
            raise ValueError("vv_blocks must be at least 1")


def _grounding(value: bool | str | Grounding) -> Grounding:
    if isinstance(value, Grounding):
        return value
    if isinstance(value, bool):
        return Grounding(enabled=value)
    if value.lower() in ("none", "off", "no", ""):
        return Grounding(enabled=False)
    if value == "auto":
        return Grounding()
    return Grounding(file=value)

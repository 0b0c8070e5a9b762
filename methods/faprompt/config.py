"""Config of FAPrompt.  Torch-free; ``config.yaml`` has the values and their origin."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from zsad import config as cfg
from zsad.components.schemas import Deep
from zsad.config.method_config import MethodConfig


@dataclass(frozen=True)
class Cap:
    """``cap.*``: compound abnormality prompting (section 3.3).

    ``len``: learned normal and abnormal tokens.  Switched off, one normal and one abnormal
    prompt with ``base_len`` learned tokens each and nothing shared remain (AnomalyCLIP's pair).
    """

    enabled: bool = True
    n_prompts: int = 10
    len: tuple[int, int] = (5, 2)
    base_len: int = 12
    state_word: str = "damaged"
    class_word: str = "object"
    orth_weight: float = 0.1

    def __post_init__(self) -> None:
        if self.n_prompts < 1 or min(*self.len, self.base_len) < 1:
            raise ValueError("cap.n_prompts, cap.len and cap.base_len must be at least 1")


@dataclass(frozen=True)
class Dap:
    """``dap.*``: data-dependent abnormality prior (section 3.4).  ``hidden``: width of the
    prior network's hidden layer, 0 = a sixteenth of its input."""

    enabled: bool = True
    top_k: int = 10
    hidden: int = 0
    prior_weight: float = 1.0

    def __post_init__(self) -> None:
        if self.top_k < 1 or self.hidden < 0:
            raise ValueError("dap.top_k must be at least 1 and dap.hidden at least 0")


@dataclass(frozen=True)
class Loss:
    """``loss.*``: ``weights`` of the pixel terms of the first and the second pass; ``image``:
    focal loss on the score, or the released cross-entropy plus focal of sigmoid(score)."""

    weights: tuple[float, float] = (1.0, 0.5)
    image: Literal["focal_score", "released"] = "focal_score"


@dataclass(frozen=True)
class Score:
    """``score.*``: ``max_weights`` mix the map maxima of the first and the second pass."""

    max_weights: tuple[float, float] = (0.5, 0.5)

    def __post_init__(self) -> None:
        if min(self.max_weights) < 0 or not 0.999 < sum(self.max_weights) < 1.001:
            raise ValueError("score.max_weights must be two non-negative numbers that sum to 1")


@dataclass(frozen=True)
class Post:
    """``post.*``: Gaussian smoothing of the map, sigma in output pixels (0: none)."""

    sigma: float = 10.0


@dataclass(frozen=True)
class Train:
    """``train.*``: Adam, constant rate."""

    epochs: int = 7
    batch_size: int = 8
    lr: float = 1e-3
    betas: tuple[float, float] = (0.5, 0.999)


@dataclass(frozen=True)
class Config(MethodConfig):
    """FAPrompt's open points; see the README for what each one changes."""

    # Keys below these prefixes change only inference: a checkpoint serves all their values.
    inference_only: ClassVar[tuple[str, ...]] = ("preset", "post")

    preset: str = "default"
    topk: Literal["paper", "released"] = "paper"
    temperature: float = 0.07
    vv_blocks: int = 19
    image_token: Literal["cls_raw", "cls"] = "cls_raw"
    pos_interp: Literal["bicubic_aa", "bicubic", "bilinear"] = "bicubic_aa"
    decoding: Literal["rgb", "released"] = cfg.added("rgb")
    deep_half: bool = False
    deep: Deep = field(default_factory=Deep)
    cap: Cap = field(default_factory=Cap)
    dap: Dap = field(default_factory=Dap)
    loss: Loss = field(default_factory=Loss)
    score: Score = field(default_factory=Score)
    post: Post = field(default_factory=Post)
    train: Train = field(default_factory=Train)

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError("temperature must be above 0")

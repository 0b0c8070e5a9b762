"""Configuration of ``alfa`` (torch-free).  The README says what each reading means."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from zsad.config.method_config import MethodConfig


@dataclass(frozen=True)
class Prompts:
    """``labels``: ``both``, or ``normal_only``, the one-class first row of Table 2."""

    labels: Literal["both", "normal_only"]


@dataclass(frozen=True)
class Template:
    """``grid``: how many domains, states and details are combined, at most (6, 4, 3).
    ``domain``: the word lists; ``auto`` takes the category's own domain."""

    grid: tuple[int, int, int]
    domain: Literal["auto", "industrial", "medical"]

    def __post_init__(self) -> None:
        if any(not 1 <= n <= most for n, most in zip(self.grid, (6, 4, 3))):
            raise ValueError(f"template.grid={list(self.grid)} must lie within 1..[6, 4, 3]")


@dataclass(frozen=True)
class Llm:
    """``bank``: a YAML file of the prompt bank's form, '' = the bundled bank.  ``suffix``: the
    descriptions begin with "An abnormal (A normal) image of {class}"; without it a model's texts
    are needed that were asked for without it.  ``limit``: at most so many
    per label."""

    enabled: bool
    bank: str
    suffix: bool
    limit: int


@dataclass(frozen=True)
class Context:
    """Contextual scoring, Eq. 2-4.  ``slope``: k of Eq. 4.  ``top_m``: for ``on_empty=top_m``.
    ``quantile``: share cut off at either end of an interval, for ``interval=quantile``."""

    enabled: bool
    reading: Literal["outside_other", "signed", "literal"]
    weighting: Literal["binary", "tanh"]
    slope: float
    on_empty: Literal["keep_side", "disable", "template_only", "top_m"]
    top_m: int
    interval: Literal["minmax", "quantile"]
    quantile: float

    def __post_init__(self) -> None:
        if self.reading == "literal" and self.weighting == "tanh":
            raise ValueError(
                "context.weighting=tanh has no meaning for context.reading=literal, which filters "
                "nothing; choose binary"
            )
        if self.slope <= 0:
            raise ValueError(f"context.slope={self.slope} must be above 0")
        if self.top_m < 1:
            raise ValueError(f"context.top_m={self.top_m} must be at least 1")
        if not 0 <= self.quantile < 0.5:
            raise ValueError(f"context.quantile={self.quantile} must lie in 0..0.5")


@dataclass(frozen=True)
class Aligner:
    """The fine-grained aligner, Sec. 4.3.

    ``ridge``: rho, the regularisation relative to the mean squared length of the token rows.
    ``anchor``: alpha in 0..1, how much of the text outside the tokens' span is left in place.
    ``tokens``: the rows of the system.  ``space``: joint embedding, or the visual width before
    the projection.  ``value_path``: the value taken through the output projection only, or
    through the whole last block.
    """

    enabled: bool
    solver: Literal["ridge", "procrustes"]
    ridge: float
    anchor: float
    tokens: Literal["window+cls", "window", "cls"]
    space: Literal["joint", "width"]
    value_path: Literal["proj", "full_block"]

    def __post_init__(self) -> None:
        if self.ridge < 0:
            raise ValueError(f"aligner.ridge={self.ridge} must be 0 or above")
        if not 0 <= self.anchor <= 1:
            raise ValueError(f"aligner.anchor={self.anchor} must lie in 0..1")
        if self.solver == "procrustes" and self.anchor != 1:
            raise ValueError("aligner.anchor is a dial of aligner.solver=ridge only; leave it at 1")
        if self.solver == "procrustes" and self.ridge == 0:
            raise ValueError("aligner.solver=procrustes needs aligner.ridge above 0")
        if self.space == "width" and self.value_path == "full_block":
            raise ValueError("aligner.space=width works with aligner.value_path=proj only")


@dataclass(frozen=True)
class Score:
    """The two parts of the image score, Eq. 12 (Table 6)."""

    use_global: bool
    use_local: bool

    def __post_init__(self) -> None:
        if not (self.use_global or self.use_local):
            raise ValueError("score.use_global and score.use_local are both off: no image score")


@dataclass(frozen=True)
class Config(MethodConfig):
    """Keys of ``alfa.*``.

    ``temperature`` divides cosines.  ``label_embedding``: one unit mean per label, or a sum of
    exponentials over its prompts.  ``scales``: window sizes in patches.  ``fusion``: mean over
    windows and over scales; ``harmonic_of``: what a harmonic mean is taken of.
    ``window_input``: a window as token subset, or as full sequence with the other patches
    zeroed.  ``shots``: normal reference images per category.  ``memory_layer``: the block whose
    patch tokens the memory holds.  ``sigma``: smoothing of the map, output pixels.
    """

    prompt_kind: ClassVar[str] = "alfa"  # texts of the prompt bank that prompts are made of

    preset: str
    prompts: Prompts
    template: Template
    llm: Llm
    context: Context
    aligner: Aligner
    score: Score
    temperature: float
    label_embedding: Literal["mean", "sum_prompts"]
    scales: tuple[int, ...]
    fusion: Literal["harmonic", "mean"]
    harmonic_of: Literal["anomaly", "normality"]
    include_image_scale: bool
    window_input: Literal["token_subset", "zero_pixels"]
    shots: int
    memory_layer: Literal["penultimate", "last"]
    sigma: float

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"temperature={self.temperature} must be above 0")
        if not self.scales:
            raise ValueError("scales=[] leaves no map; name window sizes such as [2,3]")
        if any(k < 1 for k in self.scales) or len(set(self.scales)) != len(self.scales):
            raise ValueError(f"scales={list(self.scales)} must be different sizes of 1 or more")
        if self.shots < 0:
            raise ValueError(f"shots={self.shots} must be 0 or above")
        if self.sigma < 0:
            raise ValueError(f"sigma={self.sigma} must be 0 or above")
        if self.window_input == "zero_pixels" and self.aligner.enabled:
            raise ValueError(
                "window_input=zero_pixels has no window values to align; add aligner.enabled=false"
            )
        if self.prompts.labels == "normal_only" and (self.shots or self.include_image_scale):
            raise ValueError(
                "prompts.labels=normal_only scores the whole image only; leave shots at 0 and "
                "include_image_scale off"
            )

    @property
    def own_words(self) -> str:
        """The file that ``llm.bank`` names."""
        return self.llm.bank

    def own_readings(self) -> dict[str, Any]:
        """The value of every key of :data:`OWN_READINGS`; records and the manifest hold it."""
        values = dataclasses.asdict(self)
        out = {}
        for key in OWN_READINGS:
            value: Any = values
            for part in key.split("."):
                value = value[part]
            out[key] = list(value) if isinstance(value, tuple) else value
        return out


OWN_READINGS = (
    "template.grid",
    "llm.suffix",
    "context.reading",
    "context.weighting",
    "context.on_empty",
    "context.interval",
    "label_embedding",
    "temperature",
    "aligner.solver",
    "aligner.ridge",
    "aligner.anchor",
    "aligner.tokens",
    "aligner.space",
    "aligner.value_path",
    "fusion",
    "harmonic_of",
    "include_image_scale",
    "window_input",
    "memory_layer",
    "sigma",
)
"""Keys at which the paper is silent or contradicts itself: a result is our implementation of
ALFA, not a reproduction."""

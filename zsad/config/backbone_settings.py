"""Which encoder, from where, how exact, and who computes it."""

from __future__ import annotations

import dataclasses
from typing import Literal

from zsad.config.later_keys import added

EngineName = Literal["auto", "torch", "onednn", "openvino"]


@dataclasses.dataclass(frozen=True)
class BackboneSettings:
    """``backbone.*``: which encoder, from where, how exact, and who computes it.

    ``engine``: who runs the encoder.  In float32 all of them give the same figures, so it enters
    an identity only with another precision (:attr:`figures`) and in training (:attr:`trained_by`).
    ``engine_cache``: OpenVINO's graphs are kept on disk, which changes no figure.
    """

    name: str = "vit-l-14-336"
    weights: str | None = None  # file, or "random"; None: bundled, cache, hub
    image_size: int = 0  # pixels; 0: the backbone's default
    # auto: bf16 on CUDA, where it is fast, else fp32, never int8 (zsad.backbones.precision)
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16", "int8"] = "auto"
    compile: bool = False
    # of the weights of backbone `file`; auto: quick_gelu, as OpenAI's
    activation: Literal["auto", "quick_gelu", "gelu"] = added("auto")
    engine: EngineName = added("auto", changes_figures=False)
    engine_cache: bool = added(False, changes_figures=False)

    @property
    def figures(self) -> str:
        """The precision as identities and records name it: with the engine or the compiler, where
        another one rounds otherwise ("bf16" is torch's, "bf16-openvino" and "bf16-compile" are
        not).  ``auto`` is fp32 until :func:`zsad.backbones.precision.resolved` knows better."""
        precision = "fp32" if self.precision == "auto" else self.precision
        if precision == "fp32":
            return precision
        if self.engine not in ("auto", "torch"):
            return f"{precision}-{self.engine}"
        return f"{precision}-compile" if self.compile else precision

    @property
    def trained_by(self) -> str:
        """The engine whose features training reads, where it was asked for by name; "": torch."""
        return "" if self.engine in ("auto", "torch") else self.engine

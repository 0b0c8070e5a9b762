"""What an engine is, and the facts by which one is chosen.  No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from zsad.types import BackboneInfo, EncoderVariant, Tap

if TYPE_CHECKING:
    from torch import Tensor

    from zsad.backbones.clip_vit import ImageEncoder


class Graph(Protocol):
    """The encoder for some taps, ready to run."""

    def __call__(self, images: Tensor) -> dict[Tap, Tensor]:
        """Return every tap of normalised images [B, 3, S, S], as ``ImageEncoder.taps_of`` does."""
        ...


class Engine(Protocol):
    """Makes graphs.  ``name`` as in ``backbone.engine``; ``version`` of its runtime."""

    name: str
    version: str

    def graph(self, encoder: ImageEncoder, size: int, taps: Sequence[Tap]) -> Graph:
        """Return the encoder for square images of ``size`` pixels and these taps."""
        ...


@dataclass(frozen=True)
class Examples:
    """Pictures that ranges of activations are measured on.

    ``of``: which they are and how many ("pictures"), for keys and records; ``drawn_by``: hash of
    what makes them; ``images``: a backbone's, under a variant, each normalised [1, 3, S, S].
    """

    of: Mapping[str, Any]
    drawn_by: Callable[[], str]
    images: Callable[[BackboneInfo, EncoderVariant], Iterable[Tensor]]


@dataclass(frozen=True)
class Facts:
    """What the choice of an engine depends on besides the work.

    ``device``: torch's type of it; ``vendor``: of the processor, as it calls itself; ``avx512``,
    ``bf16``, ``vnni`` and ``amx`` (tiles of bfloat16): whether it multiplies in these;
    ``openvino``: the version that is installed, "": none.
    """

    device: str = "cpu"
    vendor: str = ""
    avx512: bool = False
    bf16: bool = False
    vnni: bool = False
    amx: bool = False
    openvino: str = ""

    @property
    def slow_linear(self) -> bool:
        """Whether torch's own matrix products leave half of this processor unused: MKL runs AVX2
        code on AVX-512 processors of other vendors."""
        return self.avx512 and self.vendor != "GenuineIntel"

    @property
    def slow_bf16(self) -> bool:
        """Whether products in bfloat16 are slower than in float32: half as fast was measured on an
        Intel Xeon without AMX."""
        return self.bf16 and not self.amx and self.vendor == "GenuineIntel"

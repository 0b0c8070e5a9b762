"""Engine ``onednn``: torch's linear layers on weights that oneDNN has packed.

``F.linear`` calls MKL, which runs AVX2 code on AVX-512 processors of other vendors than its own;
oneDNN does not.  No graph is made: any shape goes, both towers and ``resume`` included, at the
price of one more copy of the weights.  The two operators are private to torch, so they are looked
for and tried before they are used.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from zsad.backbones.engines.choice import VERIFIED_ON
from zsad.types import Tap

if TYPE_CHECKING:
    from zsad.backbones.clip_vit import ImageEncoder

log = logging.getLogger(__name__)

CLOSE = 1e-5  # relative, of a product


class PackedLinear:
    """The packed weights of one backbone, made when they are first read.

    ``on``: used wherever no gradient is wanted; otherwise only where :meth:`used` says so.
    ``error``: of the worst product that is used, relative; None: none is.
    """

    def __init__(self, on: bool = False) -> None:
        self.on = on
        self._packed: dict[tuple[int, int, int], tuple[Tensor | None, Tensor]] = {}
        self.error: float | None = None

    @contextmanager
    def used(self, on: bool) -> Iterator[None]:
        """Use packed weights within, or do not."""
        before, self.on = self.on, on
        try:
            yield
        finally:
            self.on = before

    def switch(self, on: bool) -> None:
        """Use packed weights from now on, or no longer."""
        self.on = on

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return x W^T + b: [*, in] -> [*, out]; ``weight`` may be rows of a parameter."""
        if not self.on or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return F.linear(x, weight, bias)
        key = (weight.data_ptr(), len(weight), weight._version)
        if key not in self._packed:  # the weight is kept, so that its address stays its own
            self._packed[key] = (self._verified(weight), weight)
        packed = self._packed[key][0]
        return F.linear(x, weight, bias) if packed is None else multiply(x, packed, bias)

    def _verified(self, weight: Tensor) -> Tensor | None:
        """The packed weight; None and one line where its product is not torch's."""
        packed = pack(weight)
        generator = torch.Generator().manual_seed(20)
        x = torch.randn(VERIFIED_ON, weight.shape[1], generator=generator)
        wanted = F.linear(x, weight)
        error = float((multiply(x, packed, None) - wanted).norm() / wanted.norm().clamp(min=1e-30))
        if not error <= CLOSE:
            log.warning("a product runs in torch, not on packed weights: %.1e from torch", error)
            return None
        self.error = max(error, self.error or 0.0)
        return packed


def pack(weight: Tensor) -> Tensor:
    """Return a float32 weight [out, in] as oneDNN keeps it."""
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())
    return packed


def multiply(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    """Return x W^T + b: [*, in] -> [*, out] for a packed W."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
    return product


@cache
def works() -> bool:
    """Whether this build of torch has the operators, and their product is the right one."""
    if not torch.backends.mkldnn.is_available():
        return False
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(5, 64, generator=generator) for _ in range(2))
    with torch.no_grad():
        try:
            found = multiply(x, pack(weight), None)
        except (AttributeError, RuntimeError, TypeError):
            return False
        wanted = F.linear(x, weight)
    return bool((found - wanted).norm() <= CLOSE * wanted.norm())


class OneDnn:
    """Runs the encoder as it is, with packed weights."""

    name = "onednn"

    def __init__(self, packed: PackedLinear) -> None:
        self.packed = packed
        self.version = str(torch.__version__)

    def graph(self, encoder: ImageEncoder, size: int, taps: Sequence[Tap]) -> Any:
        def run(images: Tensor) -> dict[Tap, Tensor]:
            with self.packed.used(True):
                return encoder.taps_of(images, taps)

        return run

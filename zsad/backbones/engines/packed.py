"""Engine ``onednn``: torch's linear layers on weights that oneDNN has packed.

``F.linear`` calls MKL, which runs AVX2 code on AVX-512 processors of other vendors than its own;
oneDNN does not.  No graph is made: any shape goes, both towers and ``resume`` included, at the
price of one more copy of the weights.  The two operators are private to torch, so they are looked
for and tried before they are used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from zsad.types import Tap

if TYPE_CHECKING:
    from zsad.backbones.clip_vit import ImageEncoder

CLOSE = 1e-5  # relative, of a product


class PackedLinear:
    """The packed weights of one backbone, made when they are first read.

    ``on``: used wherever no gradient is wanted; otherwise only where :meth:`used` says so.
    """

    def __init__(self, on: bool = False) -> None:
        self._on = on
        self._packed: dict[tuple[int, int, int], tuple[Tensor, Tensor]] = {}

    @contextmanager
    def used(self, on: bool) -> Iterator[None]:
        """Use packed weights within, or do not."""
        before, self._on = self._on, on
        try:
            yield
        finally:
            self._on = before

    def switch(self, on: bool) -> None:
        """Use packed weights from now on, or no longer."""
        self._on = on

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return x W^T + b: [*, in] -> [*, out]; ``weight`` may be rows of a parameter."""
        if not self._on or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return F.linear(x, weight, bias)
        key = (weight.data_ptr(), len(weight), weight._version)
        if key not in self._packed:  # the weight is kept, so that its address stays its own
            self._packed[key] = (pack(weight), weight)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(
            x, self._packed[key][0], bias, "none", [], ""
        )
        return product


def pack(weight: Tensor) -> Tensor:
    """Return a float32 weight [out, in] as oneDNN keeps it."""
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())
    return packed


@cache
def works() -> bool:
    """Whether this build of torch has the operators, and their product is the right one."""
    if not torch.backends.mkldnn.is_available():
        return False
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(5, 64, generator=generator) for _ in range(2))
    with torch.no_grad():
        try:
            found = torch.ops.mkldnn._linear_pointwise(x, pack(weight), None, "none", [], "")
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

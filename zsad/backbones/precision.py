"""How exact an encoder computes: which types there are, and which one ``auto`` means.  No torch,
unless a CUDA device may be there.

``auto`` is bf16 on a CUDA device that multiplies in it (compute capability 8 and later) and fp32
anywhere else.  bf16, not fp16: it has the range of float32, so that no activation of any weights
and no gradient of a training leaves it, at the same speed.  It moves image AUROC by nothing and
pixel metrics by a tenth of a point in the mean, half a point in a category; fp16, which OpenAI's
weights were released in, by a tenth of that (docs/performance.md).
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from zsad.backbones.engines.choice import require_engine
from zsad.config import BackboneSettings
from zsad.errors import RequestError

if TYPE_CHECKING:
    import torch

DRIVERS = ("/dev/nvidiactl", "/dev/dxg", "/proc/driver/nvidia")  # of CUDA on Linux and WSL
BF16_SINCE = 8  # compute capability
# What float32 products are computed in on CUDA, of convolutions and of matrices.  TF32 keeps the
# ten bits of fp16, so convolutions of heads may have it wherever the encoder has no more.
TF32 = {
    "fp32": (False, False),
    "tf32": (True, True),
    "bf16": (True, False),
    "fp16": (True, False),
}


def resolved(chosen: BackboneSettings, device: str) -> BackboneSettings:
    """The settings with a precision that is not ``auto``, for a device by name.

    Raises :class:`RequestError` for int8 by another engine than OpenVINO."""
    require_engine(chosen.engine, chosen.precision)
    if chosen.precision != "auto":
        return chosen
    asked_engine = chosen.engine not in ("auto", "torch")  # all of them run on a processor
    fast = not asked_engine and device.startswith(("auto", "cuda")) and _multiplies_bf16(device)
    return replace(chosen, precision="bf16" if fast else "fp32")


def _multiplies_bf16(device: str) -> bool:
    """Whether torch sees a CUDA device of this name with products in bf16."""
    if os.name == "posix" and not any(map(os.path.exists, DRIVERS)):
        return False
    import torch

    if not torch.cuda.is_available():
        return False
    try:
        place = torch.device("cuda" if device == "auto" else device)
        return torch.cuda.get_device_capability(place)[0] >= BF16_SINCE
    except (RuntimeError, AssertionError, ValueError):
        return False  # refused by name where it is to be used


def set_products(precision: str, device: torch.device) -> None:
    """Let float32 products on CUDA be computed as ``precision`` says, in all of this process.

    Raises :class:`RequestError` for tf32 on another device."""
    import torch

    if device.type != "cuda":
        if precision == "tf32":
            raise RequestError(
                f"backbone.precision=tf32: of CUDA devices only, not of {device.type}; use fp32"
            )
        return
    convolutions, matrices = TF32[precision]
    torch.backends.cudnn.allow_tf32 = convolutions
    torch.set_float32_matmul_precision("high" if matrices else "highest")

"""Makes ``import torchvision`` work beside a torch that its compiled part does not fit.

torchvision's Python part describes the operators ``torchvision::nms`` and ``torchvision::qnms``
at import, and fails if its compiled part could not be loaded (a CUDA build of torchvision beside
a CPU build of torch, for example).  open_clip, timm, torchmetrics and GroundingDINO import it.

So the libraries that import torchvision are taken from here, :func:`ensure` runs first, and those
that bring much along are imported by :mod:`zsad.lean_imports`::

    from zsad.torchvision_compat import lightning, open_clip

:func:`ensure` does nothing where torchvision's own operators load; elsewhere it registers the two
operators in plain PyTorch.  Call them as ``torch.ops.torchvision.nms`` then: the wrapper
``torchvision.ops.nms`` insists on the compiled part.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zsad import lean_imports

if TYPE_CHECKING:
    import lightning
    import lightning.pytorch.loggers
    import lightning.pytorch.utilities
    import open_clip
    import open_clip.tokenizer
    import open_clip.transformer
    import timm
    import torchmetrics
    import torchmetrics.wrappers.abstract
    import transformers
    from torch import Tensor
    from torch.library import Library

__all__ = ["ensure", "lightning", "nms", "open_clip", "timm", "torchmetrics", "transformers"]

log = logging.getLogger(__name__)
_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_libraries: list[Library] = []  # a Library unregisters its operators when it is collected
_IMPORT_TORCHVISION = ("lightning", "open_clip", "timm", "torchmetrics", "transformers")


def __getattr__(name: str) -> Any:
    """Import one of the libraries that import torchvision, after :func:`ensure`."""
    if name not in _IMPORT_TORCHVISION:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    ensure()
    if name in ("lightning", "torchmetrics"):  # lightning imports torchmetrics
        lean_imports.torchmetrics()
    return lean_imports.open_clip() if name == "open_clip" else importlib.import_module(name)


@cache
def ensure() -> tuple[str, ...]:
    """Register the operators that torchvision needs and that are missing; return their names."""
    import torch

    missing = [name for name in _SCHEMAS if not _registered(name)]
    if not missing or _load_own_operators():
        return ()
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in missing:
        library.define(_SCHEMAS[name])
        library.impl(name, nms, "CompositeExplicitAutograd")
    _libraries.append(library)
    log.debug("registered %s in plain PyTorch", ", ".join(missing))
    return tuple(missing)


def _registered(name: str) -> bool:
    import torch

    return bool(torch._C._dispatch_has_kernel(f"torchvision::{name}"))


def _load_own_operators() -> bool:
    """Load torchvision's compiled operators, without importing torchvision; False if they fail.

    Loading the same library again later, as torchvision itself does, changes nothing.
    """
    import torch

    spec = importlib.util.find_spec("torchvision")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for library in sorted(Path(folder).glob("_C*.so")) + sorted(Path(folder).glob("_C*.pyd")):
            try:
                torch.ops.load_library(str(library))
            except (OSError, ImportError) as error:
                log.debug("torchvision's compiled operators do not load: %s", error)
                continue
            return _registered("nms")
    return False


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Return the indices of the boxes that greedy non-maximum suppression keeps, best first.

    ``boxes`` [N, 4] = left, top, right, bottom; ``scores`` [N].  A box falls if its
    intersection over union with a kept box is strictly above ``iou_threshold``; equal scores
    keep their order.  The semantics are those of ``torchvision.ops.nms``.
    """
    import torch

    order = scores.argsort(descending=True, stable=True)
    sorted_boxes = boxes[order].to(torch.float32 if boxes.dtype.itemsize < 4 else boxes.dtype)
    left_top, right_bottom = sorted_boxes[:, :2], sorted_boxes[:, 2:]
    area = (right_bottom - left_top).prod(1)
    alive = torch.ones(len(order), dtype=torch.bool, device=boxes.device)
    for i in range(len(order)):
        if not bool(alive[i]):
            continue
        # one row at a time: the full N x N matrix would not fit for many boxes
        inner = torch.minimum(right_bottom[i], right_bottom[i + 1 :]) - torch.maximum(
            left_top[i], left_top[i + 1 :]
        )
        overlap = inner.clamp_min(0).prod(1)
        iou = overlap / (area[i] + area[i + 1 :] - overlap)
        alive[i + 1 :] &= ~(iou > iou_threshold)
    return order[alive]

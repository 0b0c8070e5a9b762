"""Batch size: an estimate to start from, halving when memory runs out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from zsad.errors import CellError
from zsad.types import BackboneInfo

log = logging.getLogger(__name__)
R = TypeVar("R")

HOST_BUDGET = 1.5e9  # bytes for the activations of one batch on the host
LARGEST = 64


def is_out_of_memory(error: BaseException) -> bool:
    """True for the errors by which torch and Python report exhausted memory."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and (
        "out of memory" in text or "can't allocate memory" in text or "defaultcpuallocator" in text
    )


def estimate_batch(info: BackboneInfo, image_size: int, n_taps: int, device: torch.device) -> int:
    """Images per batch that fit a share of the free memory, at most 64 and at least 1.

    Counts the block's widest intermediates (qkv and the four-fold MLP), the taps that are
    kept and about twenty maps of the working size.
    """
    height, width = info.grid(image_size)
    tokens = height * width + 1
    per_token = info.width * (3 + 8 + n_taps + 4) * 4
    per_image = tokens * per_token + 20 * 4 * (image_size or info.image_size) ** 2
    budget = HOST_BUDGET
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        budget = 0.5 * free
    most = LARGEST if device.type == "cuda" else 32
    return int(max(1, min(most, budget // per_image)))


def halving(
    run: Callable[[Sequence[int]], R], rows: Sequence[int], note: Callable[[int], None]
) -> list[R]:
    """Call ``run(rows)``; when memory runs out, call it on both halves instead.

    ``note`` is told the size that worked out.  ``run`` must have no effect when it raises.
    Raises :class:`CellError` when a single row does not fit.
    """
    try:
        return [run(rows)]
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if len(rows) <= 1:
            raise CellError(
                "out of memory with a single image; choose a smaller backbone.image_size, "
                "backbone.precision=bf16, or a device with more memory"
            ) from error
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    middle = (len(rows) + 1) // 2
    note(middle)
    log.warning("out of memory with %d images, trying %d", len(rows), middle)
    return halving(run, rows[:middle], note) + halving(run, rows[middle:], note)

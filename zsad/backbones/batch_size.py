"""Batch size: an estimate to start from, smaller portions when memory runs out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import torch

from zsad import errors
from zsad.backbones.devices import free_memory
from zsad.errors import CellError, counted
from zsad.types import BackboneInfo

log = logging.getLogger(__name__)
R = TypeVar("R")


class BatchTooLarge(CellError):
    """Memory ran out in what must not be tried again by itself, but may be with fewer images."""


HOST_BUDGET = 1.5e9  # bytes for the activations of one batch on the host
LARGEST = 64
WINDOW_TOKENS = 8192  # in a graph, which need not fit caches, and at least on CUDA
HOST_WINDOW_TOKENS = 2048
MOST_WINDOW_TOKENS = 1 << 17  # on CUDA: all windows of one size of eight images at 518 pixels


def is_out_of_memory(error: BaseException) -> bool:
    """True for the errors by which torch and Python report exhausted memory."""
    return isinstance(error, torch.OutOfMemoryError) or errors.is_out_of_memory(error)


def free_cached() -> None:
    """Give back what torch keeps of a device's memory for later."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


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
        budget = 0.5 * free_memory(device)
    most = LARGEST if device.type == "cuda" else 32
    return int(max(1, min(most, budget // per_image)))


def window_tokens(info: BackboneInfo, device: torch.device, size: int = 4) -> int:
    """Sequence positions that one chunk of window passes may hold: few enough to stay in a
    processor's caches; on CUDA, where every kernel of a small chunk costs more than its work, as
    many as a tenth of the free memory has room for, at most 131,072.

    ``size``: bytes of one number of the encoder.  The most that lives at once of a position is its
    state, the feed-forward part and what its activation makes of it, and a norm in float32."""
    if device.type != "cuda":
        return HOST_WINDOW_TOKENS
    per_token = info.width * ((3 + 4 * 4) * size + 2 * 4)
    room = 0.1 * free_memory(device) // per_token
    return int(max(WINDOW_TOKENS, min(MOST_WINDOW_TOKENS, room)))


@dataclass
class Portions:
    """Works through the images of a batch, in portions that memory has room for.

    ``most``: images that are tried at once; None: all.  When memory runs out it is halved, and
    stays so: no later batch fails in the same way.  ``used``: the sizes that worked out since
    then.
    """

    most: int | None = None
    used: set[int] = field(default_factory=set)

    def run(self, work: Callable[[slice], R], count: int) -> Iterator[tuple[slice, R]]:
        """Yield ``(rows, work(rows))`` for the portions of ``count`` images, in order.

        What was yielded is not worked on again, whatever comes later; so ``work`` must have no
        effect when it raises, and effects belong to the caller.  Raises :class:`CellError` when a
        single image does not fit.
        """
        start = 0
        while start < count:
            size = min(self.most or count, count - start)
            rows = slice(start, start + size)
            try:
                found = work(rows)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if size == 1:
                    raise CellError(
                        "out of memory with a single image; choose a smaller backbone.image_size, "
                        "backbone.precision=bf16, or a device with more memory"
                    ) from error
            else:
                if self.most is not None:
                    self.used.add(size)
                start += size
                yield rows, found
                continue
            free_cached()  # here, where the exception and the frames that hold tensors are gone
            self.most = (size + 1) // 2
            log.warning("out of memory with %s, trying %d", counted(size, "image"), self.most)

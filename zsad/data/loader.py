"""Samples to batches, decoded ahead by background threads in the order of the samples."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from zsad.data.ignored import of_sample, shrunk
from zsad.data.images import read_image
from zsad.data.transforms import MaskPolicy, Preprocess
from zsad.errors import DataError, reason
from zsad.metrics.regions import BatchRegions
from zsad.on_device import Sent, SideStream
from zsad.types import Sample


@dataclass
class ImageBatch:
    """B decoded images in the order of their samples.

    ``images``: float32 [B, 3, S, S], normalised (uint8 where they wait for a device to do so, on it
    if they were sent ahead).
    ``masks``: bool [B, S, S], or under the
    native policy a list of B bool tensors [H, W] of each image's own size.  ``has_mask``: bool
    [B]; False for an anomalous image whose dataset has no mask for it (pixel metrics are not
    defined on it), True for normal images, whose mask is zero.  ``labels``: int64 [B].
    ``ignored``: pixels that are not looked at, in the form of ``masks``; None: all are.
    ``failures``: why samples were left out since the batch before, one error for each that names
    its file; a last batch may hold only these.  Where pictures are taken in halves, ``images``
    are the left squares, ``right`` [B, 3, S, S] the right ones and ``shifts`` [B] where these
    begin (:class:`zsad.data.transforms.Halves`).
    """

    images: Tensor
    masks: Tensor | list[Tensor]
    has_mask: Tensor
    labels: Tensor
    samples: list[Sample]
    failures: list[DataError] = field(default_factory=list)
    ignored: Tensor | list[Tensor] | None = None
    right: Tensor | None = None
    shifts: list[float] = field(default_factory=list)
    _regions: list[BatchRegions] = field(default_factory=list)  # once they were asked for

    def regions(self) -> list[BatchRegions]:
        """The anomalous regions, found once for all who count them: of the whole batch, or under
        the native policy of every image."""
        if not self._regions:
            masks, ignored = self.masks, self.ignored
            if isinstance(masks, Tensor):
                assert not isinstance(ignored, list)
                self._regions.append(BatchRegions(masks, ignored))
            else:
                hidden = [None] * len(masks) if ignored is None else [i[None] for i in ignored]
                self._regions += [BatchRegions(m[None], h) for m, h in zip(masks, hidden)]
        return self._regions

    def __len__(self) -> int:
        return len(self.samples)

    def select(self, rows: slice) -> ImageBatch:
        """Some of the samples, with no word of failures."""
        whole = rows == slice(0, len(self))
        return ImageBatch(
            self.images[rows],
            self.masks[rows],
            self.has_mask[rows],
            self.labels[rows],
            self.samples[rows],
            ignored=None if self.ignored is None else self.ignored[rows],
            right=None if self.right is None else self.right[rows],
            shifts=self.shifts[rows],
            _regions=self._regions if whole else [],
        )

    def without_images(self) -> ImageBatch:
        """The same batch without its pixels, to be kept while features are collected."""
        return replace(self, images=self.images[:0], right=None)


class _Decoded(NamedTuple):
    image: Tensor
    mask: np.ndarray | None
    ignored: np.ndarray | None = None
    right: Tensor | None = None
    shift: float = 0.0


class DecodeThreads:
    """``workers`` threads that decode for one loader after the other; 0: none, the caller's."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.pool = (
            ThreadPoolExecutor(workers, thread_name_prefix="zsad-decode") if workers > 0 else None
        )

    def __enter__(self) -> DecodeThreads:
        return self

    def __exit__(self, *exc: object) -> None:
        """Drop what was not begun and wait for the rest."""
        if self.pool:
            self.pool.shutdown(wait=True, cancel_futures=True)


class Startable(Protocol):
    """What can begin to decode before it is asked for a batch."""

    def start(self) -> None:
        """Hand the first images to the threads."""


class BatchLoader:
    """Iterates over samples as batches, decoded ahead by ``threads``, at most two batches.

    :meth:`start` begins to decode before the first batch is asked for.  What is ``followed_by``
    is started when the last sample has been handed to the threads, which will soon have nothing
    to do.  ``pinned``: for a CUDA device; images are uint8 in memory that it copies from without
    anybody waiting, for :meth:`zsad.data.transforms.Preprocess.normalised` there (but for images
    that are taken in halves).  ``side``: the same, and :meth:`look_ahead` sends
    them to the device by it.
    """

    def __init__(
        self,
        samples: Iterable[Sample],
        preprocess: Preprocess,
        mask_policy: MaskPolicy | None,
        batch_size: int,
        threads: DecodeThreads,
        *,
        masks: bool = True,
        followed_by: Startable | None = None,
        pinned: bool = False,
        side: SideStream | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size {batch_size} must be at least 1")
        self.preprocess, self.policy = preprocess, mask_policy or MaskPolicy()
        self.batch_size, self.masks = batch_size, masks
        self.pinned = (pinned or side is not None) and not preprocess.halves
        self.side = side if self.pinned else None
        self.followed_by = followed_by
        self._threads = threads
        self._source = iter(samples)
        self._queue: deque[tuple[Sample, Future[_Decoded | DataError]]] = deque()
        self._started = False
        self._stream: Iterator[tuple[Sample, _Decoded | DataError]] | None = None
        self._ahead: tuple[ImageBatch, Sent | None] | None = None

    def start(self) -> None:
        """Hand the first two batches to the threads, if that has not been done."""
        if not self._started and self._threads.pool:
            self._started = True
            self._submit(max(2 * self.batch_size, self._threads.workers + 1))

    def close(self) -> None:
        """Forget what is being decoded."""
        for _, future in self._queue:
            future.cancel()
        self._queue.clear()

    def __iter__(self) -> Iterator[ImageBatch]:
        try:
            while (batch := self._next()) is not None:
                yield batch
        finally:
            self.close()

    def look_ahead(self) -> None:
        """Put the next batch together and send it on its way, if its images are decoded: to be
        called while a device is busy with the batch before."""
        if self._ahead is None and self._is_decoded():
            batch = self._assembled()
            assert batch is not None
            try:
                sent = self.side.send(batch.images) if self.side else None
            except torch.OutOfMemoryError:
                sent = None  # it goes when it is asked for, in smaller portions if need be
            self._ahead = batch, sent

    def _next(self) -> ImageBatch | None:
        if self._ahead is None:
            return self._assembled()
        (batch, sent), self._ahead = self._ahead, None
        return batch if sent is None else replace(batch, images=sent.taken())

    def _is_decoded(self) -> bool:
        """Whether a whole batch waits to be put together."""
        ready = 0
        for _, future in self._queue:
            if ready == self.batch_size or not future.done():
                break
            ready += not isinstance(future.result(), DataError)
        return ready == self.batch_size

    def _assembled(self) -> ImageBatch | None:
        """The next batch; None after the last."""
        self._stream = self._stream or self._decoded()
        pending: list[tuple[Sample, _Decoded]] = []
        failures: list[DataError] = []
        for sample, decoded in self._stream:
            if isinstance(decoded, DataError):
                failures.append(decoded)
                continue
            pending.append((sample, decoded))
            if len(pending) == self.batch_size:
                break
        return self._batch(pending, failures) if pending or failures else None

    def _batch(
        self, items: Sequence[tuple[Sample, _Decoded]], failures: list[DataError]
    ) -> ImageBatch:
        return _batch(items, failures, self.preprocess.size, self.policy, self.pinned)

    def _submit(self, count: int) -> int:
        """Hand up to ``count`` further samples to the threads; return how many there were."""
        assert self._threads.pool
        chosen = list(islice(self._source, count))
        for sample in chosen:
            task = self._threads.pool.submit(
                _attempt, sample, self.preprocess, self.policy, self.masks, self.pinned
            )
            self._queue.append((sample, task))
        return len(chosen)

    def _decoded(self) -> Iterator[tuple[Sample, _Decoded | DataError]]:
        """Samples in order with what became of them; bounded look-ahead."""
        if not self._threads.pool:
            for sample in self._source:
                yield (
                    sample,
                    _attempt(sample, self.preprocess, self.policy, self.masks, self.pinned),
                )
            return
        self.start()
        while self._queue:
            sample, future = self._queue.popleft()
            if not self._submit(1) and self.followed_by:
                follower, self.followed_by = self.followed_by, None
                follower.start()
            yield sample, future.result()


def batches(
    samples: Iterable[Sample],
    preprocess: Preprocess,
    mask_policy: MaskPolicy | None = None,
    batch_size: int = 8,
    workers: int = 1,
    *,
    masks: bool = True,
    pinned: bool = False,
) -> Iterator[ImageBatch]:
    """Yield the samples as batches of at most ``batch_size``.

    ``workers`` threads decode ahead, at most two batches; 0 decodes in the caller's thread.
    The result does not depend on ``workers``.  A file that cannot be read is left out and
    listed in ``failures``.  ``masks=False`` reads no mask (they come out as zeros).  ``pinned``:
    see :class:`BatchLoader`.
    """
    with DecodeThreads(workers) as threads:
        yield from BatchLoader(
            samples, preprocess, mask_policy, batch_size, threads, masks=masks, pinned=pinned
        )


def _decode(
    sample: Sample, preprocess: Preprocess, policy: MaskPolicy, masks: bool, raw: bool
) -> _Decoded:
    image = read_image(sample.image, sample.crop, sample.bits, stored=preprocess.stored)
    seen = _seen(image, preprocess, sample.image, raw)
    if not masks:
        return seen
    seen_hw = image.height, image.width
    hidden = of_sample(sample, seen_hw)
    if hidden is not None and not policy.native:
        hidden = shrunk(hidden, (preprocess.size, preprocess.size))
    return seen._replace(mask=policy.read(sample, preprocess.size, seen_hw), ignored=hidden)


def _seen(image: Image.Image, preprocess: Preprocess, name: str, raw: bool) -> _Decoded:
    """What the model sees of an image, ``raw``: before it is normalised.  Raises
    :class:`DataError` that begins with ``name``."""
    if not preprocess.halves:
        return _Decoded(preprocess.pixels(image) if raw else preprocess(image), None)
    try:
        left, right, shift = preprocess.squares(image)
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    return _Decoded(left, None, right=right, shift=shift)


def _attempt(
    sample: Sample, preprocess: Preprocess, policy: MaskPolicy, masks: bool, raw: bool
) -> _Decoded | DataError:
    try:
        return _decode(sample, preprocess, policy, masks, raw)
    except DataError as error:
        return error
    except (Exception, SystemExit) as error:  # readers may be foreign code; a thread must not die
        return DataError(f"{sample.image}: decoding ended with {reason(error)}")


def _stacked(images: list[Tensor], pinned: bool) -> Tensor:
    if not pinned:
        return torch.stack(images)
    shape = (len(images), *images[0].shape)
    batch = torch.empty(shape, dtype=images[0].dtype, pin_memory=True)
    for row, image in zip(batch, images):
        row.copy_(image)
    return batch


def _batch(
    items: Sequence[tuple[Sample, _Decoded]],
    failures: list[DataError],
    size: int,
    policy: MaskPolicy,
    pinned: bool,
) -> ImageBatch:
    chosen = [sample for sample, _ in items]
    images = [d.image for _, d in items]
    right = [d.right for _, d in items if d.right is not None]
    empty = np.zeros((size, size), dtype=bool)
    marks = [torch.from_numpy(np.array(empty if d.mask is None else d.mask)) for _, d in items]
    hidden = [
        torch.zeros_like(mark) if d.ignored is None else torch.from_numpy(np.array(d.ignored))
        for mark, (_, d) in zip(marks, items)
    ]
    masks: Tensor | list[Tensor] = marks
    ignored: Tensor | list[Tensor] = hidden
    if not policy.native:
        none = torch.zeros((0, size, size), dtype=torch.bool)
        masks = torch.stack(marks) if marks else none
        ignored = torch.stack(hidden) if hidden else none
    return ImageBatch(
        images=_stacked(images, pinned) if images else torch.zeros((0, 3, size, size)),
        masks=masks,
        has_mask=torch.tensor(
            [s.label == 0 or s.mask is not None for s in chosen], dtype=torch.bool
        ),
        labels=torch.tensor([s.label for s in chosen], dtype=torch.int64),
        samples=chosen,
        failures=failures,
        ignored=ignored if any(d.ignored is not None for _, d in items) else None,
        right=torch.stack(right) if right else None,
        shifts=[d.shift for _, d in items],
    )

"""One category of one dataset: one encoder pass, every head, one record per cell.

A head that raises loses its own cell; the others go on.  What all heads share (an image that
cannot be read, a batch that cannot be encoded) loses the category for every head, because a
figure over fewer images would silently be another one; with ``data.skip_broken`` such images are
left out, and the outcome names them.  When memory runs out, encoding and scoring are tried again
with fewer images; metrics and examples take in every image once, and an error there ends the cell.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zsad.backbones import Backbone
from zsad.backbones.batch_size import (
    BatchTooLarge,
    Portions,
    estimate_batch,
    free_cached,
    is_out_of_memory,
)
from zsad.config import Settings
from zsad.data import plausible
from zsad.data.loader import BatchLoader, DecodeThreads, ImageBatch
from zsad.data.transforms import MaskPolicy, Preprocess
from zsad.errors import counted
from zsad.metrics import CategoryMetrics
from zsad.on_device import SideStream
from zsad.runner.broken import leave_out
from zsad.runner.heads import Head
from zsad.runner.outcome import Outcome
from zsad.runner.timing import StageTimer
from zsad.scoring import encode, without
from zsad.types import (
    Category,
    EncoderVariant,
    FeatureRequest,
    ImageFeatures,
    Sample,
    ScoreContext,
    Scored,
)

log = logging.getLogger(__name__)


@dataclass
class CategoryRun:
    """Runs the heads of one category over its samples.

    ``on_scored(head, samples, scored)`` may look at every result before it is dropped
    (explanations, pictures).  ``threads`` decode; when they have been handed this category's last
    image, they begin with the first ones of the category that it is ``followed_by``.
    ``references``: the few-shot images by (label, seed) of a head.
    """

    backbone: Backbone
    settings: Settings
    category: Category
    samples: Sequence[Sample]
    heads: Sequence[Head]
    timer: StageTimer
    threads: DecodeThreads
    references: dict[tuple[str, int], Sequence[Sample]] = field(default_factory=dict)
    on_scored: Callable[[Head, Sequence[Sample], Scored[Any]], None] | None = None
    on_images: Callable[[int], None] | None = None
    followed_by: CategoryRun | None = None
    batch_sizes: set[int] = field(default_factory=set)
    encoding: dict[Preprocess, Portions] = field(default_factory=dict)  # shared by categories
    _begun: BatchLoader | None = None
    _most: int | None = None  # images of a batch in a later pass
    _marked: dict[str, float] = field(default_factory=dict)  # uid -> share of the picture

    # --------------------------------------------------------------------------- the run
    def start(self) -> None:
        """Begin to decode the first images, ahead of :meth:`run`."""
        if self._begun is None and self.heads:
            try:
                first = self._inputs()[0]
                self._begun = self._loader(self.samples, first, self._of_input(first))
                self._begun.start()
            except Exception:  # reported when the category has its turn, in :meth:`run`
                log.debug("decoding ahead failed", exc_info=True)

    def cancel(self) -> None:
        """Forget what :meth:`start` began, if it is not run."""
        if self._begun is not None:
            self._begun.close()

    def _input_of(self, head: Head) -> Preprocess:
        return Preprocess.for_request(self.backbone.info, head.request)

    def _inputs(self) -> list[Preprocess]:
        """How pictures are prepared: in one way, unless heads want other sizes, filters, values."""
        found = {self._input_of(h) for h in self.heads}
        return sorted(found, key=lambda p: (p.size, p.interpolation, p.mean, p.stored, p.halves))

    def _of_input(self, preprocess: Preprocess) -> list[Head]:
        return [h for h in self.heads if self._input_of(h) == preprocess]

    def run(self) -> list[Outcome]:
        """Score every sample with every head and return one outcome per head, to be concluded.

        A head that ran out of memory while its images were counted begins the category anew, with
        smaller batches: what was counted by then is dropped with its outcome.
        """
        outcomes = self._pass(self.heads)
        first = max(self.batch_sizes, default=1)
        for size in sorted({max(1, first // 4), 1}, reverse=True):
            starved = [i for i, outcome in enumerate(outcomes) if outcome.starved]
            if not starved:
                break
            self._most = size
            log.warning(
                "out of memory with %s, category %s; once more, %s at a time",
                ", ".join(outcomes[i].head.label for i in starved),
                self.category.key,
                counted(self._most, "image"),
            )
            free_cached()
            for i, outcome in zip(starved, self._pass([outcomes[i].head for i in starved])):
                outcomes[i] = outcome
        for portions in (*self.encoding.values(), *(h.scorer.portions for h in self.heads)):
            self.batch_sizes |= portions.used
        plausible.tell_masks(f"{self.category.dataset}/{self.category.key}", self._marked)
        return outcomes

    def _pass(self, heads: Sequence[Head]) -> list[Outcome]:
        """Score every sample with these heads."""
        device = self.backbone.device
        outcomes = [
            Outcome(h, CategoryMetrics.of(self.settings.metrics, device=device)) for h in heads
        ]
        for preprocess in self._inputs():
            alike = [o for o in outcomes if self._input_of(o.head) == preprocess]
            if alike:
                self._run_input(preprocess, alike)
        return outcomes

    def _run_input(self, preprocess: Preprocess, outcomes: list[Outcome]) -> None:
        """All heads whose pictures are prepared alike: one pass over the files."""
        loader = self._begun or self._loader(self.samples, preprocess, [o.head for o in outcomes])
        self._begun = None
        portions = self.encoding.setdefault(preprocess, Portions())
        try:
            self._encode_references(preprocess, outcomes, portions)
            if preprocess == self._inputs()[-1]:
                loader.followed_by = self.followed_by
            self.batch_sizes.add(min(loader.batch_size, max(1, len(self.samples))))
            skips = self.settings.data.skip_broken
            for batch in self.timer.waiting(loader, "decode"):
                leave_out(batch, [o.skipped for o in outcomes], skips, len(self.samples))
                if not len(batch):
                    continue
                active = [o for o in outcomes if o.error is None]
                if not active:
                    return
                self._marked.update(plausible.marked(batch.samples, batch.masks))
                for group in _by_variant(active).values():
                    self._score_batch(batch, group, portions, loader)
                if self.on_images and self._most is None:
                    self.on_images(len(batch.samples))
        except Exception as error:  # a decoder, the encoder, the device: whatever it was
            log.debug("category %s failed", self.category.key, exc_info=True)
            for outcome in outcomes:
                outcome.error = outcome.error or error
            return
        finally:
            loader.close()
        for outcome in outcomes:
            if outcome.head.method.transductive:
                self._score_population(outcome)

    def _loader(
        self, samples: Sequence[Sample], preprocess: Preprocess, heads: Sequence[Head]
    ) -> BatchLoader:
        data, info = self.settings.data, self.backbone.info
        n_taps = max(len(h.request.taps) for h in heads)
        device = self.backbone.device
        most = self.settings.run.batch_size or estimate_batch(info, preprocess.size, n_taps, device)
        return BatchLoader(
            samples,
            preprocess,
            MaskPolicy(data.mask_resize),
            min(most, self._most or most),
            self.threads,
            side=SideStream(device) if device.type == "cuda" else None,
        )

    # -------------------------------------------------------------------------- encoding
    def _encode(
        self, batch: ImageBatch, request: FeatureRequest, portions: Portions
    ) -> Iterator[tuple[slice, ImageFeatures]]:
        return encode(self.backbone, batch.images, request, portions, self.timer.stage)

    def _encode_references(
        self, preprocess: Preprocess, outcomes: Sequence[Outcome], portions: Portions
    ) -> None:
        """Encode the few-shot images once, and give each outcome its own.

        What goes wrong with them ends the heads that need them, and no other."""
        needy = [o for o in outcomes if (o.head.label, o.head.seed) in self.references]
        for group in _by_variant(needy).values():
            try:
                self._encode_references_of(preprocess, group, portions)
            except Exception as error:
                log.debug("references of %s failed", self.category.key, exc_info=True)
                for outcome in group:
                    outcome.error = error

    def _encode_references_of(
        self, preprocess: Preprocess, outcomes: Sequence[Outcome], portions: Portions
    ) -> None:
        wanted: dict[str, Sample] = {}
        for outcome in outcomes:
            for sample in self.references[outcome.head.label, outcome.head.seed]:
                wanted[sample.uid] = sample
        request = FeatureRequest.merge([o.head.request for o in outcomes])
        rows: dict[str, int] = {}
        parts = []
        loader = self._loader(list(wanted.values()), preprocess, [o.head for o in outcomes])
        self.batch_sizes.add(min(loader.batch_size, len(wanted)))
        for batch in self.timer.waiting(loader, "decode"):
            if batch.failures:
                raise batch.failures[0]
            for sample in batch.samples:
                rows[sample.uid] = len(rows)
            parts += [part for _, part in self._encode(batch, request, portions)]
        features = ImageFeatures.concat(parts)
        drawn: dict[tuple[int, ...], ImageFeatures] = {}
        for outcome in outcomes:
            own = self.references[outcome.head.label, outcome.head.seed]
            index = tuple(rows[s.uid] for s in own)
            # Heads with the same references get the same tensors, and so share memory banks.
            if index not in drawn:
                drawn[index] = features.select(list(index))
            outcome.references = drawn[index].restrict(outcome.head.request.taps)

    # --------------------------------------------------------------------------- scoring
    def _score_batch(
        self, batch: ImageBatch, group: Sequence[Outcome], portions: Portions, loader: BatchLoader
    ) -> None:
        """Encode a batch for heads that read the same variant, and score it with each."""
        request = FeatureRequest.merge([o.head.request for o in group])
        for rows, features in self._encode(batch, request, portions):
            part = batch.select(rows)
            if self.backbone.device.type != "cpu":
                part.regions()
                loader.look_ahead()
            for outcome in group:
                if outcome.error is not None:
                    continue
                with _own_errors(outcome):
                    own = features.restrict(outcome.head.request.taps)
                    if outcome.head.method.transductive:
                        outcome.stored.append((own.to("cpu"), part.without_images()))
                    else:
                        scorer = outcome.head.scorer
                        views = scorer.views(part.images, portions, self.timer.stage, part.right)
                        self._score(outcome, own, part, views=views, shifts=part.shifts)

    def _score_population(self, outcome: Outcome) -> None:
        """A transductive head sees the features of all test images of the category at once."""
        stored, outcome.stored = outcome.stored, []
        if outcome.error is not None:
            return
        with _own_errors(outcome):
            batches = [batch for _, batch in stored]
            uids = [s.uid for batch in batches for s in batch.samples]
            population = ImageFeatures.concat([features for features, _ in stored])
            stored.clear()
            population = population.to(self.backbone.device)
            together = {"population": population, "population_uids": uids}
            final = self._conclude(outcome, population, batches, together)
            for rows, batch in _rows_of(batches):
                own = None if final is None else replace(final, scores=final.scores[rows])
                self._score(outcome, population.select(rows), batch, own, **together)

    def _conclude(
        self,
        outcome: Outcome,
        population: ImageFeatures,
        batches: Sequence[ImageBatch],
        together: dict[str, Any],
    ) -> Final | None:
        """The final image scores of a head that makes them of those of the whole category, which
        is scored once more for them; None for any other."""
        method = outcome.head.method
        if not method.stretches:
            return None
        raw: list[Tensor] = []
        ends: list[Tensor] = []
        info: list[dict[str, Tensor]] = []
        for rows, batch in _rows_of(batches):
            context = self._context(outcome, batch, **together)
            part = population.select(rows)
            for _, scored in self._scored(outcome, part, context, batch):
                raw.append(scored.image_scores)
                info.append(scored.scores.info)
                ends.append(torch.stack(scored.maps.final.aminmax()))
        joined = {name: torch.cat([part[name] for part in info]).cpu() for name in info[0]}
        scores = method.over_category(torch.cat(raw), joined)
        if not method.stretches_maps:
            return Final(scores)
        lows, highs = torch.stack(ends).T
        low, high = lows.min().item(), highs.max().item()
        return Final(scores, low, max(high - low, 1e-12))

    def _context(self, outcome: Outcome, batch: ImageBatch, **rest: Any) -> ScoreContext[Any]:
        scorer, categories = outcome.head.scorer, [self.category] * len(batch)
        known = outcome.references
        return scorer.context(
            categories,
            references={} if known is None else {self.category.key: known},
            boxes=scorer.boxes_of(categories, batch.samples),
            uids=[s.uid for s in batch.samples],
            carry=dict(outcome.carry),
            **rest,
        )

    def _scored(
        self,
        outcome: Outcome,
        features: ImageFeatures,
        context: ScoreContext[Any],
        batch: ImageBatch,
    ) -> Iterator[tuple[slice, Scored[Any]]]:
        """Yield the batch as scored by one head, with its rows, without what is ignored of it."""
        scorer = outcome.head.scorer
        for rows, scored in scorer.score(features, context):
            if batch.ignored is None:
                yield rows, scored
                continue
            masks = [m.numpy() if m.any() else None for m in batch.ignored[rows]]
            seen, sees = without(scorer.method.image_score, scored, masks)
            outcome.sees_ignored |= sees
            yield rows, seen

    def _score(
        self,
        outcome: Outcome,
        features: ImageFeatures,
        batch: ImageBatch,
        final: Final | None = None,
        **rest: Any,
    ) -> None:
        """Score a batch with one head.  What memory does not suffice for is tried again in
        smaller portions; what was scored is taken in once.

        ``final``: what follows from the whole category; ``rest``: further fields of the context."""
        context = self._context(outcome, batch, **rest)
        for rows, scored in self._scored(outcome, features, context, batch):
            if final is not None:
                scored.scores.info["raw_score"] = scored.image_scores
                scored.image_scores = final.scores[rows]
                scored.maps = scored.maps.each(final.scaled)
            try:
                self._take(outcome, batch.select(rows), scored)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                raise BatchTooLarge(
                    f"{outcome.head.label}: out of memory in the metrics or the examples, with "
                    f"every size of batch; lower backbone.image_size, or choose a device with more "
                    f"memory"
                ) from error

    def _take(self, outcome: Outcome, batch: ImageBatch, scored: Scored[Any]) -> None:
        """Add scored images to metrics, examples and lists.  Any error is the outcome's end."""
        values = scored.image_scores.tolist()
        with self.timer.stage("metrics", f"metrics:{outcome.head.label}"):
            _update(outcome.metrics, batch, scored)
        if self.on_scored:
            self.on_scored(outcome.head, batch.samples, scored)
        outcome.means.add(scored)
        outcome.carry.update(scored.scores.carry)
        outcome.uids += [s.uid for s in batch.samples]
        outcome.defects += [s.defect for s in batch.samples]
        outcome.scores += values
        outcome.labels += [s.label for s in batch.samples]


@dataclass(frozen=True)
class Final:
    """What follows from a whole category: the image ``scores`` [N], and the scale of its maps."""

    scores: Tensor
    low: float = 0.0
    span: float = 1.0

    def scaled(self, maps: Tensor) -> Tensor:
        """Bring maps [B, H, W] to that scale."""
        return (maps - self.low) / self.span if (self.low, self.span) != (0.0, 1.0) else maps


def _update(metrics: CategoryMetrics, batch: ImageBatch, scored: Scored[Any]) -> None:
    """Add to the streaming metrics; masks of native size meet maps enlarged to that size."""
    maps, scores = scored.maps.final, scored.image_scores
    labels, has_mask, regions = batch.labels, batch.has_mask, batch.regions()
    if isinstance(batch.masks, Tensor):
        hidden = batch.ignored
        assert hidden is None or isinstance(hidden, Tensor)
        metrics.update(maps, batch.masks, scores, labels, has_mask, hidden, regions[0])
        return
    for i, mask in enumerate(batch.masks):
        one = slice(i, i + 1)
        native = F.interpolate(maps[one, None], size=tuple(mask.shape), mode="bilinear")[:, 0]
        metrics.update(
            native,
            mask[None],
            scores[one],
            labels[one],
            has_mask[one],
            None if batch.ignored is None else batch.ignored[i][None],
            regions[i],
        )


def _rows_of(batches: Sequence[ImageBatch]) -> Iterator[tuple[slice, ImageBatch]]:
    """Batches with their rows among all images."""
    for start, batch in zip(accumulate(map(len, batches), initial=0), batches):
        yield slice(start, start + len(batch)), batch


@contextmanager
def _own_errors(outcome: Outcome) -> Iterator[None]:
    """An exception ends this head's cell and nothing else."""
    try:
        yield
    except Exception as error:  # a method is foreign code: whatever it raises is its cell's end
        outcome.error = error
        log.debug("head %s failed", outcome.head.label, exc_info=True)


def _by_variant(outcomes: Iterable[Outcome]) -> dict[EncoderVariant, list[Outcome]]:
    groups: dict[EncoderVariant, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(outcome.head.request.variant, []).append(outcome)
    return groups

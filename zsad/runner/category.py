"""One category of one dataset: one encoder pass, every head, one record per cell.

A head that raises loses its own cell; the others go on.  What all heads share (an image that
cannot be read, a batch that cannot be encoded) loses the category for every head, because a
figure over fewer images would silently be another one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zsad import maps as dense
from zsad.backbones import Backbone
from zsad.backbones.memory import estimate_batch, halving
from zsad.config import Settings
from zsad.data.loader import BatchLoader, DecodeThreads, ImageBatch, MaskPolicy
from zsad.data.transforms import Preprocess
from zsad.errors import CellError
from zsad.metrics import CategoryMetrics, MetricResult
from zsad.metrics.curves import category_curves
from zsad.runner.heads import Head
from zsad.runner.timing import StageTimer
from zsad.types import (
    BuiltMaps,
    Category,
    EncoderVariant,
    FeatureRequest,
    ImageFeatures,
    Sample,
    ScoreContext,
    Scores,
)

log = logging.getLogger(__name__)

CURVE_POINTS = 100  # of every stored curve


@dataclass
class Outcome:
    """What one head made of one category: a result, or the error that ended it."""

    head: Head
    metrics: CategoryMetrics
    uids: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    defects: list[str] = field(default_factory=list)
    error: Exception | None = None
    result: MetricResult | None = None
    stored: list[tuple[ImageFeatures, ImageBatch]] = field(default_factory=list)

    def conclude(self) -> None:
        """Compute the metrics of what was scored; nothing, where scoring ended with an error."""
        if self.error is None:
            try:
                self.result = self.metrics.compute()
            except Exception as error:
                self.error = error

    def curves(self) -> dict[str, dict[str, Any]]:
        """ROC, precision-recall and PRO curves that are defined, ready for JSON."""
        return {
            name: {
                "x_name": line.x_name,
                "y_name": line.y_name,
                "x": [round(float(v), 5) for v in line.x],
                "y": [round(float(v), 5) for v in line.y],
            }
            for name, line in category_curves(self.metrics, CURVE_POINTS).items()
        }


@dataclass
class CategoryRun:
    """Runs the heads of one category over its samples.

    ``on_scored(head, batch, features, scores, maps, image_scores)`` may look at every result
    before it is dropped (explanations, pictures).  ``threads`` decode;
    ``then`` is called when they have been handed this category's last image, see
    :class:`BatchLoader`.
    """

    backbone: Backbone
    settings: Settings
    category: Category
    samples: Sequence[Sample]
    heads: Sequence[Head]
    timer: StageTimer
    device: torch.device
    threads: DecodeThreads
    then: Callable[[], None] | None = None
    references: dict[tuple[str, int], Sequence[Sample]] = field(default_factory=dict)
    on_scored: Callable[..., None] | None = None
    on_images: Callable[[int], None] | None = None
    batch_sizes: set[int] = field(default_factory=set)
    _begun: BatchLoader | None = None

    # --------------------------------------------------------------------------- the run
    def start_decoding(self) -> None:
        """Begin to decode the first images, ahead of :meth:`run`."""
        if self._begun is None and self.heads:
            size = self._sizes()[0]
            self._begun = self._loader(self.samples, size, self._of_size(size))
            self._begun.start()

    def cancel(self) -> None:
        """Forget what :meth:`start_decoding` began, if it is not run."""
        if self._begun is not None:
            self._begun.close()

    def _sizes(self) -> list[int]:
        return sorted({h.request.variant.image_size for h in self.heads})

    def _of_size(self, size: int) -> list[Head]:
        return [h for h in self.heads if h.request.variant.image_size == size]

    def run(self) -> list[Outcome]:
        """Score every sample with every head and return one outcome per head, to be concluded."""
        metrics = self.settings.metrics
        outcomes = [Outcome(h, CategoryMetrics.of(metrics)) for h in self.heads]
        for size in self._sizes():
            self._run_size(size, [o for o in outcomes if o.head.request.variant.image_size == size])
        return outcomes

    def _run_size(self, size: int, outcomes: list[Outcome]) -> None:
        """All heads whose working size is ``size`` pixels: one pass over the files."""
        loader = self._begun or self._loader(self.samples, size, [o.head for o in outcomes])
        self._begun = None
        try:
            reference_features = self._references(size, outcomes)
            if size == self._sizes()[-1]:
                loader.then = self.then
            self.batch_sizes.add(min(loader.batch_size, max(1, len(self.samples))))
            for batch in self.timer.waiting(loader, "decode"):
                if batch.failures:
                    raise batch.failures[0]
                active = [o for o in outcomes if o.error is None]
                if not active:
                    return
                for variant, group in _by_variant(active).items():
                    self._score_batch(batch, variant, group, reference_features)
                if self.on_images:
                    self.on_images(len(batch.samples))
        except Exception as error:  # a decoder, the encoder, the device: whatever it was
            log.debug("category %s failed", self.category.key, exc_info=True)
            for outcome in outcomes:
                outcome.error = outcome.error or error
            return
        finally:
            loader.close()
        for outcome in outcomes:
            if outcome.head.method.transductive and outcome.error is None:
                self._score_population(outcome, reference_features)

    def _loader(self, samples: Sequence[Sample], size: int, heads: Sequence[Head]) -> BatchLoader:
        data, info = self.settings.data, self.backbone.info
        n_taps = max(len(h.request.taps) for h in heads)
        return BatchLoader(
            samples,
            Preprocess.for_backbone(info, size),
            MaskPolicy(data.mask_resize),
            self.settings.run.batch_size or estimate_batch(info, size, n_taps, self.device),
            self.threads,
        )

    # -------------------------------------------------------------------------- encoding
    def _encode(self, images: Tensor, request: FeatureRequest) -> ImageFeatures:
        """Encode a batch, in halves if memory runs out."""

        def encode(rows: Sequence[int]) -> ImageFeatures:
            part = images[rows[0] : rows[-1] + 1].to(self.device, non_blocking=True)
            return self.backbone.encode_image(part, request)

        with self.timer.stage("encode"), torch.no_grad():
            parts = halving(encode, range(images.shape[0]), self.batch_sizes.add)
        return parts[0] if len(parts) == 1 else ImageFeatures.concat(parts)

    def _references(
        self, size: int, outcomes: list[Outcome]
    ) -> dict[EncoderVariant, dict[tuple[str, int], ImageFeatures]]:
        """Encode the few-shot reference images once, and pick each head's from them."""
        wanted: dict[str, Sample] = {}
        for outcome in outcomes:
            for sample in self.references.get((outcome.head.label, outcome.head.seed), ()):
                wanted[sample.uid] = sample
        if not wanted:
            return {}
        found: dict[EncoderVariant, dict[tuple[str, int], ImageFeatures]] = {}
        for variant, group in _by_variant(outcomes).items():
            needy = [o for o in group if (o.head.label, o.head.seed) in self.references]
            if not needy:
                continue
            request = FeatureRequest.merge([o.head.request for o in needy])
            rows: dict[str, int] = {}
            parts = []
            loader = self._loader(list(wanted.values()), size, [o.head for o in needy])
            self.batch_sizes.add(min(loader.batch_size, len(wanted)))
            for batch in self.timer.waiting(loader, "decode"):
                if batch.failures:
                    raise batch.failures[0]
                for sample in batch.samples:
                    rows[sample.uid] = len(rows)
                parts.append(self._encode(batch.images, request))
            features = ImageFeatures.concat(parts)
            drawn: dict[tuple[int, ...], ImageFeatures] = {}
            for outcome in needy:
                key = (outcome.head.label, outcome.head.seed)
                index = tuple(rows[s.uid] for s in self.references[key])
                # Heads with the same references get the same tensors, and so share memory banks.
                if index not in drawn:
                    drawn[index] = features.select(list(index))
                chosen = drawn[index].restrict(outcome.head.request.taps)
                found.setdefault(variant, {})[key] = chosen
        return found

    # --------------------------------------------------------------------------- scoring
    def _score_batch(
        self,
        batch: ImageBatch,
        variant: EncoderVariant,
        group: list[Outcome],
        references: dict[EncoderVariant, Any],
    ) -> None:
        request = FeatureRequest.merge([o.head.request for o in group])
        features = self._encode(batch.images, request)
        for outcome in group:
            head = outcome.head
            if head.method.transductive:
                kept = features.restrict(head.request.taps).to("cpu")
                outcome.stored.append((kept, batch.without_images()))
                continue
            own = references.get(variant, {}).get((head.label, head.seed))
            self._guarded(outcome, features.restrict(head.request.taps), batch, own, None)

    def _score_population(self, outcome: Outcome, references: dict[EncoderVariant, Any]) -> None:
        """A transductive head sees the features of all test images of the category at once."""
        population = ImageFeatures.concat([f for f, _ in outcome.stored]).to(self.device)
        own = references.get(outcome.head.request.variant, {}).get(
            (outcome.head.label, outcome.head.seed)
        )
        for features, batch in outcome.stored:
            self._guarded(outcome, features.to(self.device), batch, own, population)
        outcome.stored.clear()

    def _guarded(
        self,
        outcome: Outcome,
        features: ImageFeatures,
        batch: ImageBatch,
        references: ImageFeatures | None,
        population: ImageFeatures | None,
    ) -> None:
        """Score with one head; an exception ends this head's cell and nothing else."""
        if outcome.error is not None:
            return
        try:
            halving(
                lambda rows: self._score(outcome, features, batch, rows, references, population),
                range(len(batch.samples)),
                self.batch_sizes.add,
            )
        except Exception as error:  # a method is foreign code: whatever it raises is its cell's end
            outcome.error = error
            log.debug("head %s failed", outcome.head.label, exc_info=True)

    @torch.no_grad()
    def _score(
        self,
        outcome: Outcome,
        features: ImageFeatures,
        batch: ImageBatch,
        rows: Sequence[int],
        references: ImageFeatures | None,
        population: ImageFeatures | None,
    ) -> None:
        head, timer = outcome.head, self.timer
        part = (
            features
            if len(rows) == features.batch_size
            else features.select(slice(rows[0], rows[-1] + 1))
        )
        samples = [batch.samples[i] for i in rows]
        categories = [self.category] * len(rows)
        boxes = None
        if head.boxes is not None:
            with timer.stage("boxes", f"boxes:{head.label}"):
                boxes = head.boxes.boxes(samples, categories)
        context = ScoreContext(
            categories=categories,
            text=head.text,
            text_encoder=self.backbone.text_encoder(head.request.variant),
            image_encoder=self.backbone.image_encoder(head.request.variant),
            references={self.category.key: references} if references is not None else {},
            population=population,
            boxes=boxes,
            uids=[s.uid for s in samples],
            population_uids=[s.uid for _, b in outcome.stored for s in b.samples],
        )
        size = head.request.variant.image_size
        with timer.stage("head", f"head:{head.label}"):
            scores: Scores = head.method.score(part, context)
        with timer.stage("map", f"map:{head.label}"):
            built: BuiltMaps = dense.build_maps(scores, head.method.map_spec(), size, context.boxes)
            image_scores = head.method.image_score(scores, built).float()
        _check_finite(head, built.final, image_scores, samples)
        with timer.stage("metrics", f"metrics:{head.label}"):
            self._update(outcome, batch, rows, built.final, image_scores)
        if self.on_scored:
            self.on_scored(head, samples, part, scores, built, image_scores, context)
        outcome.uids += [s.uid for s in samples]
        outcome.defects += [s.defect for s in samples]
        outcome.scores += image_scores.cpu().tolist()
        outcome.labels += [s.label for s in samples]

    def _update(
        self, outcome: Outcome, batch: ImageBatch, rows: Sequence[int], maps: Tensor, scores: Tensor
    ) -> None:
        """Add to the streaming metrics; masks of native size meet maps enlarged to that size."""
        chosen = slice(rows[0], rows[-1] + 1)
        labels, has_mask = batch.labels[chosen].to(maps.device), batch.has_mask[chosen]
        if isinstance(batch.masks, Tensor):
            masks = batch.masks[chosen].to(maps.device)
            outcome.metrics.update(maps, masks, scores, labels, has_mask.to(maps.device))
            return
        for i, mask in enumerate(batch.masks[chosen]):
            native = F.interpolate(maps[i : i + 1, None], size=tuple(mask.shape), mode="bilinear")[
                :, 0
            ]
            one = slice(i, i + 1)
            outcome.metrics.update(
                native,
                mask[None].to(maps.device),
                scores[one],
                labels[one],
                has_mask[one].to(maps.device),
            )


def _by_variant(outcomes: Iterable[Outcome]) -> dict[EncoderVariant, list[Outcome]]:
    groups: dict[EncoderVariant, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(outcome.head.request.variant, []).append(outcome)
    return groups


def _check_finite(head: Head, maps: Tensor, scores: Tensor, samples: Sequence[Sample]) -> None:
    """Raises :class:`CellError` that names the first image with a NaN or infinite value."""
    bad = ~(torch.isfinite(maps).flatten(1).all(1) & torch.isfinite(scores))
    if bool(bad.any()):
        first = int(bad.nonzero()[0])
        raise CellError(
            f"{head.label}: not-a-number in the map or score of {samples[first].uid}; "
            f"try backbone.precision=fp32, or report the method's config"
        )

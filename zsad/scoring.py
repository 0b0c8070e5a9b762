"""One method on one batch: what a sweep, a prediction and a calibration have in common.

Text, boxes, references, the context, the scores, the maps, the check that they are numbers, the
reasons, and smaller portions when memory runs out.  **Only what has no effects is tried again**:
what a caller does with a :class:`Scored` (metrics, examples, records) it does exactly once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zsad import maps as dense
from zsad.backbones import Backbone
from zsad.backbones.batch_size import BatchTooLarge, Portions, is_out_of_memory
from zsad.backbones.engines.heads import HeadEngine
from zsad.components.reasons import merged
from zsad.data.ignored import shrunk
from zsad.data.transforms import Preprocess
from zsad.errors import CellError
from zsad.grounding.provider import BoxProvider, provider
from zsad.method import AnyMethod, feature_request
from zsad.types import (
    Boxes,
    Category,
    Explanation,
    FeatureRequest,
    ImageFeatures,
    PromptView,
    Sample,
    ScoreContext,
    Scored,
)

if TYPE_CHECKING:
    from typing import Unpack

    from PIL.Image import Image

SPARE = 4  # reasons asked for per reason to show: some say the same, others do not fit

Stage = Callable[[str], AbstractContextManager[None]]


class ContextFields(TypedDict, total=False):
    """The fields of :class:`ScoreContext` that a caller of :meth:`Scorer.context` may give."""

    references: Mapping[str, ImageFeatures]
    population: ImageFeatures | None
    population_uids: Sequence[str]
    boxes: Sequence[Boxes | None] | None
    uids: Sequence[str]
    carry: Mapping[str, Any]
    views: Sequence[ImageFeatures]
    shifts: Sequence[float]


def encode(
    backbone: Backbone,
    images: Tensor,
    request: FeatureRequest,
    portions: Portions,
    stage: Stage = lambda name: nullcontext(),
) -> Iterator[tuple[slice, ImageFeatures]]:
    """Yield the features of images [B, 3, S, S], which may lie on the host, with their rows.

    Images that are not square [B, 3, H, W] are encoded as they are, whatever size the request
    names.  In one piece unless memory runs out; ``stage`` is entered around the stage ``encode``.
    Raises :class:`CellError` where not even one image fits.
    """

    if images.shape[-2] != images.shape[-1]:
        request = FeatureRequest(request.taps, replace(request.variant, image_size=0))

    @torch.no_grad()
    def work(rows: slice) -> ImageFeatures:
        with stage("encode"):
            part = seen_by(backbone, images[rows], request)
            return backbone.encode_image(part, request)

    return portions.run(work, len(images))


def seen_by(backbone: Backbone, images: Tensor, request: FeatureRequest) -> Tensor:
    """Images [B, 3, H, W] on the backbone's device; those of 8 bits are normalised there."""
    prepared = Preprocess.for_request(backbone.info, request)
    return prepared.brought(images, backbone.device)


class Scorer:
    """One method on its backbone, with the text of the categories that it was prepared for.

    ``image_size``: pixels, 0: the backbone's own.  ``label`` names the method in errors.
    ``stage``: entered around the stages ``boxes``, ``head`` and ``map``, to time them.
    Raises :class:`zsad.errors.WeightsError` if the size is not a multiple of the patch.
    """

    def __init__(
        self,
        method: AnyMethod,
        backbone: Backbone,
        image_size: int = 0,
        label: str = "",
        stage: Stage = lambda name: nullcontext(),
    ) -> None:
        self.method, self.backbone = method, backbone
        self.label = label or method.name
        self.stage = stage
        self.request = feature_request(method, image_size)
        self.image_size = self.request.variant.image_size
        self.text: dict[str, Any] = {}
        self.portions = Portions()  # of score and map; those of the encoder are the caller's
        self._reasons = Portions()
        self._prepared: dict[str, Category] = {}
        self.heads = HeadEngine(backbone)
        self.boxes: BoxProvider | None = None  # once :meth:`find_boxes` was called

    # ----------------------------------------------------------- once per set of categories
    @torch.no_grad()
    def prepare(self, categories: Sequence[Category]) -> None:
        """Encode the text of those categories that are new, or not what they were."""
        new = {c.key: c for c in categories if self._prepared.get(c.key) != c}
        if not new:
            return
        encoder = self.backbone.text_encoder(self.request.variant)
        with self.heads.active():
            self.text.update(self.method.prepare_text(list(new.values()), encoder))
        self._prepared.update(new)
        if self.boxes is not None:
            self._ask()

    def find_boxes(self) -> BoxProvider | None:
        """Find out where boxes come from, once, so that a file of them is read once; None for a
        method that wants none.  Raises what :func:`zsad.grounding.provider` raises."""
        if self.boxes is None:
            self._ask()
        return self.boxes

    def _ask(self) -> None:
        wanted = self.method.box_request(list(self._prepared.values()))
        if wanted is None:
            return
        if self.boxes is None:
            targets = {c.dataset for c in self._prepared.values()}
            target = targets.pop() if len(targets) == 1 else ""
            self.boxes = provider(wanted, device=str(self.backbone.device), target=target)
        else:
            self.boxes.request = wanted  # the same source, asked for more phrases

    # --------------------------------------------------------------------------- per batch
    def boxes_of(
        self,
        categories: Sequence[Category],
        samples: Sequence[Sample] = (),
        pictures: Sequence[Image] = (),
        names: Sequence[str] = (),
    ) -> list[Boxes | None] | None:
        """The detector's answers for a batch of samples, or else of pictures with their file
        ``names``; None where no boxes are wanted."""
        self.prepare(categories)
        source = self.find_boxes()
        if source is None:
            return None
        with self.stage("boxes"):
            if samples:
                return source.boxes(samples, categories)
            return source.boxes_of_pictures(pictures, categories, names)

    def views(
        self,
        images: Tensor,
        portions: Portions,
        stage: Stage = lambda name: nullcontext(),
        right: Tensor | None = None,
    ) -> list[ImageFeatures]:
        """The features of the further views of images [B, 3, S, S] that the method reads, with a
        row for each image: of those of :meth:`Method.views`, or of the ``right`` squares
        [B, 3, S, S] where pictures are taken in halves."""
        taps = self.method.view_taps()
        if not taps:
            return []
        request = FeatureRequest(taps, self.request.variant)
        found = []
        seen = seen_by(self.backbone, images if right is None else right, request)
        for view in self.method.views(seen) if right is None else [seen]:
            parts = [f for _, f in encode(self.backbone, view, request, portions, stage)]
            found.append(parts[0] if len(parts) == 1 else ImageFeatures.concat(parts))
        return found

    def context(
        self, categories: Sequence[Category], **rest: Unpack[ContextFields]
    ) -> ScoreContext[Any]:
        """What the method may look at for images of ``categories``, which are prepared if need
        be.  ``rest``: further fields of :class:`ScoreContext`.

        Training makes its own contexts: there a method encodes its prompts at every step, with
        gradients, and gets no prepared text.
        """
        self.prepare(categories)
        variant = self.request.variant
        return ScoreContext(
            categories,
            self.text,
            text_encoder=self.backbone.text_encoder(variant),
            image_encoder=self.backbone.image_encoder(variant),
            heads=self.heads,
            **rest,
        )

    def score(
        self, features: ImageFeatures, context: ScoreContext[Any]
    ) -> Iterator[tuple[slice, Scored[Any]]]:
        """Yield the batch as scored, with its rows: in one piece unless memory runs out.

        A method that carries state from image to image is never given less than the batch.
        Raises :class:`CellError` for a value that is not a number, and where memory does not
        suffice.
        """
        self.method.eval()
        count = features.batch_size
        if self.method.carries:
            yield slice(0, count), self._score_whole(features, context)
            return

        def work(rows: slice) -> Scored[Any]:
            if rows == slice(0, count):
                return self._score(features, context)
            return self._score(features.select(rows), context.select(rows))

        yield from self.portions.run(work, count)

    def _score_whole(self, features: ImageFeatures, context: ScoreContext[Any]) -> Scored[Any]:
        """Score at once or not at all."""
        try:
            return self._score(features, context)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise BatchTooLarge(
                f"{self.label}: out of memory with a batch of {features.batch_size}, and it "
                f"carries state from image to image, so the batch is not tried in portions; lower "
                f"run.batch_size, or choose backbone.precision=bf16"
            ) from error

    @torch.no_grad()
    def _score(self, features: ImageFeatures, context: ScoreContext[Any]) -> Scored[Any]:
        """Scores, maps and image scores; without effects."""
        method = self.method
        with self.stage("head"), self.heads.active():
            scores = method.score(features, context)
        with self.stage("map"):
            size = self._map_size(features)
            built = dense.build_maps(scores, method.map_spec(), size, context.boxes)
            image_scores = method.image_score(scores, built).float()
        # One copy of both: a device is waited for once.  What is not a number stays so in a sum,
        # which takes a tenth of the time of looking at every value.
        totals = built.final.flatten(1).sum(1).to(image_scores)
        image_scores, totals = torch.stack([image_scores, totals]).cpu()
        bad = ~torch.isfinite(image_scores)
        if not bool(torch.isfinite(totals).all()):  # or the sum alone is too large
            bad |= ~torch.isfinite(built.final).flatten(1).all(1).cpu()
        if bool(bad.any()):
            row = int(bad.nonzero()[0])
            name = context.uids[row] if context.uids else f"image {row + 1}"
            raise CellError(
                f"{self.label}: not-a-number in the map or score of {name}; "
                f"try backbone.precision=fp32, or report the method's config"
            )
        return Scored(features, context, scores, built, image_scores)

    def _map_size(self, features: ImageFeatures) -> int | tuple[int, int]:
        """Pixels of the input that the features were made of: a square's side, or (H, W)."""
        rows, columns = features.grid
        patch = self.backbone.info.patch
        return self.image_size if rows == columns else (rows * patch, columns * patch)

    @torch.no_grad()
    def explain(self, scored: Scored[Any], k: int = 5) -> list[list[Explanation]]:
        """The reasons per image, best first, those that say the same put together.

        There are ``k`` or more of each label, where the method has so many;
        :func:`zsad.components.reasons.fitting` chooses those to show.  A text is quoted as far as
        it was read.
        """
        count = scored.batch_size

        def work(rows: slice) -> list[list[Explanation]]:
            part = scored if rows == slice(0, count) else scored.select(rows)
            return self.method.explain(part, k * SPARE)

        found = [reasons for _, part in self._reasons.run(work, count) for reasons in part]
        read = self.backbone.read_part
        return [
            merged([replace(reason, text=read(reason.text)) for reason in row], c.class_name)
            for row, c in zip(found, scored.context.categories)
        ]

    @torch.no_grad()
    def prompt_views(self, scored: Scored[Any]) -> list[PromptView]:
        """What the single prompts say of each image, on the CPU; for methods that show them."""
        on_host: dict[int, Tensor] = {}  # what images share is copied, and held, once

        def host(value: Tensor) -> Tensor:
            return on_host.setdefault(id(value), value.float().cpu())

        found = self.method.prompt_views(scored)
        return [
            replace(
                view,
                abnormal=host(view.abnormal) > 0,
                embeddings=host(view.embeddings),
                image=host(view.image),
                kept=host(view.kept) > 0,
                maps=None if view.maps is None else host(view.maps),
            )
            for view in found
        ]


def without(
    image_score: Callable[[Any, Any], Any],
    scored: Scored[Any],
    masks: Sequence[NDArray[np.bool_] | None],
) -> tuple[Scored[Any], bool]:
    """The batch with ``masks`` [H, W] of its pictures out of maps and scores, and whether the
    method's score sees the ignored pixels nevertheless.

    Ignored pixels take the lowest value that their map has elsewhere, and the method's
    ``image_score`` is asked again.  A score that moves with :attr:`Scores.image` still sees them.
    """
    size = (scored.maps.final.shape[-2], scored.maps.final.shape[-1])
    planes = [np.zeros(size, dtype=bool) if m is None else shrunk(m, size) for m in masks]
    where = torch.from_numpy(np.stack(planes)).to(scored.maps.final.device)

    def emptied(maps: Tensor) -> Tensor:
        low = maps.masked_fill(where, torch.inf).flatten(1).amin(1)
        return torch.where(where, low[:, None, None].to(maps.dtype), maps)

    maps = scored.maps.each(emptied)
    with torch.no_grad():
        moved = replace(scored.scores, image=scored.scores.image + 1)
        scores, moved_scores = (image_score(s, maps).float().cpu() for s in (scored.scores, moved))
    return replace(scored, maps=maps, image_scores=scores), not torch.equal(scores, moved_scores)


def _on_host(info: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Values [B] by name on the CPU; those of one device and type in one copy."""
    found: dict[str, Tensor] = {}
    for kind in dict.fromkeys((v.device, v.dtype) for v in info.values()):
        names = [name for name, v in info.items() if (v.device, v.dtype) == kind]
        found.update(zip(names, torch.stack([info[name] for name in names]).cpu()))
    return found


@dataclass
class Means:
    """The means over the images of a category of what a method says of each
    (:attr:`zsad.types.Scores.info`)."""

    images: int = 0
    sums: dict[str, float] = field(default_factory=dict)

    def add(self, scored: Scored[Any]) -> None:
        """Add a batch."""
        self.images += scored.batch_size
        for name, values in _on_host(scored.scores.info).items():
            self.sums[name] = self.sums.get(name, 0.0) + float(values.double().sum())

    def figures(self) -> dict[str, float]:
        """Means by name, and ``images``, how many there were; empty before the first."""
        if not self.images:
            return {}
        return {"images": self.images, **{k: v / self.images for k, v in self.sums.items()}}

"""From pictures to predictions: what one request to score pictures goes through."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from zsad.backbones.batch_size import Portions
from zsad.data.ignored import Ignored
from zsad.data.transforms import Preprocess
from zsad.errors import RequestError, WeightsError, reason
from zsad.inference import calibration
from zsad.inference.pictures import BATCH, PictureBatch, Reading, failed, open_picture
from zsad.inference.prediction import Prediction
from zsad.inference.reference_bank import Bank
from zsad.inference.request import Pictures as Given
from zsad.inference.request import rows_by_category
from zsad.inference.tiles import WHOLE, Framing, reasons_of_tile
from zsad.method import AnyMethod
from zsad.runtime.boxes import in_tile
from zsad.runtime.enlarging import enlarged
from zsad.runtime.thresholds import Thresholds
from zsad.runtime.tiles import Box, Joined
from zsad.scoring import Scorer, encode, without
from zsad.types import Boxes, Category, ImageFeatures, ScoreContext, Scored

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHUNK = 16  # views of references that are encoded at a time


class Pictures:
    """Takes pictures to the features that a method reads, and its scores to predictions."""

    def __init__(self, scorer: Scorer, framing: Framing = WHOLE, batch_size: int = BATCH) -> None:
        self.scorer = scorer
        self.framing = framing
        self.batch_size = batch_size
        self.device = scorer.backbone.device
        self.preprocess = Preprocess.for_request(scorer.backbone.info, scorer.request)
        if self.preprocess.halves and framing.keep_aspect:
            raise RequestError(
                f"--keep-aspect: {scorer.label} takes pictures in two squares that keep their "
                f"proportions; leave it out"
            )
        self._portions = Portions()  # of the encoder
        self.reading = Reading(framing.bits, self.preprocess.stored)
        self.shows_prompts = False  # whether predictions say what single prompts find

    def predictions(self, scored: Scored[Any], explanations: int) -> list[Prediction]:
        """One for each image, with a map of the model's input size."""
        reasons = self.scorer.explain(scored, explanations) if explanations else None
        prompts = self.scorer.prompt_views(scored) if self.shows_prompts else None
        maps = scored.maps.final.float().cpu().numpy()
        info = {name: values.cpu().tolist() for name, values in scored.scores.info.items()}
        return [
            Prediction(
                score,
                maps[i],
                list(reasons[i]) if reasons else [],
                info={name: float(values[i]) for name, values in info.items()},
                most=explanations,
                prompts=prompts[i] if prompts else None,
            )
            for i, score in enumerate(scored.image_scores.cpu().tolist())
        ]

    def expect(self, pictures: int) -> None:
        """Let an engine be chosen, made and verified for this many pictures."""
        backbone, request = self.scorer.backbone, self.scorer.request
        engines, side = backbone.engines, self.scorer.image_size
        engines.pictures = max(engines.pictures, pictures)
        encoder = backbone.image_encoder(request.variant)
        engines.served(encoder, (side, side), request.taps, backbone.device.type)

    def views(self, images: Tensor, right: Tensor | None = None) -> list[ImageFeatures]:
        return self.scorer.views(images, self._portions, right=right)

    def encode(self, images: Tensor) -> Iterator[tuple[slice, ImageFeatures]]:
        return encode(self.scorer.backbone, images, self.scorer.request, self._portions)

    def alike(self, pictures: Sequence[Image.Image]) -> bool:
        """Whether the model sees all of the pictures at one size."""
        return len({self.input_size(p) for p in pictures}) < 2

    def tensor(self, pictures: Sequence[Image.Image]) -> Tensor:
        return torch.stack([self.preprocess(p, self.input_size(p)) for p in pictures])

    def input_size(self, picture: Image.Image) -> tuple[int, int]:
        """Height and width in pixels at which the model sees a picture."""
        patch = self.scorer.backbone.info.patch
        side = self.scorer.image_size
        return self.framing.input_size(picture.height, picture.width, side, patch)

    def shown(self, picture: Image.Image) -> list[Image.Image]:
        """What the model sees of a picture: the whole, and its tiles."""
        grid = self.framing.cut(picture.height, picture.width, self.scorer.image_size)
        return [picture, *(picture.crop(box) for box in grid.boxes if len(grid) > 1)]

    def encode_all(self, pictures: Given) -> ImageFeatures:
        if isinstance(pictures, Tensor):
            images = pictures.to(torch.float32)
        elif all(isinstance(p, Tensor) for p in pictures):
            images = torch.stack([torch.as_tensor(p, dtype=torch.float32) for p in pictures])
        else:
            opened = (open_picture(p, self.reading) for p in pictures)
            shown = [view for picture in opened for view in self.shown(picture)]
            step = CHUNK if self.alike(shown) else 1
            chunks = (shown[i : i + step] for i in range(0, len(shown), step))
            return joined([f for c in chunks for _, f in self.encode(self.tensor(c))])
        return joined([features for _, features in self.encode(images)])


@dataclass
class PictureRun:
    """One request to score pictures: everything but the pictures themselves.

    ``categories`` and ``boxes``: by row in the list of all pictures.  ``populations``: for
    methods that compare pictures, the features and names of all of a category.  ``carry``: what
    the last picture of every category left.  ``bank``: pictures that are compared with, too, and
    are not scored.
    """

    pictures: Pictures
    categories: Sequence[Category]
    boxes: Sequence[Boxes | None] | None
    references: Mapping[str, ImageFeatures]
    explanations: int
    thresholds: Thresholds | None
    ignore: Ignored | None = None
    populations: dict[str, tuple[ImageFeatures, list[str]]] = field(default_factory=dict)
    carry: dict[str, Any] = field(default_factory=dict)
    bank: Bank | None = None

    def score(self, batch: PictureBatch) -> list[Prediction]:
        """Score pictures together; maps have the model's input size, or that of joined tiles."""
        masks = [
            self.ignore.of(path, size) if self.ignore else None
            for path, size in zip(batch.paths, batch.sizes)
        ]
        if self.pictures.framing.tiled:
            found = [self._in_tiles(p, mask) for p, mask in zip(batch.singles(), masks)]
        elif batch.features is None and not self.pictures.alike(batch.pictures):
            return [p for part in batch.singles() for p in self.score(part)]
        else:
            seen = batch.pictures if batch.features is None else batch.features
            found = self._at_model_size(seen, self._context(batch), masks, self.explanations)
        for prediction, path, size in zip(found, batch.paths, batch.sizes):
            prediction.path, prediction.size = path, size
            prediction.thresholds = self._limits(prediction)
        return found

    def _at_model_size(
        self,
        seen: Sequence[Image.Image] | ImageFeatures,
        context: ScoreContext[Any],
        masks: Sequence[NDArray[np.bool_] | None],
        explanations: int,
    ) -> list[Prediction]:
        """Score what the model sees, pictures of one size or their features, without what
        ``masks`` ignore of them."""
        images: Tensor | None = None
        right: Tensor | None = None
        shifts: tuple[float, ...] = ()
        if isinstance(seen, ImageFeatures):
            parts = iter([(slice(0, seen.batch_size), seen)])
        else:
            if self.pictures.preprocess.halves:
                left, others, shifts = zip(*map(self.pictures.preprocess.squares, seen))
                images, right = torch.stack(left), torch.stack(others)
            else:
                images = self.pictures.tensor(seen)
            parts = self.pictures.encode(images)
        found: list[Prediction] = []
        carry = dict(self.carry)
        for rows, features in parts:
            part = context.select(rows)
            part.carry = dict(carry)
            if images is not None:
                others_of = None if right is None else right[rows]
                part.views, part.shifts = self.pictures.views(images[rows], others_of), shifts[rows]
            on_device = features.to(self.pictures.device)
            for inner, scored in self.pictures.scorer.score(on_device, part):
                carry |= scored.scores.carry
                found += self._predictions(scored, masks[rows][inner], explanations)
        self.carry = carry  # a batch that fails leaves what was there before
        return found

    def _in_tiles(self, batch: PictureBatch, mask: NDArray[np.bool_] | None) -> Prediction:
        """Score one picture as a whole and in tiles: the larger score, the larger map values, and
        the reasons for the score.  A tile that is ignored altogether is left out."""
        picture, size = batch.pictures[0], batch.sizes[0]
        side = self.pictures.scorer.image_size
        grid = self.pictures.framing.cut(*size, side)
        context = self._context(batch)
        whole = self._at_model_size([picture], context, [mask], self.explanations)[0]
        if len(grid) == 1:
            return whole
        tiles, merged = grid.boxes, Joined(grid, side)
        hidden = [None if mask is None else mask[t:b, l:r] for l, t, r, b in tiles]
        left = [i for i, part in enumerate(hidden) if part is None or not part.all()]
        best, score = 0, -math.inf
        for first in range(0, len(left), self.pictures.batch_size):
            chosen = left[first : first + self.pictures.batch_size]
            boxes = [tiles[i] for i in chosen]
            for i, found in zip(chosen, self._tiles(picture, context, boxes, hidden, chosen, 0)):
                merged.add(i, _values(found))
                whole.sees_ignored |= found.sees_ignored
                if found.image_score > score:
                    best, score = i, found.image_score
        whole.values = np.maximum(enlarged(_values(whole), merged.values.shape), merged.values)
        if score > whole.image_score:
            box = tiles[best]
            top = self._tiles(picture, context, [box], hidden, [best], self.explanations)[0]
            whole.image_score, whole.info = score, top.info
            whole.reasons = reasons_of_tile(top.reasons, box, size)
        return whole

    def _tiles(
        self,
        picture: Image.Image,
        context: ScoreContext[Any],
        boxes: Sequence[Box],
        hidden: Sequence[NDArray[np.bool_] | None],
        chosen: Sequence[int],
        explanations: int,
    ) -> list[Prediction]:
        """Score some tiles of a picture."""
        shown = [picture.crop(box) for box in boxes]
        part = _context_of_tiles(context, boxes, (picture.height, picture.width))
        return self._at_model_size(shown, part, [hidden[i] for i in chosen], explanations)

    def _predictions(
        self,
        scored: Scored[Any],
        masks: Sequence[NDArray[np.bool_] | None],
        explanations: int,
    ) -> list[Prediction]:
        """The predictions of some pictures, without what ``masks`` [H, W] ignore of them."""
        sees = False
        if any(mask is not None for mask in masks):
            scored, sees = without(self.pictures.scorer.method.image_score, scored, masks)
        found = self.pictures.predictions(scored, explanations)
        for prediction, mask in zip(found, masks):
            prediction.ignored, prediction.sees_ignored = mask, sees and mask is not None
        return found

    def _limits(self, prediction: Prediction) -> Thresholds:
        """The thresholds of one picture; none of a pixel where maps are not good for masks."""
        assert prediction.seen is not None
        scorer = self.pictures.scorer
        limits = calibration.of_picture(self.thresholds, prediction.seen, bool(scorer.text))
        return limits if scorer.method.masks else replace(limits, pixel=None)

    def gather(self, batches: Sequence[PictureBatch]) -> None:
        """Put the features of all pictures together by category."""
        encoded = [b for b in batches if b.features is not None]
        if not encoded:
            return
        whole = joined([b.features for b in encoded if b.features is not None])
        rows = [row for b in encoded for row in b.rows]
        names = [name for b in encoded for name in _names(b.rows, b.paths)]
        for key, chosen in rows_by_category([self.categories[row] for row in rows]).items():
            own = whole.select(chosen).to(self.pictures.device)
            called = [names[i] for i in chosen]
            if self.bank is not None:
                own = joined([own, self.bank.features])
                kept = range(1, self.bank.features.batch_size + 1)
                called += self.bank.names or [f"picture {i} of the bank" for i in kept]
            self.populations[key] = own, called

    def _context(self, batch: PictureBatch) -> ScoreContext[Any]:
        scorer = self.pictures.scorer
        categories = [self.categories[row] for row in batch.rows]
        if self.boxes is not None:
            boxes: list[Boxes | None] | None = [self.boxes[row] for row in batch.rows]
        elif batch.pictures:
            paths = ["" if p is None else p for p in batch.paths]
            coloured = [p if p.mode == "RGB" else p.convert("RGB") for p in batch.pictures]
            boxes = scorer.boxes_of(categories, pictures=coloured, names=paths)
        else:
            boxes = None
        population, uids = self.populations.get(categories[0].key, (None, []))
        return scorer.context(
            categories,
            boxes=boxes,
            uids=_names(batch.rows, batch.paths),
            references=self.references,
            population=population,
            population_uids=uids,
        )


def conclude(method: AnyMethod, predictions: Sequence[Prediction]) -> None:
    """Let the method finish the image scores of one whole category, where it wants to; each
    prediction keeps what it was before as ``info["raw_score"]``."""
    if not method.stretches or not predictions:
        return
    scores = torch.tensor([p.image_score for p in predictions])
    names = predictions[0].info
    info = {name: torch.tensor([p.info[name] for p in predictions]) for name in names}
    for prediction, value in zip(predictions, method.over_category(scores, info).tolist()):
        prediction.info["raw_score"] = prediction.image_score
        prediction.image_score = value
    if method.stretches_maps:
        held = [p.values for p in predictions if p.values is not None]
        low, high = min(v.min() for v in held), max(v.max() for v in held)
        for prediction in predictions:
            if prediction.values is not None:
                prediction.values = (prediction.values - low) / max(high - low, 1e-12)


def joined(parts: Sequence[ImageFeatures]) -> ImageFeatures:
    """Raises :class:`RequestError` for features of pictures that were not seen at one size."""
    if len({part.grid for part in parts}) > 1:
        raise RequestError(
            "--keep-aspect: pictures that are compared with each other need the same proportions; "
            "give such ones, or leave --keep-aspect out"
        )
    return parts[0] if len(parts) == 1 else ImageFeatures.concat(parts)


def _names(rows: Sequence[int], paths: Sequence[str | None]) -> list[str]:
    """What pictures are called: their path, or their place in the list."""
    return [path or f"picture {row + 1}" for row, path in zip(rows, paths)]


def attempt(
    score: Callable[[PictureBatch], list[Prediction]], batch: PictureBatch, keep_errors: bool
) -> dict[int, Prediction]:
    """Predictions by row.  Where a batch fails and errors are kept, its pictures are tried one by
    one, so that each keeps its own error; what is wrong with the request still ends it."""
    if not batch.rows:
        return {}
    try:
        return dict(zip(batch.rows, score(batch)))
    except (RequestError, WeightsError):
        raise
    except Exception as error:  # a method is foreign code
        if not keep_errors:
            raise
        if len(batch.rows) == 1:
            return {batch.rows[0]: failed(batch.paths[0], reason(error))}
    found: dict[int, Prediction] = {}
    for part in batch.singles():
        found |= attempt(score, part, keep_errors)
    return found


def _values(prediction: Prediction) -> NDArray[np.float32]:
    """The map of a picture that was scored."""
    assert prediction.values is not None
    return prediction.values


def _context_of_tiles(
    whole: ScoreContext[Any], tiles: Sequence[Box], size: tuple[int, int]
) -> ScoreContext[Any]:
    """The context of tiles of one picture: what is known of it, and its boxes where they lie."""
    boxes = whole.boxes
    return replace(
        whole,
        categories=[whole.categories[0]] * len(tiles),
        boxes=None if boxes is None else [in_tile(boxes[0], tile, size) for tile in tiles],
        uids=[whole.uids[0]] * len(tiles),
    )

"""From pictures to predictions: what one request to score pictures goes through."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from zsad import config as cfg
from zsad.backbones.batch_size import Portions
from zsad.data.transforms import Preprocess
from zsad.errors import RequestError, WeightsError, ZsadError
from zsad.inference import calibration
from zsad.inference.ignored import Ignored, without
from zsad.inference.pictures import PictureBatch, failed, open_picture
from zsad.inference.prediction import Prediction, Thresholds
from zsad.inference.request import Pictures as Given
from zsad.inference.request import rows_by_category
from zsad.method import AnyMethod
from zsad.scoring import Scorer, encode
from zsad.types import Boxes, Category, ImageFeatures, ScoreContext, Scored

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Pictures:
    """Takes pictures to the features that a method reads, and its scores to predictions."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer
        self.device = scorer.backbone.device
        self.preprocess = Preprocess.for_variant(scorer.backbone.info, scorer.request.variant)
        self._portions = Portions()  # of the encoder

    def predictions(self, scored: Scored[Any], explanations: int) -> list[Prediction]:
        """One for each image, with a map of the model's input size."""
        reasons = self.scorer.explain(scored, explanations) if explanations else None
        maps = scored.maps.final.float().cpu().numpy()
        info = {name: values.cpu().tolist() for name, values in scored.scores.info.items()}
        return [
            Prediction(
                score,
                maps[i],
                list(reasons[i]) if reasons else [],
                info={name: float(values[i]) for name, values in info.items()},
            )
            for i, score in enumerate(scored.image_scores.cpu().tolist())
        ]

    def views(self, images: Tensor) -> list[ImageFeatures]:
        return self.scorer.views(images, self._portions)

    def encode(self, images: Tensor) -> Iterator[tuple[slice, ImageFeatures]]:
        return encode(self.scorer.backbone, images, self.scorer.request, self._portions)

    def tensor(self, pictures: Sequence[Image.Image]) -> Tensor:
        return torch.stack([self.preprocess(p) for p in pictures])

    def encode_all(self, pictures: Given) -> ImageFeatures:
        if isinstance(pictures, Tensor):
            images = pictures.to(torch.float32)
        elif all(isinstance(p, Tensor) for p in pictures):
            images = torch.stack([torch.as_tensor(p, dtype=torch.float32) for p in pictures])
        else:
            images = self.tensor([open_picture(p) for p in pictures])
        return joined([features for _, features in self.encode(images)])


@dataclass
class PictureRun:
    """One request to score pictures: everything but the pictures themselves.

    ``categories`` and ``boxes``: by row in the list of all pictures.  ``populations``: for
    methods that compare pictures, the features and names of all of a category.  ``carry``: what
    the last picture of every category left.
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

    def score(self, batch: PictureBatch) -> list[Prediction]:
        """Score pictures together; maps have the model's input size."""
        context = self._context(batch)
        masks = [
            self.ignore.of(path, size) if self.ignore else None
            for path, size in zip(batch.paths, batch.sizes)
        ]
        images = None if batch.features is not None else self.pictures.tensor(batch.pictures)
        if batch.features is not None:
            parts = iter([(slice(0, len(batch.rows)), batch.features)])
        else:
            assert images is not None
            parts = self.pictures.encode(images)
        found: list[Prediction] = []
        carry = dict(self.carry)
        for rows, features in parts:
            part = context.select(rows)
            part.carry = dict(carry)
            part.views = [] if images is None else self.pictures.views(images[rows])
            on_device = features.to(self.pictures.device)
            for inner, scored in self.pictures.scorer.score(on_device, part):
                carry |= scored.scores.carry
                found += self._predictions(scored, masks[rows][inner])
        self.carry = carry  # a batch that fails leaves what was there before
        for prediction, path, size in zip(found, batch.paths, batch.sizes):
            prediction.path, prediction.size = path, size
            prediction.thresholds = self._limits(prediction)
        return found

    def _predictions(
        self, scored: Scored[Any], masks: Sequence[NDArray[np.bool_] | None]
    ) -> list[Prediction]:
        """The predictions of some pictures, without what ``masks`` [H, W] ignore of them."""
        sees = False
        if any(mask is not None for mask in masks):
            scored, sees = without(self.pictures.scorer.method.image_score, scored, masks)
        found = self.pictures.predictions(scored, self.explanations)
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
            self.populations[key] = own, [names[i] for i in chosen]

    def _context(self, batch: PictureBatch) -> ScoreContext[Any]:
        scorer = self.pictures.scorer
        categories = [self.categories[row] for row in batch.rows]
        if self.boxes is not None:
            boxes: list[Boxes | None] | None = [self.boxes[row] for row in batch.rows]
        elif batch.pictures:
            paths = ["" if p is None else p for p in batch.paths]
            boxes = scorer.boxes_of(categories, pictures=batch.pictures, names=paths)
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


def joined(parts: Sequence[ImageFeatures]) -> ImageFeatures:
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
            known = isinstance(error, ZsadError)
            text = str(error) if known else f"{type(error).__name__}: {cfg.first_line(error)}"
            return {batch.rows[0]: failed(batch.paths[0], text)}
    found: dict[int, Prediction] = {}
    for part in batch.singles():
        found |= attempt(score, part, keep_errors)
    return found

"""A single method, ready to use on images: what :func:`zsad.load_method` returns."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from zsad import config as cfg
from zsad.backbones import Backbone
from zsad.backbones.batch_size import Portions
from zsad.data.transforms import Preprocess
from zsad.errors import RequestError, WeightsError, ZsadError, is_text
from zsad.inference import calibration
from zsad.inference.pictures import BATCH, PictureBatch, failed, open_picture, read_ahead
from zsad.inference.prediction import Prediction, Thresholds
from zsad.method import AnyMethod
from zsad.scoring import Scorer, encode
from zsad.types import (
    Boxes,
    Category,
    ImageFeatures,
    ScoreContext,
    Scored,
    TrainBatch,
)


class LoadedMethod:
    """A method with its backbone.  Not thread-safe.

    ``report`` holds what importing an official checkpoint had to say.
    """

    def __init__(
        self,
        method: AnyMethod,
        backbone: Backbone,
        device: torch.device,
        image_size: int = 0,
        report: Sequence[str] = (),
    ) -> None:
        self.method = method.to(device)
        self.backbone = backbone
        self.device = device
        self.report = list(report)
        self.scorer = Scorer(self.method, backbone, image_size)
        self.request = self.scorer.request
        self.image_size = self.scorer.image_size
        self._preprocess = Preprocess.for_backbone(backbone.info, self.image_size)
        self._portions = Portions()  # of the encoder

    # ------------------------------------------------------------------------ prediction
    def predict(
        self,
        images: Any,
        class_name: str | Sequence[str] = "object",
        boxes: Sequence[Mapping[str, Any] | None] | None = None,
        references: Sequence[Any] = (),
        explanations: int = 5,
        thresholds: Thresholds | None = None,
    ) -> list[Prediction]:
        """Score pictures: paths, PIL images or arrays [H, W, 3] uint8; one or a list of them.

        ``class_name``: what the pictures show ("metal nut"), one for all or one each.
        ``references``: normal pictures of the same thing, for few-shot methods.
        ``thresholds``: those of :meth:`calibrate`; without them each picture gets the uncalibrated
        ones of :mod:`zsad.inference.calibration`.
        The anomaly map has the size of the picture (float32 [H, W]); a higher value is more
        anomalous.  Raises :class:`zsad.errors.DataError` for a picture that cannot be read.
        """
        items = list(images) if isinstance(images, (list, tuple)) else [images]
        return list(self.stream(items, class_name, boxes, references, explanations, thresholds))

    def stream(
        self,
        images: Sequence[Any],
        class_name: str | Sequence[str] = "object",
        boxes: Sequence[Mapping[str, Any] | None] | None = None,
        references: Sequence[Any] = (),
        explanations: int = 5,
        thresholds: Thresholds | None = None,
        keep_errors: bool = False,
    ) -> Iterator[Prediction]:
        """Score as :meth:`predict` does, one after the other: for more pictures than fit in memory.

        With ``keep_errors`` a picture that cannot be read or scored is a prediction with an
        ``error``, and the others go on.
        """
        names = [class_name] * len(images) if isinstance(class_name, str) else list(class_name)
        _one_per_picture("class names", names, images)
        if boxes is not None:
            _one_per_picture("box entries", boxes, images)
        run = _Run(
            self,
            [category_of(name) for name in names],
            None if boxes is None else [_boxes(b) for b in boxes],
            self._reference_features(references),
            explanations,
            thresholds,
        )
        # One by one, where an image is scored with what the one before it left.
        read = read_ahead(images, keep_errors, 1 if self.method.carries else BATCH)
        if self.method.transductive:
            yield from self._together(read, run)
            return
        for batch in read:
            yield from batch.in_order(_attempt(run.score, batch, keep_errors))

    def calibrate(
        self,
        normal: Sequence[Any],
        class_name: str = "object",
        references: Sequence[Any] = (),
        false_alarms: float = calibration.FALSE_ALARMS,
    ) -> Thresholds:
        """Thresholds from a few normal pictures; :mod:`zsad.inference.calibration` has the rule.

        ``false_alarms``: the highest share of normal pictures that may be called anomalous.
        Raises :class:`zsad.errors.DataError` for a picture that cannot be read.
        """
        found = [
            (p.image_score, float(p.anomaly_map.max()))
            for p in self.stream(list(normal), class_name, None, references, explanations=0)
            if p.anomaly_map is not None  # without keep_errors there is one
        ]
        return calibration.calibrated([f[0] for f in found], [f[1] for f in found], false_alarms)

    def identity(self, class_name: str) -> dict[str, Any]:
        """What thresholds depend on besides the normal pictures."""
        made_for: dict[str, Any] = {
            "method": self.method.name,
            "config": cfg.digest(cfg.identity(self.method.config), 16),
            "backbone": self.backbone.info.name,
            "weights": self.backbone.info.weights_sha256,
            "image_size": self.image_size,
            "class_name": category_of(class_name).class_name,
        }
        if self.method.revision > 1:
            made_for["revision"] = self.method.revision
        if self.method.phases():
            digest = hashlib.sha256()
            for name, value in sorted(self.method.trained_state().items()):
                digest.update(name.encode())
                digest.update(value.detach().float().cpu().numpy().tobytes())
            made_for["state"] = digest.hexdigest()[:16]
        return made_for

    @torch.no_grad()
    def predict_tensor(
        self,
        images: Tensor,
        class_names: str | Sequence[str] = "object",
        boxes: Sequence[Mapping[str, Any] | None] | None = None,
        references: Sequence[Image.Image] = (),
        explanations: int = 5,
    ) -> list[Prediction]:
        """Score images [B, 3, S, S] that are already normalised at the model's input size.

        ``boxes``: per image ``{"boxes": [[cx, cy, w, h]], "scores": [...], "phrases": [...]}``,
        the detector's raw answer (0..1), or None.  Maps are float32 [S, S].
        """
        images = torch.as_tensor(images, dtype=torch.float32)
        size = self.image_size
        if (
            images.ndim != 4
            or images.shape[1] != 3
            or images.shape[-1] != size
            or images.shape[-2] != size
        ):
            raise RequestError(
                f"images have shape {tuple(images.shape)}, expected [B, 3, {size}, {size}]; "
                f"give another image_size to load_method, or use predict for pictures"
            )
        near = self._reference_features(references)
        context = self._context(class_names, len(images), boxes, near)
        parts = self._encode(images)
        if self.method.transductive:
            whole = _joined([features for _, features in parts])
            context.population = whole
            parts = iter([(slice(0, len(images)), whole)])
        carry: dict[str, Any] = {}
        found: list[Prediction] = []
        for rows, features in parts:
            context.carry = dict(carry)
            for _, scored in self.scorer.score(features, context.select(rows)):
                carry |= scored.scores.carry
                found += self._predictions(scored, explanations)
        return found

    def _predictions(self, scored: Scored[Any], explanations: int) -> list[Prediction]:
        """One for each image, with a map of the model's input size."""
        reasons = self.scorer.explain(scored, explanations) if explanations else None
        maps = scored.maps.final.float().cpu().numpy()
        return [
            Prediction(score, maps[i], list(reasons[i]) if reasons else [])
            for i, score in enumerate(scored.image_scores.cpu().tolist())
        ]

    def _encode(self, images: Tensor) -> Iterator[tuple[slice, ImageFeatures]]:
        return encode(self.backbone, images, self.request, self._portions)

    def _encode_pictures(
        self, pictures: Sequence[Image.Image]
    ) -> Iterator[tuple[slice, ImageFeatures]]:
        return self._encode(torch.stack([self._preprocess(p) for p in pictures]))

    def _together(self, read: Iterator[PictureBatch], run: _Run) -> Iterator[Prediction]:
        """Score with a method that compares all pictures: encode all of them first."""
        batches: list[PictureBatch] = []
        for batch in read:
            if batch.rows:
                parts = self._encode_pictures(batch.pictures)
                batch.features = _joined([f.to("cpu") for _, f in parts])
            if self.method.box_request([]) is None:
                batch.pictures = []  # only a detector looks at them again
            batches.append(batch)
        encoded = [b.features for b in batches if b.features is not None]
        if encoded:
            run.population = _joined(encoded).to(self.device)
        run.population_uids = [name for b in batches for name in _names(b.rows, b.paths)]
        for batch in batches:
            found = run.score(batch) if batch.rows else []
            yield from batch.in_order(dict(zip(batch.rows, found)))

    # -------------------------------------------------------------------------- training
    def losses(
        self,
        images: Tensor,
        masks: Tensor,
        labels: Tensor,
        class_names: str | Sequence[str] = "object",
        phase: str | None = None,
    ) -> dict[str, Tensor]:
        """Run one training forward without a step and return the named loss terms.

        ``images`` [B, 3, S, S] normalised, ``masks`` [B, S, S] or [B, 1, S, S] in {0, 1},
        ``labels`` [B].  The key ``total`` is what training minimises; gradients flow to the
        method's parameters.  ``phase``: the training phase, by default the first.
        Raises :class:`RequestError` for a training-free method.
        """
        phases = {p.name: p for p in self.method.phases()}
        if not phases:
            raise RequestError(f"method '{self.method.name}' is training-free: it has no losses")
        name = phase or next(iter(phases))
        if name not in phases:
            raise RequestError(
                f"method '{self.method.name}' has no phase '{name}'; phases: {', '.join(phases)}"
            )
        images = torch.as_tensor(images, dtype=torch.float32).to(self.device)
        masks = torch.as_tensor(masks, dtype=torch.float32).to(self.device)
        masks = masks[:, None] if masks.ndim == 3 else masks
        targets = TrainBatch(masks, torch.as_tensor(labels).long().to(self.device))
        context = ScoreContext(
            _categories(class_names, len(images)),
            self.scorer.text,
            text_encoder=self.backbone.text_encoder(self.request.variant),
            image_encoder=self.backbone.image_encoder(self.request.variant),
            uids=[str(i) for i in range(len(images))],
        )
        features = self.backbone.encode_image(images, self.request)
        self.method.train()
        self.method.phase = name
        self.method.freeze_all_but(self.method.parameters_of_phase(phases[name]))
        return self.method.losses(features, targets, context)

    # --------------------------------------------------------------------------- helpers
    def _context(
        self,
        class_names: str | Sequence[str],
        count: int,
        boxes: Sequence[Any] | None,
        references: ImageFeatures | None = None,
    ) -> ScoreContext[Any]:
        categories = _categories(class_names, count)
        if boxes is not None and len(boxes) != count:
            raise RequestError(
                f"{len(boxes)} box entries for {count} images; give one per image (None for none)"
            )
        return self.scorer.context(
            categories,
            boxes=None if boxes is None else [_boxes(b) for b in boxes],
            uids=[str(i) for i in range(count)],
            references={} if references is None else {c.key: references for c in categories},
        )

    def _reference_features(self, references: Sequence[Any]) -> ImageFeatures | None:
        """The features of a few-shot method's references, encoded once; None for zero shots."""
        if not self.method.shots:
            return None
        if len(references) < self.method.shots:
            raise RequestError(
                f"method '{self.method.name}' needs {self.method.shots} normal reference pictures, "
                f"got {len(references)}; pass references=[...]"
            )
        pictures = [open_picture(r) for r in references[: self.method.shots]]
        return _joined([features for _, features in self._encode_pictures(pictures)])


@dataclass
class _Run:
    """One call of :meth:`LoadedMethod.stream`: everything but the pictures.

    ``categories`` and ``boxes``: by row in the list of all pictures.  ``carry``: what the last
    picture of every category left.
    """

    loaded: LoadedMethod
    categories: Sequence[Category]
    boxes: Sequence[Boxes | None] | None
    references: ImageFeatures | None
    explanations: int
    thresholds: Thresholds | None
    population: ImageFeatures | None = None
    population_uids: Sequence[str] = ()
    carry: dict[str, Any] = field(default_factory=dict)

    def score(self, batch: PictureBatch) -> list[Prediction]:
        """Score pictures together; maps have each picture's own size."""
        context = self._context(batch)
        if batch.features is not None:
            parts = iter([(slice(0, len(batch.rows)), batch.features)])
        else:
            parts = self.loaded._encode_pictures(batch.pictures)
        found: list[Prediction] = []
        carry = dict(self.carry)
        for rows, features in parts:
            context.carry = dict(carry)
            on_device = features.to(self.loaded.device)
            for _, scored in self.loaded.scorer.score(on_device, context.select(rows)):
                carry |= scored.scores.carry
                found += self.loaded._predictions(scored, self.explanations)
        self.carry = carry  # a batch that fails leaves what was there before
        for prediction, path, size in zip(found, batch.paths, batch.sizes):
            prediction.path = path
            assert prediction.anomaly_map is not None
            whole = _resize(prediction.anomaly_map, *size)
            prediction.anomaly_map = whole
            prediction.thresholds = self.thresholds or calibration.uncalibrated(
                whole, bool(self.loaded.scorer.text)
            )
        return found

    def _context(self, batch: PictureBatch) -> ScoreContext[Any]:
        scorer, near = self.loaded.scorer, self.references
        categories = [self.categories[row] for row in batch.rows]
        if self.boxes is not None:
            boxes: list[Boxes | None] | None = [self.boxes[row] for row in batch.rows]
        elif batch.pictures:
            paths = ["" if p is None else p for p in batch.paths]
            boxes = scorer.boxes_of(categories, pictures=batch.pictures, names=paths)
        else:
            boxes = None
        return scorer.context(
            categories,
            boxes=boxes,
            uids=_names(batch.rows, batch.paths),
            references={} if near is None else {c.key: near for c in categories},
            population=self.population,
            population_uids=self.population_uids,
        )


def _joined(parts: Sequence[ImageFeatures]) -> ImageFeatures:
    return parts[0] if len(parts) == 1 else ImageFeatures.concat(parts)


def _names(rows: Sequence[int], paths: Sequence[str | None]) -> list[str]:
    """What pictures are called: their path, or their place in the list."""
    return [path or f"picture {row + 1}" for row, path in zip(rows, paths)]


def _categories(class_names: str | Sequence[str], count: int) -> list[Category]:
    names = [class_names] * count if isinstance(class_names, str) else list(class_names)
    if len(names) != count:
        raise RequestError(
            f"{len(names)} class names for {count} images; give one, or one per image"
        )
    return [category_of(n) for n in names]


def _one_per_picture(what: str, values: Sequence[Any], images: Sequence[Any]) -> None:
    if len(values) != len(images):
        raise RequestError(f"{len(values)} {what} for {len(images)} images; give one per image")


def _attempt(
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
        found |= _attempt(score, part, keep_errors)
    return found


def category_of(class_name: str) -> Category:
    """The category of a spoken or raw class name: "metal_nut" and "metal nut" are the same."""
    spoken = " ".join(str(class_name).replace("_", " ").split())
    if not spoken:
        raise RequestError("the class name is empty; say what the picture shows, e.g. 'metal nut'")
    if not is_text(spoken):
        raise RequestError(f"the class name {spoken} is not UTF-8; write it in letters")
    return Category(dataset="", key=str(class_name), class_name=spoken)


def _boxes(value: Any) -> Boxes | None:
    if value is None or isinstance(value, Boxes):
        return value
    try:
        return Boxes.from_dict(value)
    except (KeyError, TypeError, ValueError) as error:
        raise RequestError(
            f"boxes must be a mapping of 'boxes', 'scores', 'phrases' ({error!r})"
        ) from None


def _resize(values: np.ndarray, height: int, width: int) -> np.ndarray:
    tensor = torch.from_numpy(values)[None, None]
    out = torch.nn.functional.interpolate(
        tensor, size=(height, width), mode="bilinear", align_corners=False
    )
    return out[0, 0].numpy()

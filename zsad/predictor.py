"""A single method, ready to use on images: what :func:`zsad.load_method` returns."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from zsad import calibration
from zsad import config as cfg
from zsad import maps as dense
from zsad.backbones import Backbone
from zsad.data.transforms import Preprocess
from zsad.errors import CellError, RequestError, WeightsError, ZsadError
from zsad.method import Method, feature_request
from zsad.photos import PictureBatch, failed, open_picture, read_ahead
from zsad.types import (
    Boxes,
    BuiltMaps,
    Category,
    FeatureRequest,
    ImageFeatures,
    Prediction,
    ScoreContext,
    Scores,
    Thresholds,
    TrainBatch,
)

References = Sequence[Any] | Tensor | Mapping[str, "Sequence[Any] | Tensor"]
"""Normal images: pictures, or a tensor [K, 3, S, S]; for all classes, or by class name."""


class LoadedMethod:
    """A method with its backbone.  Not thread-safe.

    ``report`` holds what importing an official checkpoint had to say.
    """

    def __init__(
        self,
        method: Method,
        backbone: Backbone,
        device: torch.device,
        image_size: int = 0,
        report: Sequence[str] = (),
    ) -> None:
        self.method = method.to(device)
        self.backbone = backbone
        self.device = device
        self.report = list(report)
        self.request = feature_request(method, image_size)
        self.image_size = self.request.variant.image_size
        self._preprocess = Preprocess.for_variant(backbone.info, self.request.variant)
        self._text: dict[str, Any] = {}
        self._prepared: dict[str, Category] = {}  # those whose text is in _text

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
        ones of :mod:`zsad.calibration`.
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
        near = self._reference_features(references)

        def score(
            batch: PictureBatch,
            population: ImageFeatures | None = None,
            uids: Sequence[str] = (),
        ) -> list[Prediction]:
            rows = batch.rows
            context = self._context(
                [names[i] for i in rows],
                len(rows),
                None if boxes is None else [boxes[i] for i in rows],
            )
            if boxes is None and batch.pictures:
                paths = ["" if p is None else p for p in batch.paths]
                self._detect(context, batch.pictures, paths)
            context.population, context.population_uids = population, uids
            if near is not None:
                context.references = {c.key: near for c in context.categories}
            if batch.features is None:
                batch.features = self._encode(batch.pictures)
            found = self._score(batch.features.to(self.device), context, explanations)
            for prediction, path, (height, width) in zip(found, batch.paths, batch.sizes):
                prediction.path = path
                prediction.anomaly_map = _resize(prediction.anomaly_map, height, width)
                prediction.thresholds = thresholds or calibration.uncalibrated(
                    prediction.anomaly_map, bool(self._text)
                )
            return found

        read = read_ahead(images, keep_errors)
        if self.method.transductive:
            yield from self._together(read, score)
            return
        for batch in read:
            yield from batch.in_order(_attempt(score, batch, keep_errors))

    def calibrate(
        self,
        normal: Sequence[Any],
        class_name: str = "object",
        references: Sequence[Any] = (),
        false_alarms: float = calibration.FALSE_ALARMS,
    ) -> Thresholds:
        """Thresholds from a few normal pictures; see :mod:`zsad.calibration` for the rule.

        ``false_alarms``: the highest share of normal pictures that may be called anomalous.
        Raises :class:`zsad.errors.DataError` for a picture that cannot be read.
        """
        found = [
            (p.image_score, float(p.anomaly_map.max()))
            for p in self.stream(list(normal), class_name, None, references, explanations=0)
        ]
        return calibration.calibrated([f[0] for f in found], [f[1] for f in found], false_alarms)

    def identity(self, class_name: str) -> dict[str, Any]:
        """What thresholds depend on besides the normal pictures."""
        made_for: dict[str, Any] = {
            "method": self.method.name,
            "config": cfg.digest(cfg.to_dict(self.method.config), 16),
            "backbone": self.backbone.info.name,
            "weights": self.backbone.info.weights_sha256,
            "image_size": self.image_size,
            "class_name": category_of(class_name).class_name,
        }
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
        references: References = (),
        explanations: int = 5,
        kinds: str | Sequence[str] | None = None,
        domains: str | Sequence[str] | None = None,
    ) -> list[Prediction]:
        """Score images [B, 3, S, S] as the encoder takes them: preprocessed, of its input size.

        ``references``: normal images for few-shot methods, pictures or a tensor [K, 3, S, S]; where
        classes have their own, by class name.  ``kinds``: ``object`` or ``texture``, ``domains``:
        ``industrial`` or ``medical``, one for all or one each (methods whose prompts depend on it).

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
        context = self._context(class_names, len(images), boxes, kinds=kinds, domains=domains)
        context.references = self._references(references, context.categories)
        features = self.backbone.encode_image(images.to(self.device), self.request)
        context.views = self._views(images)
        if not self.method.transductive:
            return self._score(features, context, explanations)
        found: dict[int, Prediction] = {}
        for rows in _by_category(context.categories).values():
            own = features if len(rows) == len(images) else features.select(rows)
            together = replace(
                context,
                categories=[context.categories[i] for i in rows],
                boxes=None if context.boxes is None else [context.boxes[i] for i in rows],
                uids=[context.uids[i] for i in rows],
                population=own,
            )
            scored = self._score(own, together, explanations)
            conclude(self.method, scored)
            found.update(zip(rows, scored))
        return [found[i] for i in range(len(images))]

    @torch.no_grad()
    def _score(
        self, features: ImageFeatures, context: ScoreContext, explanations: int
    ) -> list[Prediction]:
        """Score encoded images; maps at the model's input size.  Raises :class:`CellError` for
        a score that is not a number."""
        self.method.eval()
        scores: Scores = self.method.score(features, context)
        built: BuiltMaps = dense.build_maps(
            scores, self.method.map_spec(), self.image_size, context.boxes
        )
        image_scores = self.method.image_score(scores, built).float()
        finite = torch.isfinite(image_scores) & torch.isfinite(built.final).flatten(1).all(1)
        if not bool(finite.all()):
            raise CellError(
                f"{self.method.name}: not-a-number in the map or the score; try precision fp32"
            )
        reasons = (
            self.method.explain(features, scores, built, context, explanations)
            if explanations
            else None
        )
        maps = built.final.float().cpu().numpy()
        return [
            Prediction(
                score,
                maps[i],
                list(reasons[i]) if reasons else [],
                info={name: float(values[i]) for name, values in scores.info.items()},
            )
            for i, score in enumerate(image_scores.cpu().tolist())
        ]

    def _views(self, images: Tensor) -> list[ImageFeatures]:
        """The features of further views that the method asks for."""
        request = FeatureRequest(self.method.view_taps(), self.request.variant)
        views = self.method.views(images.to(self.device))
        return [self.backbone.encode_image(view, request) for view in views]

    @torch.no_grad()
    def _encode(self, pictures: Sequence[Image.Image]) -> ImageFeatures:
        tensor = torch.stack([self._preprocess(p) for p in pictures])
        return self.backbone.encode_image(tensor.to(self.device), self.request)

    def _together(
        self,
        read: Iterator[PictureBatch],
        score: Callable[[PictureBatch, ImageFeatures | None, Sequence[str]], list[Prediction]],
    ) -> Iterator[Prediction]:
        """Score with a method that compares all pictures: encode all of them first."""
        batches: list[PictureBatch] = []
        for batch in read:
            if batch.rows:
                batch.features = self._encode(batch.pictures).to("cpu")
            if self.method.box_request([]) is None:
                batch.pictures = []  # only a detector looks at them again
            batches.append(batch)
        encoded = [b.features for b in batches if b.features is not None]
        population = ImageFeatures.concat(encoded).to(self.device) if encoded else None
        uids = [p or f"picture {i + 1}" for b in batches for i, p in zip(b.rows, b.paths)]
        for batch in batches:
            found = score(batch, population, uids) if batch.rows else []
            yield from batch.in_order(dict(zip(batch.rows, found)))

    # -------------------------------------------------------------------------- training
    def losses(
        self,
        images: Tensor,
        masks: Tensor | None,
        labels: Tensor,
        class_names: str | Sequence[str] = "object",
        phase: str | None = None,
    ) -> dict[str, Tensor]:
        """Run one training forward without a step and return the named loss terms.

        ``images`` [B, 3, S, S] as the encoder takes them, ``masks`` [B, S, S] or [B, 1, S, S] in
        {0, 1}, None: unknown (for methods that train without), ``labels`` [B].  The key ``total`` is what training minimises; gradients flow to the
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
        targets = self._targets(images, masks, torch.as_tensor(labels).long().to(self.device))
        context = self._context(class_names, len(images), None, text=False)
        features = self.backbone.encode_image(images, self.request)
        self.method.train()
        self.method.phase = name
        self.method.freeze_all_but(self.method.parameters_of_phase(phases[name]))
        return self.method.losses(features, targets, context)

    # --------------------------------------------------------------------------- helpers
    def _targets(self, images: Tensor, masks: Tensor | None, labels: Tensor) -> TrainBatch:
        """Raises :class:`RequestError` where masks are unknown and the method needs them."""
        if masks is None:
            if self.method.needs_masks:
                raise RequestError(f"method '{self.method.name}' is trained on masks; give masks")
            unknown = torch.zeros(len(images), dtype=torch.bool, device=self.device)
            return TrainBatch(torch.zeros_like(images[:, :1]), labels, unknown)
        masks = torch.as_tensor(masks, dtype=torch.float32).to(self.device)
        return TrainBatch(masks[:, None] if masks.ndim == 3 else masks, labels)

    def _context(
        self,
        class_names: str | Sequence[str],
        count: int,
        boxes: Sequence[Any] | None,
        text: bool = True,
        kinds: str | Sequence[str] | None = None,
        domains: str | Sequence[str] | None = None,
    ) -> ScoreContext:
        names = [class_names] * count if isinstance(class_names, str) else list(class_names)
        if len(names) != count:
            raise RequestError(
                f"{len(names)} class names for {count} images; give one, or one per image"
            )
        if boxes is not None and len(boxes) != count:
            raise RequestError(
                f"{len(boxes)} box entries for {count} images; give one per image (None for none)"
            )
        categories = [
            category_of(*given)
            for given in zip(
                names,
                _one_each("kinds", kinds, "object", count),
                _one_each("domains", domains, "industrial", count),
            )
        ]
        encoder = self.backbone.text_encoder(self.request.variant)
        missing = {c.key: c for c in categories if self._prepared.get(c.key) != c}
        if text and missing:
            with torch.no_grad():
                self._text.update(self.method.prepare_text(list(missing.values()), encoder))
            self._prepared.update(missing)
        return ScoreContext(
            categories=categories,
            text=self._text,
            text_encoder=encoder,
            image_encoder=self.backbone.image_encoder(self.request.variant),
            boxes=[_boxes(b) for b in boxes] if boxes is not None else None,
            uids=[str(i) for i in range(count)],
        )

    def _detect(
        self, context: ScoreContext, pictures: Sequence[Image.Image], paths: Sequence[str]
    ) -> None:
        wanted = self.method.box_request(context.categories)
        if wanted is not None:
            from zsad import grounding

            provider = grounding.provider(wanted, device=str(self.device))
            context.boxes = provider.boxes_of_pictures(pictures, context.categories, paths)

    def _references(
        self, references: References, categories: Sequence[Category]
    ) -> dict[str, ImageFeatures]:
        """The features of the references by category, encoded once a category; {} for zero shots."""
        if not self.method.shots:
            return {}
        if not isinstance(references, Mapping):
            near = self._reference_features(references)
            return {} if near is None else {c.key: near for c in categories}
        found: dict[str, ImageFeatures] = {}
        for category in categories:
            if category.key in found:
                continue
            if category.key not in references:
                raise RequestError(
                    f"references: there are none of '{category.key}', only of "
                    f"{', '.join(map(str, references)) or 'no class'}; give each class its own"
                )
            near = self._reference_features(references[category.key])
            if near is not None:
                found[category.key] = near
        return found

    def _reference_features(self, references: Any) -> ImageFeatures | None:
        """The features of a few-shot method's references, encoded once; None for zero shots."""
        if not self.method.shots:
            return None
        if len(references) < self.method.shots:
            raise RequestError(
                f"method '{self.method.name}' needs {self.method.shots} normal reference pictures, "
                f"got {len(references)}; pass references=[...]"
            )
        chosen = references[: self.method.shots]
        if isinstance(chosen, Tensor):
            return self.backbone.encode_image(chosen.float().to(self.device), self.request)
        return self._encode([open_picture(r) for r in chosen])


def conclude(method: Method, predictions: Sequence[Prediction]) -> None:
    """Let the method finish the image scores of one whole category, where it wants to; each
    prediction keeps what it was before as ``info["raw_score"]``.

    Raises :class:`RequestError` for a single picture.
    """
    if not method.stretches:
        return
    if len(predictions) < 2:
        raise RequestError(
            f"preset '{method.config.preset}' of {method.name} stretches scores over all pictures of "
            f"a category and needs at least two of them; give more, or {method.name}.stretch=false"
        )
    scores = torch.tensor([p.image_score for p in predictions])
    info = {name: torch.tensor([p.info[name] for p in predictions]) for name in predictions[0].info}
    final = method.over_category(scores, info).tolist()
    for prediction, value in zip(predictions, final):
        prediction.info["raw_score"] = prediction.image_score
        prediction.image_score = value


def _by_category(categories: Sequence[Category]) -> dict[str, list[int]]:
    """Rows by category, in order of appearance."""
    rows: dict[str, list[int]] = {}
    for i, category in enumerate(categories):
        rows.setdefault(category.key, []).append(i)
    return rows


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


def _one_each(
    what: str, given: str | Sequence[str] | None, default: str, count: int
) -> Sequence[str]:
    if given is None or isinstance(given, str):
        return [given or default] * count
    if len(given) != count:
        raise RequestError(f"{len(given)} {what} for {count} images; give one, or one per image")
    return given


def category_of(class_name: str, kind: str = "object", domain: str = "industrial") -> Category:
    """The category of a spoken or raw class name: "metal_nut" and "metal nut" are the same, but for
    methods that say the raw one.

    Raises :class:`RequestError` for an empty name, and for another kind or domain than there are.
    """
    for what, value, known in (
        ("kind", kind, ("object", "texture")),
        ("domain", domain, ("industrial", "medical")),
    ):
        if value not in known:
            raise RequestError(f"{what} '{value}' is not one of: {', '.join(known)}")
    spoken = " ".join(str(class_name).replace("_", " ").split())
    if not spoken:
        raise RequestError("the class name is empty; say what the picture shows, e.g. 'metal nut'")
    return Category("", str(class_name), spoken, domain, kind)  # type: ignore[arg-type]


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

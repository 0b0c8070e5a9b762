"""A single method, ready to use on images: what :func:`zsad.load_method` returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from zsad import maps as dense
from zsad.backbones import Backbone
from zsad.data.images import read_image
from zsad.data.transforms import Preprocess
from zsad.errors import RequestError
from zsad.method import Method, feature_request
from zsad.types import Boxes, BuiltMaps, Category, Prediction, ScoreContext, Scores, TrainBatch

ImageLike = "str | Path | Image.Image | np.ndarray"
BATCH = 8


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
        self._preprocess = Preprocess.for_backbone(backbone.info, self.image_size)
        self._text: dict[str, Any] = {}

    # ------------------------------------------------------------------------ prediction
    def predict(
        self,
        images: Any,
        class_name: str | Sequence[str] = "object",
        boxes: Sequence[Mapping[str, Any] | None] | None = None,
        references: Sequence[Any] = (),
        explanations: int = 5,
    ) -> list[Prediction]:
        """Score pictures: paths, PIL images or arrays [H, W, 3] uint8; one or a list of them.

        ``class_name``: what the pictures show ("metal nut"), one for all or one each.
        ``references``: normal pictures of the same thing, for few-shot methods.
        The anomaly map has the size of the picture (float32 [H, W]); a higher value is more
        anomalous.  Raises :class:`zsad.errors.DataError` for a picture that cannot be read.
        """
        items = list(images) if isinstance(images, (list, tuple)) else [images]
        names = [class_name] * len(items) if isinstance(class_name, str) else list(class_name)
        out: list[Prediction] = []
        for start in range(0, len(items), BATCH):
            pictures = [_open(item) for item in items[start : start + BATCH]]
            tensor = torch.stack([self._preprocess(p) for p in pictures])
            part = boxes[start : start + BATCH] if boxes is not None else None
            found = self.predict_tensor(
                tensor,
                names[start : start + BATCH],
                boxes=part,
                references=[_open(r) for r in references],
                explanations=explanations,
                _pictures=pictures,
                _paths=[str(i) if isinstance(i, (str, Path)) else "" for i in items[start:]],
            )
            for item, picture, prediction in zip(items[start:], pictures, found):
                prediction.anomaly_map = _resize(
                    prediction.anomaly_map, picture.height, picture.width
                )
                prediction.path = str(item) if isinstance(item, (str, Path)) else None
                out.append(prediction)
        return out

    @torch.no_grad()
    def predict_tensor(
        self,
        images: Tensor,
        class_names: str | Sequence[str] = "object",
        boxes: Sequence[Mapping[str, Any] | None] | None = None,
        references: Sequence[Image.Image] = (),
        explanations: int = 5,
        _pictures: Sequence[Image.Image] | None = None,
        _paths: Sequence[str] = (),
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
        self.method.eval()
        context = self._context(class_names, len(images), boxes)
        if boxes is None and _pictures is not None:
            self._detect(context, _pictures, _paths)
        if self.method.shots:
            self._add_references(context, references)
        features = self.backbone.encode_image(images.to(self.device), self.request)
        if self.method.transductive:
            context.population = features
        scores: Scores = self.method.score(features, context)
        built: BuiltMaps = dense.build_maps(scores, self.method.map_spec(), size, context.boxes)
        image_scores = self.method.image_score(scores, built).float().cpu().tolist()
        reasons = (
            self.method.explain(features, scores, built, context, explanations)
            if explanations
            else None
        )
        maps = built.final.float().cpu().numpy()
        return [
            Prediction(score, maps[i], list(reasons[i]) if reasons else [])
            for i, score in enumerate(image_scores)
        ]

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
        context = self._context(class_names, len(images), None, text=False)
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
        text: bool = True,
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
        categories = [category_of(n) for n in names]
        encoder = self.backbone.text_encoder(self.request.variant)
        missing = {c.key: c for c in categories if c.key not in self._text}
        if text and missing:
            with torch.no_grad():
                self._text.update(self.method.prepare_text(list(missing.values()), encoder))
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

    def _add_references(self, context: ScoreContext, references: Sequence[Image.Image]) -> None:
        if len(references) < self.method.shots:
            raise RequestError(
                f"method '{self.method.name}' needs {self.method.shots} normal reference pictures, "
                f"got {len(references)}; pass references=[...]"
            )
        tensor = torch.stack([self._preprocess(r) for r in references[: self.method.shots]])
        features = self.backbone.encode_image(tensor.to(self.device), self.request)
        context.references = {c.key: features for c in context.categories}


def category_of(class_name: str) -> Category:
    """The category of a spoken or raw class name: "metal_nut" and "metal nut" are the same."""
    spoken = " ".join(str(class_name).replace("_", " ").split())
    if not spoken:
        raise RequestError("the class name is empty; say what the picture shows, e.g. 'metal nut'")
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


def _open(item: Any) -> Image.Image:
    if isinstance(item, Image.Image):
        return item.convert("RGB")
    if isinstance(item, np.ndarray):
        if item.dtype != np.uint8 or item.ndim not in (2, 3):
            raise RequestError(
                f"an array picture must be uint8 [H, W] or [H, W, 3], not {item.dtype} {item.shape}"
            )
        return Image.fromarray(item).convert("RGB")
    if isinstance(item, (str, Path)):
        return read_image(str(item))
    raise RequestError(
        f"cannot read a picture from a {type(item).__name__}; give a path, a PIL image or an array"
    )


def _resize(values: np.ndarray, height: int, width: int) -> np.ndarray:
    tensor = torch.from_numpy(values)[None, None]
    out = torch.nn.functional.interpolate(
        tensor, size=(height, width), mode="bilinear", align_corners=False
    )
    return out[0, 0].numpy()

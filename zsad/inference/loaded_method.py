"""A single method, ready to use on images: what :func:`zsad.load_method` returns."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor

from zsad import config as cfg
from zsad.backbones import Backbone
from zsad.backbones.devices import deterministically
from zsad.data.ignored import Ignored
from zsad.errors import RequestError
from zsad.inference import calibration
from zsad.inference.known_pictures import KnownPictures
from zsad.inference.picture_run import PictureRun, Pictures, attempt, conclude, joined
from zsad.inference.pictures import BATCH, PictureBatch, read_ahead
from zsad.inference.prediction import Prediction
from zsad.inference.request import (
    OneOrEach,
    References,
    boxes_of,
    categories_of,
    category_of,
    refuse_singles,
    rows_by_category,
)
from zsad.inference.tiles import WHOLE, Framing
from zsad.inference.training_forward import training_forward
from zsad.method import AnyMethod
from zsad.on_device import stepwise
from zsad.runtime.thresholds import Thresholds
from zsad.scoring import Scorer
from zsad.types import ScoreContext

P = ParamSpec("P")
R = TypeVar("R")


def _at_work(
    function: Callable[Concatenate[LoadedMethod, P], R],
) -> Callable[Concatenate[LoadedMethod, P], R]:
    """With the algorithms that the method was loaded for."""

    @wraps(function)
    def run(self: LoadedMethod, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self._algorithms():
            return function(self, *args, **kwargs)

    return run


class LoadedMethod:
    """A method with its backbone.  Not thread-safe.

    ``report`` holds what importing an official checkpoint had to say; ``batch_size``: pictures
    that are scored together, 0: chosen; ``framing``: how they are shown to the model;
    ``deterministic``: torch takes deterministic algorithms while it is at work.
    """

    def __init__(
        self,
        method: AnyMethod,
        backbone: Backbone,
        device: torch.device,
        image_size: int = 0,
        report: Sequence[str] = (),
        batch_size: int = 0,
        framing: Framing = WHOLE,
        deterministic: bool = False,
    ) -> None:
        self.method = method.to(device)
        self.backbone = backbone
        self.device = device
        self.report = list(report)
        self.untrained = False  # in its initial state, though it could be trained
        self.scorer = Scorer(self.method, backbone, image_size)
        self.request = self.scorer.request
        self.image_size = self.scorer.image_size
        self.batch_size = batch_size or BATCH
        self.framing = framing
        self.deterministic = deterministic
        self.pictures = Pictures(self.scorer, framing, self.batch_size)
        self.known = KnownPictures(method, self.pictures)
        if framing.tiled and (method.transductive or method.carries):
            raise RequestError(
                f"--tiles: method '{method.name}' scores a picture with others of the same kind, "
                "and a tile has no others; leave --tiles out, or choose another method"
            )

    # ------------------------------------------------------------------------ prediction
    def predict(
        self,
        images: Any,
        class_name: str | Sequence[str] = "object",
        boxes: Sequence[Mapping[str, Any] | None] | None = None,
        references: References = (),
        explanations: int = 5,
        thresholds: Thresholds | None = None,
        kinds: OneOrEach = None,
        domains: OneOrEach = None,
    ) -> list[Prediction]:
        """Score pictures: paths, PIL images or arrays [H, W, 3] uint8; one or a list of them.

        ``class_name``: what the pictures show ("metal nut"), one for all or one each.
        ``references``: normal pictures of the same thing, for few-shot methods; by class name
        where there are several.  ``kinds``: ``object`` or ``texture``, ``domains``: ``industrial``
        or ``medical``, one for all or one each, for methods whose prompts depend on it.
        ``thresholds``: those of :meth:`calibrate`; without them each picture gets the uncalibrated
        ones of :mod:`zsad.inference.calibration`.
        The anomaly map has the size of the picture (float32 [H, W]); a higher value is more
        anomalous.  Raises :class:`zsad.errors.DataError` for a picture that cannot be read.
        """
        items = list(images) if isinstance(images, (list, tuple)) else [images]
        return list(
            self.stream(
                items,
                class_name,
                boxes,
                references,
                explanations,
                thresholds,
                kinds=kinds,
                domains=domains,
            )
        )

    def stream(
        self,
        images: Sequence[Any],
        class_name: str | Sequence[str] = "object",
        boxes: Sequence[Mapping[str, Any] | None] | None = None,
        references: References = (),
        explanations: int = 5,
        thresholds: Thresholds | None = None,
        keep_errors: bool = False,
        kinds: OneOrEach = None,
        domains: OneOrEach = None,
        ignore: Ignored | None = None,
    ) -> Iterator[Prediction]:
        """Score as :meth:`predict` does, one after the other: for more pictures than fit in memory.

        ``ignore``: parts of the pictures that are not looked at.
        With ``keep_errors`` a picture that cannot be read or scored is a prediction with an
        ``error``, and the others go on.
        """
        categories = categories_of(class_name, len(images), kinds, domains)
        refuse_singles(self.method, categories)
        self.pictures.expect(len(images))
        with self._algorithms():
            near = self.known.encoded(references, categories)
        run = PictureRun(
            self.pictures,
            categories,
            boxes_of(boxes, len(images)),
            near,
            explanations,
            thresholds,
            ignore,
            bank=self.known.bank if self.method.transductive else None,
        )
        yield from stepwise(self._algorithms, self._each(images, run, keep_errors))

    def _each(
        self, images: Sequence[Any], run: PictureRun, keep_errors: bool
    ) -> Generator[Prediction, None, None]:
        # One by one, where an image is scored with what the one before it left.
        size = 1 if self.method.carries else self.batch_size
        read = read_ahead(images, keep_errors, size, self.pictures.reading)
        if self.method.transductive:
            yield from self._together(read, run)
            return
        for batch in read:
            yield from batch.in_order(attempt(run.score, batch, keep_errors))
            del batch  # its pictures, before others are decoded

    def calibrate(
        self,
        normal: Sequence[Any],
        class_name: str = "object",
        references: Sequence[Any] = (),
        false_alarms: float = calibration.FALSE_ALARMS,
        ignore: Ignored | None = None,
        kinds: OneOrEach = None,
        domains: OneOrEach = None,
    ) -> Thresholds:
        """Thresholds from a few normal pictures; :mod:`zsad.inference.calibration` has the rule.

        ``false_alarms``: the highest share of normal pictures that may be called anomalous.
        Raises :class:`zsad.errors.DataError` for a picture that cannot be read, and
        :class:`RequestError` for a method whose scores depend on the pictures of the call.
        """
        if self.method.stretches:
            raise RequestError(
                f"preset '{self.method.config.preset}' of {self.method.name} stretches scores over "
                "the pictures of a call, so no threshold holds for others; use "
                f"{self.method.name}.stretch=false"
            )
        tiled, what = self.framing.tiled, (list(normal), class_name, None, references)
        given = self.stream(*what, explanations=0, ignore=ignore, kinds=kinds, domains=domains)
        # without keep_errors every picture was seen
        seen = [(p.image_score, p.seen) for p in given if p.seen is not None]
        heights = [calibration.height(values, tiled) for _, values in seen]
        return calibration.calibrated([score for score, _ in seen], heights, false_alarms, tiled)

    def identity(self, class_name: str, ignore: Ignored | None = None) -> dict[str, Any]:
        """What thresholds depend on besides the normal pictures."""
        made_for: dict[str, Any] = {
            "method": self.method.name,
            "config": cfg.digest(cfg.hashed(self.method.config), 16),
            "backbone": self.backbone.info.name,
            "weights": self.backbone.info.weights_sha256,
            "image_size": self.image_size,
            "class_name": category_of(class_name).class_name,
        }
        if self.method.revision > 1:
            made_for["revision"] = self.method.revision
        if (dtype := self.backbone.image_encoder(self.request.variant).dtype) != torch.float32:
            made_for["precision"] = str(dtype).removeprefix("torch.")
        elif self.backbone.figures != "fp32":
            made_for["precision"] = self.backbone.figures
        made_for |= self.framing.identity()
        if ignore:
            made_for["ignore"] = ignore.digest
        if self.method.phases():
            digest = hashlib.sha256()
            for name, value in sorted(self.method.trained_state().items()):
                digest.update(name.encode())
                digest.update(value.detach().float().cpu().numpy().tobytes())
            made_for["state"] = digest.hexdigest()[:16]
        return made_for

    @_at_work
    @torch.no_grad()
    def predict_tensor(
        self,
        images: Tensor,
        class_names: str | Sequence[str] = "object",
        boxes: Sequence[Mapping[str, Any] | None] | None = None,
        references: References = (),
        explanations: int = 5,
        kinds: OneOrEach = None,
        domains: OneOrEach = None,
    ) -> list[Prediction]:
        """Score images [B, 3, S, S] as the encoder takes them: preprocessed, of its input size.

        ``references``: as for :meth:`predict`, or tensors [K, 3, S, S]; ``kinds`` and ``domains``
        likewise.  What a method compares or stretches over a category's images, it does over those
        of this call that share a class name.  ``boxes``: per image
        ``{"boxes": [[cx, cy, w, h]], "scores": [...], "phrases": [...]}``, the detector's raw
        answer (0..1), or None.  Maps are float32 [S, S].
        """
        if self.framing.tiled or self.framing.keep_aspect or self.pictures.preprocess.halves:
            raise RequestError(
                "predict_tensor takes images as the encoder takes them, one square of each: load "
                "the method without tiles, keep_aspect and halves, or use predict for pictures"
            )
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
                "give another image_size to load_method, or use predict for pictures"
            )
        context = self._context(class_names, len(images), boxes, kinds, domains)
        categories = context.categories
        refuse_singles(self.method, categories)
        context.references = self.known.encoded(references, categories)
        if not self.method.transductive:
            return self._score_tensor(images, context, explanations)
        found: dict[int, Prediction] = {}
        for rows in rows_by_category(categories).values():
            part = self._score_tensor(images[rows], context.select(rows), explanations)
            conclude(self.method, part)
            found.update(zip(rows, part))
        return [found[row] for row in range(len(images))]

    def _score_tensor(
        self, images: Tensor, context: ScoreContext[Any], explanations: int
    ) -> list[Prediction]:
        """Score images together; a method that compares images compares these."""
        parts = self.pictures.encode(images)
        if self.method.transductive:
            context.population = joined([features for _, features in parts])
            parts = iter([(slice(0, len(images)), context.population)])
        carry: dict[str, Any] = {}
        found: list[Prediction] = []
        for rows, features in parts:
            part = context.select(rows)
            part.carry, part.views = dict(carry), self.pictures.views(images[rows])
            for _, scored in self.scorer.score(features, part):
                carry |= scored.scores.carry
                found += self.pictures.predictions(scored, explanations)
        return found

    def _together(self, read: Iterator[PictureBatch], run: PictureRun) -> Iterator[Prediction]:
        """Score with a method that compares the pictures of a class: encode all of them first."""
        batches: list[PictureBatch] = []
        for batch in read:
            if batch.rows:
                batch.features = self.pictures.encode_all(batch.pictures).to("cpu")
            if self.method.box_request([]) is None:
                batch.pictures = []  # only a detector looks at them again
            batches.append(batch)
        run.gather(batches)
        found: dict[int, Prediction] = {}
        for batch in batches:
            for part in batch.parts(run.categories):
                found.update(zip(part.rows, run.score(part)))
            if not self.method.stretches:
                yield from batch.in_order({row: found.pop(row) for row in batch.rows})
        if self.method.stretches:
            read_rows = [row for batch in batches for row in batch.rows]
            for rows in rows_by_category([run.categories[row] for row in read_rows]).values():
                conclude(self.method, [found[read_rows[i]] for i in rows])
            for batch in batches:
                yield from batch.in_order({row: found[row] for row in batch.rows})

    # -------------------------------------------------------------------------- training
    @_at_work
    def losses(
        self,
        images: Tensor,
        masks: Tensor | None,
        labels: Tensor,
        class_names: str | Sequence[str] = "object",
        phase: str | None = None,
        references: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Run one training forward without a step and return the named loss terms.

        ``images`` [B, 3, S, S] as the encoder takes them, ``masks`` [B, S, S] or [B, 1, S, S] in
        {0, 1}, None: unknown (for methods that learn without), ``labels`` [B].  The key ``total``
        is what training minimises; gradients flow to the method's parameters.  ``phase``: the
        training phase, by default the first.  ``references`` [B, 3, S, S]: a normal image for each,
        for methods that compare in training (:attr:`zsad.method.Method.needs_partners`).
        Raises :class:`RequestError` for a training-free method, and for missing masks.
        """
        images = torch.as_tensor(images, dtype=torch.float32).to(self.device)
        labels = torch.as_tensor(labels).to(self.device)
        categories = categories_of(class_names, len(images))
        return training_forward(self.scorer, images, masks, labels, categories, phase, references)

    # -------------------------------------------------------------------------- references
    @_at_work
    def save_bank(
        self, path: Path | str, pictures: Sequence[Any], class_name: str = "object"
    ) -> Path:
        """Keep what the method remembers of normal pictures (paths, PIL images or arrays) in a
        file for :meth:`load_bank`.

        Raises :class:`RequestError` for a method that compares with no pictures, and where the
        file cannot be written.
        """
        return self.known.save(path, pictures, self.bank_identity(class_name))

    def load_bank(self, path: Path | str, class_name: str = "object") -> str:
        """Compare with the pictures of a bank from now on, without ``references``; return the
        digest of its pictures.

        Raises :class:`zsad.errors.DataError` for a file that is damaged or not a bank, and
        :class:`RequestError` for one that was made for something else.
        """
        key = category_of(class_name).class_name
        return self.known.load(path, key, self.bank_identity(class_name))

    def bank_identity(self, class_name: str) -> dict[str, Any]:
        """What the features of a bank depend on."""
        made_for = self.identity(class_name)
        variant = asdict(replace(self.request.variant, image_size=self.image_size))
        for key in ("config", "revision", "state"):
            made_for.pop(key, None)
        return made_for | {"layers": sorted(map(list, self.request.taps)), "variant": variant}

    # --------------------------------------------------------------------------- helpers
    def _algorithms(self) -> AbstractContextManager[None]:
        return deterministically(self.deterministic, self.device)

    def _context(
        self,
        class_names: str | Sequence[str],
        count: int,
        boxes: Sequence[Any] | None,
        kinds: OneOrEach = None,
        domains: OneOrEach = None,
    ) -> ScoreContext[Any]:
        return self.scorer.context(
            categories_of(class_names, count, kinds, domains),
            boxes=boxes_of(boxes, count),
            uids=[str(i) for i in range(count)],
        )

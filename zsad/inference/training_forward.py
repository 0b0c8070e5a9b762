"""One training forward on tensors, for whoever trains a method with a loop of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from zsad.errors import RequestError
from zsad.inference.request import partners_of, targets_of
from zsad.method import feature_request
from zsad.scoring import Scorer
from zsad.types import Category, ScoreContext


def training_forward(
    scorer: Scorer,
    images: Tensor,
    masks: Tensor | None,
    labels: Tensor,
    categories: Sequence[Category],
    phase: str | None,
    references: Tensor | None,
) -> dict[str, Tensor]:
    """Return the named loss terms of images [B, 3, S, S]; the parameters of ``phase`` (None: the
    first one) want gradients afterwards.

    The arguments are those of :meth:`zsad.inference.loaded_method.LoadedMethod.losses`, on the
    method's device.  Raises :class:`RequestError` as it does.
    """
    method, backbone = scorer.method, scorer.backbone
    phases = {p.name: p for p in method.phases()}
    if not phases:
        raise RequestError(f"method '{method.name}' is training-free: it has no losses")
    name = phase or next(iter(phases))
    if name not in phases:
        raise RequestError(
            f"method '{method.name}' has no phase '{name}'; phases: {', '.join(phases)}"
        )
    targets = targets_of(method, images, masks, labels)
    near = partners_of(method, references, images)
    request = feature_request(method, scorer.image_size, training=True)
    variant = scorer.request.variant
    # Without text, as in training: the method encodes its prompts at every step.
    context: ScoreContext[Any] = ScoreContext(
        list(categories),
        {},
        text_encoder=backbone.text_encoder(variant),
        image_encoder=backbone.image_encoder(variant),
        uids=[str(i) for i in range(len(images))],
        paired=None if near is None else backbone.encode_image(near, request),
    )
    features = backbone.encode_image(images, request)
    method.train()
    method.phase = name
    method.freeze_all_but(method.parameters_of_phase(phases[name]))
    return method.losses(features, targets, context)

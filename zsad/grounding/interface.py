"""What a detector is, and how one is found by name."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from zsad.errors import RequestError, unknown
from zsad.types import Boxes

if TYPE_CHECKING:
    from PIL.Image import Image

    Detector = Callable[[Image, Sequence[str]], Boxes]
else:
    Detector = Callable

DEFAULT = "transformers"
DETECTORS: dict[str, str] = {
    DEFAULT: "zsad.grounding.transformers_dino:handle",
    "groundingdino": "zsad.grounding.grounding_dino:handle",
}
"""Built-in detectors: name to "module:function", the function making a :class:`Handle`."""


@dataclass(frozen=True)
class DetectorOptions:
    """How a detector is set up.

    ``weights``: ``stock`` (the published ones, from a local cache), ``random``, or a path: what
    :func:`zsad.grounding.weight_files.choose` makes of ``grounding.weights``.
    ``text_encoder``: folder with a BERT vocabulary and configuration, None: from a local cache.
    A query becomes a box above ``box_threshold``; its phrase are the words above
    ``text_threshold``.  ``short_side``, ``max_side``: pixels that the image is scaled to.
    """

    weights: str = "stock"
    text_encoder: str | None = None
    box_threshold: float = 0.25
    text_threshold: float = 0.25
    short_side: int = 518
    max_side: int = 1333
    device: str = "cpu"

    @classmethod
    def of(cls, options: Mapping[str, Any], device: str) -> DetectorOptions:
        """Take the known keys of a request."""
        known = {k: v for k, v in options.items() if k in cls.__dataclass_fields__}
        return cls(**{**known, "device": device})


@dataclass(frozen=True)
class Handle:
    """A detector that is known to be available and not loaded yet.

    ``identity`` changes with everything that changes its answers, weights included; None: its
    answers must not be cached.  ``info``: for the record of a run.  ``check``: raises
    :class:`zsad.errors.WeightsError` for weights that cannot be read, without building anything.
    """

    load: Callable[[], Detector]
    identity: str | None
    info: dict[str, Any] = field(default_factory=dict)
    check: Callable[[], None] = lambda: None


def find(name: str, options: DetectorOptions) -> Handle:
    """Return the detector of a name, or of ``module:function``, which is a detector itself.

    Raises :class:`RequestError` for an unknown name, :class:`zsad.errors.WeightsError` if the
    package or its weights are missing.
    """
    if name in DETECTORS:
        make: Callable[[DetectorOptions], Handle] = _attribute(DETECTORS[name])
        return make(options)
    if ":" not in name:
        raise unknown("detector", name, DETECTORS, "or give your own as module:function")
    function = _attribute(name)
    return Handle(
        lambda: _checked(function, name), getattr(function, "identity", None), {"detector": name}
    )


def _attribute(target: str) -> Any:
    module, _, attribute = target.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise RequestError(f"detector {target}: cannot be imported ({error})") from None


def _checked(function: Any, name: str) -> Detector:
    """Accept mappings as answers, and nothing else that is not :class:`Boxes`."""

    def detect(image: Image, phrases: Sequence[str]) -> Boxes:
        answer = function(image, phrases)
        if isinstance(answer, Boxes):
            return answer
        try:
            return Boxes.from_dict(answer)
        except ValueError:
            raise RequestError(
                f"detector {name}: must return Boxes or a mapping of boxes, scores, phrases, "
                f"not {type(answer).__name__}"
            ) from None

    return detect

"""What is known of a backbone before its weights are read.  No torch."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from zsad.errors import RequestError
from zsad.io import parse_json, read_json
from zsad.io.bounds import PICTURE

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Sizes:
    """Of a vision transformer: pixels that it was trained for (of one side), side of a patch in
    pixels, blocks, and width of its states."""

    native: int
    patch: int
    depth: int
    width: int


@dataclass(frozen=True)
class BackboneSpec:
    """One backbone as ``specs.yaml`` or open_clip's model file describes it.

    ``image_size`` in pixels, 0: the architecture's own.  ``stages``: the four feature layers,
    1-based; empty: the quarters of the depth.  ``vv_first``: first block of the v-v path that the
    weights were trained for, 0: each method's own choice.  ``activation``: the one that the weights
    were trained with (``quick_gelu`` or ``gelu``); empty: as the model file or the weight tag says.
    ``weights_file`` and ``hub_repo``: names of the weights in the caches.
    ``bundled``: sub-package that holds model file and weights.  ``demo``: no paper used it.

    ``family``: that of :mod:`zsad.backbones.families` which builds it, "" for CLIP; ``model``: the
    family's own name of the architecture, and ``sizes`` what is known of it without building it.
    """

    name: str
    title: str
    summary: str = ""
    open_clip_model: str = ""
    pretrained: str = ""
    weights_file: str = ""
    hub_repo: str = ""
    bundled: str = ""
    image_size: int = 0
    stages: tuple[int, ...] = ()
    vv_first: int = 0
    activation: str = ""
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = OPENAI_MEAN
    std: tuple[float, float, float] = OPENAI_STD
    demo: bool = False
    family: str = ""
    model: str = ""
    sizes: Sizes | None = None

    @property
    def reads_text(self) -> bool:
        """Whether there is a text tower: of CLIP alone."""
        return not self.family

    def model_config(self) -> dict[str, Any] | None:
        """Return open_clip's model file, or None for ``file`` (the weights imply it) and for other
        families."""
        if self.bundled:
            path = files("zsad.backbones") / self.bundled / "config.json"
            if not path.is_file():
                raise RequestError(
                    f"backbone '{self.name}': {self.bundled}/config.json is missing from this "
                    "installation; reinstall zsad"
                )
            return dict(parse_json(path.read_text(encoding="utf-8"), f"{self.bundled}/config.json"))
        if self.open_clip_model:
            return dict(read_json(open_clip_models()[self.open_clip_model]))
        return None


def quarters(depth: int) -> tuple[int, ...]:
    """Return the layers at a quarter, half, three quarters and the end of ``depth`` blocks."""
    return tuple(max(1, round(depth * i / 4)) for i in (1, 2, 3, 4))


@cache
def open_clip_models() -> dict[str, Path]:
    """open_clip's model files by model name, found without importing open_clip."""
    found = importlib.util.find_spec("open_clip")
    places = (found.submodule_search_locations or []) if found else []
    return {
        path.stem: path
        for place in places
        for path in sorted((Path(place) / "model_configs").glob("*.json"))
    }


def require_fitting(size: int, patch: int) -> None:
    """Raise :class:`RequestError` for an image size in pixels that patches do not tile, or that
    has more pixels than a picture may have."""
    shown = size if abs(size) < 10**12 else f"{str(size)[:6]}..."
    if size > 0 and size * size > PICTURE.value():
        raise RequestError(
            f"backbone.image_size={shown}: {shown} x {shown} is more than {PICTURE.value()} "
            f"pixels; give less ({PICTURE.raised()})"
        )
    if size < patch or size % patch:
        near = max(1, round(size / patch)) * patch if size > 0 else patch
        raise RequestError(
            f"backbone.image_size={shown}: must be a multiple of the patch size {patch}; "
            f"nearest: {near}"
        )

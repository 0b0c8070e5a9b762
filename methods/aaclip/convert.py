"""What AA-CLIP's training writes: ``image_adapter.pth`` and, beside it, ``text_adapter.pth``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from zsad.components.released_state import take_released
from zsad.errors import WeightsError
from zsad.method import ImportedCheckpoint
from zsad.types import BackboneInfo

PARTS = ("text_adapter", "image_adapter")
_TEXT = re.compile(r"(\d{1,3})\.fc\.0\.weight")
_LAYER = re.compile(r"layer_adapters\.(\d{1,3})\.fc\.0\.weight")
_STAGE = re.compile(r"seg_proj\.(\d{1,3})\.fc(\.0)?\.weight")


def import_official(
    state: object, stages: int, depths: tuple[int, int], backbone: BackboneInfo
) -> ImportedCheckpoint:
    """Translate the two loaded files for ``stages`` stages; how many blocks of the text and of the
    image have adapters (``depths`` are those that the config asks for), and whether the projections
    have leaky ReLUs, are told by their keys.

    Raises :class:`WeightsError` with missing keys, for other stages, or for the first tensor of
    another shape than the backbone needs.
    """
    held = state if isinstance(state, Mapping) else {}
    lacking = [p for p in PARTS if not isinstance(held.get(p), Mapping)]
    if lacking:
        raise WeightsError(
            f"not a released aaclip checkpoint: no dictionary '{lacking[0]}' in it; give the "
            "folder that its training writes, with text_adapter.pth and image_adapter.pth, or the "
            "latter with the former beside it"
        )
    text, image = held["text_adapter"], held["image_adapter"]
    texts = len([k for k in text if _TEXT.fullmatch(str(k))])
    layers = len([k for k in image if _LAYER.fullmatch(str(k))])
    found = [m for k in image if (m := _STAGE.fullmatch(str(k)))]
    relu = bool(found) and found[0][2] is not None
    extra = len(found) > stages
    hint = f"; the file has {len(found)} stages, name them in aaclip.layers" if extra else ""
    wanted = shapes(backbone, max(texts - 1, 0), layers, stages, relu)
    given = {f"{part}.{key}": value for part in PARTS for key, value in held[part].items()}
    taken = take_released("aaclip", given, wanted, backbone, hint)
    told: dict[str, int | bool] = {"relu": relu}
    for key, found_here, asked in zip(("text_until", "image_until"), (texts - 1, layers), depths):
        if found_here != asked:
            told[key] = found_here
    return replace(taken, config={**taken.config, **told})


def shapes(
    backbone: BackboneInfo, texts: int, layers: int, stages: int, relu: bool
) -> dict[str, tuple[int, ...]]:
    """The shape of every trained tensor by name."""
    width, embed, text = backbone.width, backbone.embed, backbone.text_width
    leaf = "fc.0.weight" if relu else "fc.weight"
    wanted: dict[str, tuple[int, ...]] = {}
    for i in range(texts):
        wanted[f"text_adapter.{i}.fc.0.weight"] = (text, text)
    wanted[f"text_adapter.{texts}.fc.0.weight"] = (embed, text)
    for i in range(layers):
        wanted[f"image_adapter.layer_adapters.{i}.fc.0.weight"] = (width, width)
    for i in range(stages):
        wanted[f"image_adapter.seg_proj.{i}.{leaf}"] = (embed, width)
    wanted[f"image_adapter.det_proj.{leaf}"] = (embed, width)
    return wanted

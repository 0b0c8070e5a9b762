"""The registry of backbones: what is known about one before its weights are read.

Nothing here imports torch: listing backbones and planning a run must not need it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from zsad.backbones import families
from zsad.backbones.backbone_spec import (
    OPENAI_MEAN,
    OPENAI_STD,
    BackboneSpec,
    open_clip_models,
    quarters,
)
from zsad.errors import RequestError, nearest
from zsad.io import read_json

__all__ = [
    "OPENAI_MEAN",
    "OPENAI_STD",
    "BackboneSpec",
    "open_clip_models",
    "quarters",
    "require_text",
    "spec",
    "specs",
    "usable_open_clip_models",
]


@cache
def _own() -> dict[str, BackboneSpec]:
    text = (files("zsad.backbones") / "specs.yaml").read_text(encoding="utf-8")
    return {name: _from_mapping(name, entry) for name, entry in yaml.safe_load(text).items()}


def specs() -> dict[str, BackboneSpec]:
    """All registered backbones by name, those of other families than CLIP last."""
    return {**_own(), **families.specs()}


def _from_mapping(name: str, entry: Mapping[str, Any]) -> BackboneSpec:
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}
    return BackboneSpec(name=name, **values)


def spec(name: str) -> BackboneSpec:
    """One backbone by name: a registered one, or ``MODEL`` / ``MODEL/TAG`` of open_clip.

    Raises :class:`RequestError` for an unknown name, with the nearest known one, and for a model
    of open_clip that is not of CLIP's form.
    """
    known = specs()
    if name in known:
        return known[name]
    model, _, tag = name.partition("/")
    usable = usable_open_clip_models()
    if model not in open_clip_models():
        raise RequestError(
            f"unknown backbone '{name}'{nearest(name, [*known, *usable])}; known: "
            f"{', '.join(known)}, or an open_clip model of CLIP's form, e.g. ViT-B-16 or "
            f"ViT-B-16/openai (`zsad list backbones`)"
        )
    if model not in usable:
        raise RequestError(
            f"backbone '{name}' cannot be used: only CLIP vision transformers with a causal text "
            f"tower and CLIP's own tokenizer are supported, {len(usable)} of open_clip's "
            f"{len(open_clip_models())} models; choose e.g. ViT-B-16 (`zsad list backbones`)"
        )
    return BackboneSpec(
        name=name,
        title=f"{model} (open_clip)",
        summary="open_clip model, chosen by its name",
        open_clip_model=model,
        pretrained=tag,
    )


@cache
def usable_open_clip_models() -> tuple[str, ...]:
    """The names of open_clip's models that can be used, by the check that refuses the others."""
    return tuple(n for n, path in open_clip_models().items() if _of_clips_form(read_json(path)))


def _of_clips_form(config: Mapping[str, Any]) -> bool:
    """Whether a model file of open_clip describes a CLIP that the encoders can run."""
    vision, text = config.get("vision_cfg", {}), config.get("text_cfg", {})
    return not (
        "timm_model_name" in vision
        or isinstance(vision.get("layers"), list)
        or "hf_model_name" in text
        or "hf_tokenizer_name" in text
        or "multimodal_cfg" in config
        or config.get("custom_text")
        or vision.get("attentional_pool")
        or text.get("embed_cls")
        or text.get("no_causal_mask")
    )


def require_text(name: str, readers: Sequence[str]) -> None:
    """Raise :class:`RequestError` for a backbone without a text tower, if there are ``readers``:
    methods that read text."""
    if readers and not spec(name).reads_text:
        one = len(readers) == 1
        raise RequestError(
            f"backbone '{name}' has no text tower, and {', '.join(readers)} "
            f"{'reads' if one else 'read'} text; choose a method that reads none (`zsad list "
            f"methods`), or a CLIP such as vit-l-14-336"
        )

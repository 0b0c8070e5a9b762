"""What a trained state depends on, as a hash: the name of its file in the checkpoint cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zsad import config as cfg
from zsad.checkpoints.account import TrainedOn
from zsad.config import Settings
from zsad.config.method_config import MethodConfig
from zsad.data.index import DatasetIndex
from zsad.prompt_bank.bank import bank
from zsad.prompt_bank.vision import read_answers
from zsad.types import Category, Sample

if TYPE_CHECKING:
    from zsad.backbones import Backbone

# Raised whenever a change of the engine changes trained weights for an unchanged request.
TRAINING_VERSION = 1
FOLDER = "checkpoints"  # of a results folder


def training_identity(
    name: str,
    config: MethodConfig,
    backbone: Backbone,
    settings: Settings,
    data: TrainedOn,
    seed: int,
    revision: int = 1,
    categories: Mapping[str, Category] | None = None,
) -> str:
    """Hash everything that changes the trained state; no path, no clock, no device.

    What came later (keys declared by :func:`zsad.config.added`, the method's ``revision``) is
    hashed only where it is not at its default: states that were trained before are still found.
    ``categories``: those of the training set, by key; with them, of a vision model's cached answers
    only those to the present questions count.
    """
    info = backbone.info
    weights = info.weights_sha256 or info.weights_source
    on = (info.name, weights, info.image_size)
    return identity_on(name, config, on, settings, data, seed, revision, categories)


def identity_on(
    name: str,
    config: MethodConfig,
    backbone: tuple[str, str, int],
    settings: Settings,
    data: TrainedOn,
    seed: int,
    revision: int = 1,
    categories: Mapping[str, Category] | None = None,
) -> str:
    """The same for a ``backbone`` that is not loaded: its name, the hash of its weights, its image
    size in pixels."""
    later: dict[str, Any] = {"revision": revision} if revision > 1 else {}
    # Settings of metrics come after training.
    settings_later = {k: v for k, v in cfg.set_later(settings).items() if k != "metrics"}
    if settings_later:
        later["settings"] = settings_later
    if settings.backbone.trained_by:
        later["engine"] = settings.backbone.trained_by
    return cfg.digest(
        {
            "version": TRAINING_VERSION,
            "method": name,
            "config": training_config(config),
            "backbone": list(backbone),
            "image_size": settings.backbone.image_size,
            "precision": settings.backbone.figures,
            "mask_resize": settings.data.mask_resize,
            "data": [data.dataset, data.variant, data.fingerprint],
            "part": data.part,
            "samples": list(data.uids),
            "seed": seed,
            **knowledge(config, data, categories),
            **later,
        },
        16,
    )


def checkpoint_path(root: Path | str, method: str, identity: str) -> Path:
    """Return where a checkpoint lies in the cache below the results folder."""
    return Path(root) / FOLDER / method / f"{identity}.safetensors"


def knowledge(
    config: MethodConfig, data: TrainedOn, categories: Mapping[str, Category] | None = None
) -> dict[str, Any]:
    """Texts that training reads besides the samples: of the prompt bank, of a vision model.

    A config class names its kind of bank texts in ``prompt_kind`` and, as ``caption_source``, where
    sentences about images come from.  Those written from the annotation follow from the samples.
    """
    found: dict[str, Any] = {}
    kind = config.prompt_kind
    if kind:
        entries = bank().entries(kind)
        own = {e.category for e in entries if e.dataset == data.dataset}
        # Namesakes in other datasets count, read or not; later ones only where they can be read,
        # so that a training is found again though the bank has grown.
        found["texts"] = sorted(
            e.digest
            for e in entries
            if e.dataset == data.dataset
            or (e.category in data.categories and not (e.since and e.category in own))
        )
    if config.caption_source in ("endpoint", "auto"):
        known = None if categories is None else [categories[c] for c in data.categories]
        answers = read_answers(kind, config.caption_count, known)
        if answers is not None:
            found["answers"] = answers
    return found


def trained_on(index: DatasetIndex, samples: Sequence[Sample], part: str) -> TrainedOn:
    """Describe the auxiliary data of a training."""
    return TrainedOn(
        dataset=index.spec.name,
        fingerprint=index.fingerprint,
        part=part,
        variant=index.variant,
        categories=tuple(sorted({s.category for s in samples})),
        uids=tuple(sorted(s.uid for s in samples)),
    )


def training_config(config: MethodConfig) -> dict[str, Any]:
    """Return a method's config without the keys that only inference reads.

    A config class names those (or groups of them) in ``inference_only``.
    """
    values = cfg.identity(config)
    for dotted in config.inference_only:
        _drop(values, dotted.split("."))
    return values


def _drop(values: dict[str, Any], path: list[str]) -> None:
    head, *rest = path
    inner = values.get(head)
    if not rest:
        values.pop(head, None)
    elif isinstance(inner, Mapping):
        copy = dict(inner)
        _drop(copy, rest)
        values[head] = copy

"""What a caller says about pictures: class names, kinds, boxes, references."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from zsad.config.method_config import ALL_SHOTS
from zsad.errors import RequestError, counted, is_text
from zsad.inference.references import can_refer, refuse
from zsad.method import AnyMethod
from zsad.types import Boxes, Category, TrainBatch

log = logging.getLogger(__name__)

Pictures = Sequence[Any] | Tensor
"""Paths, PIL images or arrays; or a tensor [K, 3, S, S] as the encoder takes it."""
References = Pictures | Mapping[str, Pictures]
"""Normal images for all classes, or by class name; or one tensor for each class."""
OneOrEach = str | Sequence[str] | None
KINDS = ("object", "texture")
DOMAINS = ("industrial", "medical")


def category_of(class_name: str, kind: str = "object", domain: str = "industrial") -> Category:
    """The category of a spoken or raw class name: "metal_nut" and "metal nut" are the same, except
    to methods that say the raw one.

    Raises :class:`RequestError` for an empty name, and for another kind or domain than there are.
    """
    spoken = " ".join(str(class_name).replace("_", " ").split())
    if not spoken:
        raise RequestError("the class name is empty; say what the picture shows, e.g. 'metal nut'")
    if not is_text(spoken):
        raise RequestError(f"the class name {spoken} is not UTF-8; type it again")
    for what, value, known in (("kind", kind, KINDS), ("domain", domain, DOMAINS)):
        if value not in known:
            raise RequestError(f"{what} '{value}' is not one of: {', '.join(known)}")
    return Category("", str(class_name), spoken, domain, kind)  # type: ignore[arg-type]


def categories_of(
    class_names: str | Sequence[str],
    count: int,
    kinds: OneOrEach = None,
    domains: OneOrEach = None,
) -> list[Category]:
    """The categories of ``count`` images; each argument has one value for all, or one each.

    Raises :class:`RequestError` for another number of them, or one class of two kinds.
    """
    given = zip(
        _one_each("class names", class_names, "object", count),
        _one_each("kinds", kinds, KINDS[0], count),
        _one_each("domains", domains, DOMAINS[0], count),
    )
    found = [category_of(*values) for values in given]
    known: dict[str, Category] = {}
    for category in found:
        if known.setdefault(category.key, category) != category:
            raise RequestError(
                f"'{category.key}' is given two kinds or domains; give one for each class name"
            )
    return found


def _one_each(what: str, given: OneOrEach, default: str, count: int) -> Sequence[str]:
    if given is None or isinstance(given, str):
        return [default if given is None else given] * count
    if len(given) != count:
        raise RequestError(
            f"{len(given)} {what} for {counted(count, 'image')}; give one, or one per image"
        )
    return given


def boxes_of(values: Sequence[Any] | None, count: int) -> list[Boxes | None] | None:
    """A detector's answers, one per image.  Raises :class:`RequestError` for what is not one."""
    if values is None:
        return None
    if len(values) != count:
        raise RequestError(
            f"{counted(len(values), 'box entry', 'box entries')} for {counted(count, 'image')}; "
            "give one per image (None for none)"
        )
    return [_boxes(value) for value in values]


def _boxes(value: Any) -> Boxes | None:
    if value is None or isinstance(value, Boxes):
        return value
    try:
        return Boxes.from_dict(value)
    except (KeyError, TypeError, ValueError) as error:
        raise RequestError(
            f"boxes must be a mapping of 'boxes', 'scores', 'phrases' ({error!r})"
        ) from None


def references_of(
    references: References, categories: Sequence[Category], method: AnyMethod
) -> dict[str, Pictures]:
    """The normal images of each category, by key, as many as the method wants; {} for none.

    Tensors [K, 3, S, S], as many as there are classes, belong to these in order of appearance.
    Raises :class:`RequestError` where a class has fewer, and for references of a method that uses
    none; of more than it was loaded for a warning says so.
    """
    if not method.shots:
        if len(references):
            raise _unused(method, len(references))
        return {}
    keys = list(dict.fromkeys(c.key for c in categories))
    if not isinstance(references, Mapping) and _one_each_class(references, keys):
        references = dict(zip(keys, references))
    found: dict[str, Pictures] = {}
    cut: dict[int, Pictures] = {}  # classes that are given the same ones share them
    for key in keys:
        given = references.get(key, ()) if isinstance(references, Mapping) else references
        wanted = max(1, len(given)) if method.shots == ALL_SHOTS else method.shots
        if len(given) < wanted:
            whose = f" of '{key}'" if isinstance(references, Mapping) else ""
            raise RequestError(
                f"method '{method.name}' needs "
                f"{counted(wanted, 'normal reference picture')}{whose}, "
                f"got {len(given)}; give more (--reference, references=[...])"
            )
        if len(given) > wanted and id(given) not in cut:
            log.warning(
                "%s.shots=%d: %s used, the first of %d",
                method.name,
                wanted,
                counted(wanted, "reference picture"),
                len(given),
            )
        found[key] = cut.setdefault(id(given), given[:wanted])
    return found


def _one_each_class(parts: Pictures, keys: Sequence[str]) -> bool:
    """Whether these are tensors [K, 3, S, S] of classes, and not images."""
    tensors = all(isinstance(part, Tensor) and part.ndim == 4 for part in parts)
    return tensors and len(parts) == len(keys)


def _unused(method: AnyMethod, count: int) -> RequestError:
    """The error for references of a method that was loaded for none."""
    if not can_refer(type(method.config)):
        return refuse(method.name, count)
    return RequestError(
        f"method '{method.name}' was loaded for 0 reference pictures and got {count}; load it with "
        f"overrides={{'shots': {count}}}"
    )


def rows_by_category(categories: Sequence[Category]) -> dict[str, list[int]]:
    """Rows by category, in order of appearance."""
    rows: dict[str, list[int]] = {}
    for i, category in enumerate(categories):
        rows.setdefault(category.key, []).append(i)
    return rows


def refuse_singles(method: AnyMethod, categories: Sequence[Category]) -> None:
    """Raise :class:`RequestError` for a class with a single picture, where the method brings the
    scores of its pictures to one scale."""
    for key, rows in rows_by_category(categories).items():
        if method.stretches and len(rows) < 2:
            raise RequestError(
                f"preset '{method.config.preset}' of {method.name} stretches scores over all "
                f"pictures of a class and needs at least two of '{key}'; give more, or "
                f"{method.name}.stretch=false"
            )


def targets_of(
    method: AnyMethod, images: Tensor, masks: Tensor | None, labels: Tensor
) -> TrainBatch:
    """The targets of training images [B, 3, S, S].  Raises :class:`RequestError` for missing masks
    of a method that needs them."""
    if masks is None:
        if method.needs_masks:
            raise RequestError(f"method '{method.name}' is trained on masks; give masks")
        unknown = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        return TrainBatch(torch.zeros_like(images[:, :1]), labels.long(), unknown)
    masks = torch.as_tensor(masks, dtype=torch.float32).to(images.device)
    return TrainBatch(masks[:, None] if masks.ndim == 3 else masks, labels.long())


def partners_of(method: AnyMethod, references: Tensor | None, images: Tensor) -> Tensor | None:
    """The normal images that training images [B, 3, S, S] are compared with, one for each.

    Raises :class:`RequestError` where the method wants some and there are others, or none, and for
    references of a method that compares nothing in training.
    """
    if not method.needs_partners:
        if references is not None:
            raise RequestError(
                f"method '{method.name}' compares nothing in training; leave references out"
            )
        return None
    if references is None or tuple(references.shape) != tuple(images.shape):
        raise RequestError(
            f"method '{method.name}' compares every training image with a normal one; give "
            f"references of the shape {tuple(images.shape)}"
        )
    given: Tensor = torch.as_tensor(references, dtype=torch.float32).to(images.device)
    return given

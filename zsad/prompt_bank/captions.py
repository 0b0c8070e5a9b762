"""Sentences about training images, for methods that learn from image-specific knowledge.

Two sources: cached answers of a vision model (:mod:`zsad.prompt_bank.vision`), and the training
annotation itself.  The second needs no model and no network: type, size, shape, place and tone
of the marked region become one sentence.  Training masks are used for training anyway, so it
tells a method nothing that its losses do not.  No torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np
from scipy import ndimage

from zsad.data.images import read_image, read_mask
from zsad.errors import DataError, RequestError
from zsad.io.names import in_words
from zsad.prompt_bank.bank import article
from zsad.prompt_bank.kinds import find_kind
from zsad.types import Category, Sample

LONGEST_SIDE = 256  # pixels at which regions are described
TINY, SMALL = 0.005, 0.05  # shares of the image's area
UNTOLD = frozenset({"", "bad", "defect", "ko", "anomaly", "anomalous", "ungood", "abnormal", "ng"})
ROWS = ("top", "middle", "bottom")
COLUMNS = ("left", "center", "right")

Answers = Callable[[Sample, Category], Sequence[str] | None]


class WantsCaptions(Protocol):
    """The part of a config that says which sentences its method wants.

    See :class:`zsad.config.method_config.MethodConfig`.
    """

    @property
    def caption_source(self) -> str: ...
    @property
    def caption_all(self) -> bool: ...
    @property
    def caption_count(self) -> int: ...


def captions_for(
    config: WantsCaptions,
    samples: Sequence[Sample],
    categories: Mapping[str, Category],
    kind: str,
    answers: Answers | None = None,
) -> dict[str, list[str]]:
    """Return the sentences that a method's training wants, by category key, in sample order.

    ``kind``: the method's kind of prompts, '' for none; its question is the one that was answered.
    ``answers``: looks up a vision model's cached descriptions of an image, one an answer ('' where
    it names nothing abnormal), None where it was not asked; default
    :func:`zsad.prompt_bank.vision.cached_answers`.  Of every image the first ``caption_count``
    answers are read.  When the source is ``endpoint``: raises :class:`RequestError` for a kind that
    asks nothing about images, and :class:`DataError` naming the command that makes missing answers.
    """
    source, count = config.caption_source, config.caption_count
    if source == "off":
        return {}
    if source == "mask":
        return mask_captions(samples, categories, config.caption_all)
    if answers is None:
        answers = _cached(kind, source)
    captions: dict[str, list[str]] = {}
    missing = 0
    for sample in wanted(samples, config.caption_all):
        category = categories[sample.category]
        found = answers(sample, category)
        if source == "endpoint" and len(found or ()) < count:
            missing += 1
        elif found is None:
            found = [describe(sample, category)]
        captions.setdefault(sample.category, []).extend(t for t in (found or ())[:count] if t)
    if missing:
        name = next(iter(categories.values())).dataset
        few = "no cached description" if count == 1 else f"fewer than {count} cached descriptions"
        raise DataError(
            f"{missing} training images have {few}; make them with "
            f"`{_command(config, kind, name)}`, or take the annotation instead (caption source "
            f"'mask' or 'auto')"
        )
    return captions


def _command(config: WantsCaptions, kind: str, dataset: str) -> str:
    """What asks about all images that ``config`` wants described."""
    words = [f"zsad prompts generate --kind {kind} --datasets {dataset} --images"]
    words += ["--normal-images"] if config.caption_all else []
    words += [f"--per-image {config.caption_count}"] if config.caption_count > 1 else []
    return " ".join(words)


def _cached(kind: str, source: str) -> Answers:
    """What was answered to the question that a kind asks about images."""
    from zsad.prompt_bank.vision import cached_answers

    query = find_kind(kind).image_query if kind else None
    if query is not None:
        return cached_answers(query)
    if source == "endpoint":
        why = f"the prompt kind '{kind}'" if kind else "the method, which has no prompt kind,"
        raise RequestError(
            f"caption source 'endpoint': {why} asks nothing about images; take 'mask'"
        )
    return lambda sample, category: None


def mask_captions(
    samples: Iterable[Sample], categories: Mapping[str, Category], normal_too: bool = False
) -> dict[str, list[str]]:
    """Return one sentence per anomalous image (``normal_too``: per image) by category key."""
    captions: dict[str, list[str]] = {}
    for sample in wanted(samples, normal_too):
        text = describe(sample, categories[sample.category])
        captions.setdefault(sample.category, []).append(text)
    return captions


def wanted(samples: Iterable[Sample], normal_too: bool) -> list[Sample]:
    """The images that are described, in a stable order."""
    chosen = (s for s in samples if s.label or normal_too)
    return sorted(chosen, key=lambda s: (s.category, s.uid, s.image))


def describe(sample: Sample, category: Category) -> str:
    """Write one sentence about an image from its annotation.

    Without a mask it names the defect alone.  Raises :class:`DataError` for unreadable files.
    """
    name = category.class_name
    if not sample.label:
        return f"{article(name)} {name} with a uniform, regular appearance".capitalize() + "."
    defect = defect_words(sample.defect)
    mask = read_mask(sample) if sample.mask is not None else None
    if mask is None or not mask.any():
        return f"{article(name)} {name} with {article(defect)} {defect}".capitalize() + "."
    image = read_image(sample.image, sample.crop, sample.bits)
    pixels, small = _shrunk(np.asarray(image), mask)
    words = " ".join((region_tone(pixels, small), region_size(small), region_shape(small)))
    words = f"{words} {defect}"
    place = region_place(small)
    return f"{article(words)} {words} at the {place} of the {name}".capitalize() + "."


def defect_words(defect: str) -> str:
    """The defect type in words; "anomalous region" where it names nothing."""
    plain = in_words(defect)
    if plain in UNTOLD or not any(c.isalpha() for c in plain):
        return "anomalous region"
    return plain


def region_size(mask: np.ndarray) -> str:
    """``tiny`` for a mask [H, W] below 0.5 % of the image's area, ``small`` below 5 %, else
    ``large``."""
    share = float(mask.mean())
    return "tiny" if share < TINY else "small" if share < SMALL else "large"


def region_shape(mask: np.ndarray) -> str:
    """The shape of a mask [H, W] that marks something: ``elongated``, ``round`` or ``irregular``,
    or ``scattered`` for many pieces.

    Elongation is the ratio of the region's principal standard deviations.  A region is round
    when it fills the ellipse of its own second moments (a stand-in for solidity that a few
    pixels cannot upset).
    """
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    areas = np.bincount(labels.ravel())[1:]
    if count > 3 and areas.max() < 0.6 * areas.sum():
        return "scattered"
    rows, columns = np.nonzero(labels == int(areas.argmax()) + 1)
    if rows.size < 4:
        return "round"
    points = np.stack([rows, columns]).astype(np.float64)
    covariance = np.cov(points, bias=True) + np.eye(2) / 12  # a pixel has an extent
    low, high = np.sqrt(np.maximum(np.linalg.eigvalsh(covariance), 1e-9))
    if high > 2.5 * low:
        return "elongated"
    filled = rows.size / (4 * np.pi * low * high)  # 1 for an ellipse, 0.95 for a rectangle
    return "round" if high < 1.5 * low and filled > 0.85 else "irregular"


def region_place(mask: np.ndarray) -> str:
    """The cell of a 3x3 grid that holds the centroid of a mask [H, W]: ``top left`` ...
    ``center``."""
    rows, columns = np.nonzero(mask)
    r = min(2, int(3 * (rows.mean() + 0.5) / mask.shape[0]))
    c = min(2, int(3 * (columns.mean() + 0.5) / mask.shape[1]))
    if r == 1:
        return "center" if c == 1 else COLUMNS[c]
    return f"{ROWS[r]} {COLUMNS[c]}" if c != 1 else ROWS[r]


def region_tone(pixels: np.ndarray, mask: np.ndarray) -> str:
    """``darker``, ``lighter`` or the name of a tint, against a ring around the region.

    ``pixels`` uint8 [H, W, 3].  Falls back to all other pixels where the ring is empty, and to
    ``low-contrast`` where nothing differs by eight grey levels.
    """
    width = max(2, round(0.05 * max(mask.shape)))
    ring = ndimage.binary_dilation(mask, iterations=width) & ~mask
    ring = ring if ring.any() else ~mask
    if not ring.any():
        return "low-contrast"
    difference = pixels[mask].mean(0) - pixels[ring].mean(0)
    tint = difference - difference.mean()
    if np.ptp(tint) > 30 and np.ptp(tint) > abs(difference.mean()):
        names = ("reddish", "greenish", "bluish")
        inverse = ("cyan", "purplish", "yellowish")
        strongest = int(np.abs(tint).argmax())
        return names[strongest] if tint[strongest] > 0 else inverse[strongest]
    if abs(difference.mean()) < 8:
        return "low-contrast"
    return "lighter" if difference.mean() > 0 else "darker"


def _shrunk(pixels: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both at every k-th pixel, so that the longest side is about :data:`LONGEST_SIDE`; the
    mask keeps whatever is marked within a step."""
    step = max(1, max(mask.shape) // LONGEST_SIDE)
    if step == 1:
        return pixels, mask
    height, width = (n // step * step for n in mask.shape)
    blocks = mask[:height, :width].reshape(height // step, step, width // step, step)
    small = np.asarray(blocks.mean((1, 3)) >= 0.5)
    small = small if small.any() else np.asarray(blocks.any((1, 3)))
    if not small.any():
        return pixels, mask  # marked only in the cut-off margin
    return pixels[:height:step, :width:step], small

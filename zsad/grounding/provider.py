"""Where boxes come from in a run: a file, a detector with its cache, or nowhere, and why."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zsad.checkpoints.released import Content, by_content
from zsad.errors import DataError, RequestError, WeightsError, ZsadError
from zsad.grounding import weight_files
from zsad.grounding.cache import BoxCache
from zsad.grounding.file import BoxFile
from zsad.grounding.interface import DEFAULT, DETECTORS, Detector, DetectorOptions, Handle, find
from zsad.method import BoxRequest
from zsad.runtime.boxes import picture_digest
from zsad.types import Boxes, Category, Sample

if TYPE_CHECKING:
    from PIL.Image import Image

log = logging.getLogger(__name__)


class BoxProvider:
    """Answers a method's request for boxes, one entry per image; None: no answer.

    ``info`` says what the boxes are made with, and why where there are none.  With ``lenient``
    an image without an answer is logged and gets None; otherwise it is a :class:`DataError`.
    """

    def __init__(
        self,
        request: BoxRequest,
        *,
        handle: Handle | None = None,
        file: BoxFile | None = None,
        cache: BoxCache | None = None,
        lenient: bool = True,
        info: dict[str, Any] | None = None,
    ) -> None:
        self.request = request
        self.info: dict[str, Any] = {"answered": 0, "unanswered": 0, **(info or {})}
        self._answers: dict[tuple[str, str], dict[str, bool]] = {}  # by category, then picture
        self._handle = handle
        self._file = file
        self._cache = cache
        self._lenient = lenient
        self._detector: Detector | None = None

    def account(self, dataset: str, category: str) -> dict[str, Any]:
        """``info`` with the counts of one category's pictures, however often they were asked for:
        those of all would hide a category without any answer."""
        held = self._answers.get((dataset, category), {})
        answered = sum(held.values())
        return {**self.info, "answered": answered, "unanswered": len(held) - answered}

    def boxes(
        self, samples: Sequence[Sample], categories: Sequence[Category]
    ) -> list[Boxes | None]:
        """Return the boxes of samples, which are opened only if their answer is not known yet."""
        from zsad.data.images import image_digest, read_image

        return [
            self._answer(
                c,
                [s.uid, f"{c.dataset}/{s.uid}"],
                lambda s=s: image_digest(s),  # type: ignore[misc]
                lambda s=s: read_image(s.image, s.crop, s.bits),  # type: ignore[misc]
            )
            for s, c in zip(samples, categories)
        ]

    def boxes_of_pictures(
        self, pictures: Sequence[Image], categories: Sequence[Category], names: Sequence[str] = ()
    ) -> list[Boxes | None]:
        """Return the boxes of RGB pictures.  ``names``: their paths, to be looked up in a file."""
        found = []
        for i, (picture, category) in enumerate(zip(pictures, categories)):
            keys = [names[i], Path(names[i]).name] if i < len(names) else []
            found.append(
                self._answer(
                    category,
                    keys,
                    lambda p=picture: picture_digest(p),  # type: ignore[misc]
                    lambda p=picture: p,  # type: ignore[misc]
                )
            )
        return found

    def _answer(
        self,
        category: Category,
        keys: list[str],
        digest: Callable[[], str],
        read: Callable[[], Image],
    ) -> Boxes | None:
        name = keys[0] if keys else "picture"
        answer: Boxes | None = None
        if self._file is not None:
            answer = self._file.find([*keys, digest()])
            reason = f"{self._file.path}: no boxes of {name}"
        elif self._handle is not None:
            try:
                answer = self._detect(self._phrases(category), digest, read)
            except (RequestError, WeightsError):
                raise
            except Exception as error:  # a detector is foreign code
                reason = f"detector failed on {name}: {error or type(error).__name__}"
        else:
            return None
        self._answers.setdefault((category.dataset, category.key), {})[name] = answer is not None
        if answer is not None:
            self.info["answered"] += 1
            return answer
        self.info["unanswered"] += 1
        if not self._lenient:
            raise DataError(f"{reason}; grounding.enabled=auto goes on without its boxes")
        log.warning("%s; going on without its boxes", reason)
        return None

    def _phrases(self, category: Category) -> Sequence[str]:
        try:
            return self.request.phrases[category.key]
        except KeyError:
            raise RequestError(f"no detector phrases for category '{category.key}'") from None

    def _detect(
        self, phrases: Sequence[str], digest: Callable[[], str], read: Callable[[], Image]
    ) -> Boxes:
        assert self._handle is not None
        key = digest() if self._cache is not None else ""
        if self._cache is not None:
            known = self._cache.get(key, phrases)
            if known is not None:
                return known
        if self._detector is None:
            self._detector = self._handle.load()
        found = self._detector(read(), phrases)
        if self._cache is not None:
            self._cache.put(key, phrases, found)
        return found


def provider(
    request: BoxRequest,
    *,
    device: str = "cpu",
    cache_dir: Path | None = None,
    target: str = "",
) -> BoxProvider:
    """Find out where the boxes of ``request`` can come from.

    Its ``options``: ``enabled`` (``auto``, true, false), ``file``, ``detector``, ``cache`` and
    the fields of :class:`DetectorOptions`.  With ``auto``, what cannot be had is logged once,
    stands in ``info["reason"]``, and all answers are None; with true, and where a file of boxes
    or weights was named, it raises :class:`RequestError`, :class:`WeightsError` or
    :class:`DataError`.  ``target``: the dataset that pictures belong to, "" for none.
    """
    options = request.options
    enabled = options.get("enabled", "auto")
    if enabled is False:
        return BoxProvider(request, info={"source": "none", "reason": "switched off"})
    lenient = enabled == "auto"
    if options.get("file"):
        # A file that was asked for by name must be readable, whatever `enabled` says.
        file = BoxFile.read(Path(str(options["file"])))
        return BoxProvider(request, file=file, lenient=lenient, info=file.info)
    try:
        handle = _handle(*_chosen(options, device, target))
    except ZsadError as error:
        if not lenient or named(options):
            raise
        _say_once(f"going on without boxes: {error}")
        return BoxProvider(request, info={"source": "none", "reason": str(error)})
    cache = None
    if options.get("cache", True) and handle.identity is not None:
        cache = BoxCache(handle.identity, cache_dir)
    info = {"source": "detector", **handle.info, **_known(handle.info, target)}
    return BoxProvider(request, handle=handle, cache=cache, lenient=lenient, info=info)


def named(options: Mapping[str, Any]) -> bool:
    """Whether ``grounding.*`` options name weights, which must then be there and be readable."""
    return options.get("weights", "stock") not in weight_files.WORDS


def _known(info: Mapping[str, Any], target: str) -> dict[str, str]:
    """What the table of released files says of a detector's weights: ``released``, the file;
    ``trained_on``; ``recognised``, where the method's authors evaluate ``target`` with them."""
    row = by_content(Content(str(info.get("weights_sha256") or ""), ""))
    if row is None:
        return {}
    known = {"released": row.name}
    if not row.trained_on:  # the stock detector is not what the authors log
        return known
    known["trained_on"] = " + ".join(row.trained_on)
    theirs = row.official and row.serves_target(target)
    return {**known, "recognised": row.name} if theirs else known


def _chosen(options: Mapping[str, Any], device: str, target: str) -> tuple[str, DetectorOptions]:
    """The detector, and how it is set up for the pictures of one dataset."""
    name = str(options.get("detector", DEFAULT))
    if name in DETECTORS:
        weights = weight_files.choose(options.get("weights", "stock"), target)
        options = {**options, "weights": weights}
    else:
        options = {}  # a function of the user's own is asked as it is
    return name, DetectorOptions.of(options, device)


def require(
    options: Mapping[str, Any], targets: Sequence[str], method: str, asked_by: str = ""
) -> None:
    """Raise before a run if boxes that were asked for cannot be had for its ``targets``.

    Weights that were named must be readable, and stand for every target.  ``asked_by``: who
    demands boxes, "" if nobody does; then ``auto`` that would find none is a
    :class:`RequestError`, whose message says how to go without.
    """
    if options.get("enabled", "auto") is False or options.get("file"):
        return  # decided by the user: without boxes, or an error of its own where there are none
    if not (asked_by or named(options)):
        return
    try:
        for target in targets:
            handle = _handle(*_chosen(options, "cpu", target))
            if named(options):
                handle.check()
    except ZsadError as error:
        if named(options):
            raise type(error)(f"{method}: {error}") from None
        if options.get("enabled", "auto") != "auto" or not asked_by:
            return
        raise RequestError(
            f"{asked_by} needs the boxes of a detector for {method}: {error}; or go without, as "
            f"another method than the paper's: {method}.grounding=none"
        ) from None


@lru_cache(maxsize=4)
def _handle(name: str, options: DetectorOptions) -> Handle:
    """One handle, and with it one loaded detector, per set of options."""
    found = find(name, options)
    return Handle(lru_cache(maxsize=1)(found.load), found.identity, found.info, found.check)


@lru_cache(maxsize=64)
def _say_once(message: str) -> None:
    log.warning(message)

"""Own pictures: check the request, find the pictures, set thresholds, score and write.

What ``zsad.predict`` does.  Torch is imported when a method is loaded: a wrong request ends before.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zsad import registry
from zsad.errors import RequestError, counted, reason
from zsad.inference import provenance
from zsad.inference.options import Overrides, PredictOptions, words
from zsad.io import require_writable

if TYPE_CHECKING:
    from zsad.data.ignored import Ignored
    from zsad.inference.loaded_method import LoadedMethod
    from zsad.inference.outputs import Writer
    from zsad.inference.pictures import Photo
    from zsad.inference.prediction import Prediction
    from zsad.registry import MethodEntry
    from zsad.runtime.thresholds import Thresholds

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CheckedRequest:
    """What a checked request comes to.

    ``kinds``: of files to write for every picture; ``formats``: of files for other programs;
    ``ignored``: parts of the pictures that are not looked at; ``good``: normal pictures that
    thresholds are set by; ``references``: normal pictures that the method compares with, and
    ``shots``: how many it is loaded for.
    """

    kinds: tuple[str, ...]
    formats: tuple[str, ...]
    ignored: Ignored | None
    pictures: list[Photo]
    good: list[Photo]
    references: list[Any]
    shots: int


def predict(
    options: PredictOptions,
    load: Callable[[Overrides], LoadedMethod],
    called: Mapping[str, str] | None = None,
) -> Iterator[Prediction]:
    """Check the request, ``load`` the method and return the predictions as they are made; see
    :func:`zsad.api.predict_iter`.

    ``called``: names by path that predictions, and what is written, say in place of paths.
    """
    from zsad.inference.references import digest, with_shots

    request = _checked(options)
    loaded = load(with_shots(options.method, options.overrides, request.shots))
    loaded.pictures.expect(len(request.pictures) + len(request.good))
    loaded.pictures.shows_prompts = "prompts" in request.kinds
    made_by = provenance.made_by(loaded, options.class_name) | options.facts
    kept = digest(request.references, loaded.framing.bits) if request.references else ""
    if options.bank is not None:
        kept = loaded.load_bank(options.bank, options.class_name)
    if options.save_bank is not None:
        given = request.references or [p.path for p in request.pictures]
        loaded.save_bank(options.save_bank, given, options.class_name)
    limits = _limits(loaded, options, request, kept, made_by) if options.normal else None
    return _scored(loaded, options, request, limits, made_by, called or {})


def _checked(options: PredictOptions) -> CheckedRequest:
    """Look at all that can be seen to be wrong before a method is loaded, and find the pictures.

    Raises :class:`RequestError`, and :class:`zsad.errors.DataError` for pictures that are not
    there."""
    from zsad.data.ignored import Ignored
    from zsad.inference import handover, outputs
    from zsad.inference.pictures import find
    from zsad.inference.references import found as references_of
    from zsad.inference.references import warn_of_twins
    from zsad.inference.request import category_of

    out = options.out
    if options.plugins:
        registry.add_plugins(options.plugins)
    entry = registry.method(options.method)  # a misspelt name ends before torch is imported
    category_of(options.class_name, **options.facts)  # so does another kind than there are
    _warn_of_unread(entry, options.facts)
    _check_numbers(options)
    kinds, formats = outputs.kinds(options.save, out), handover.formats(options.to, out)
    _check_prompts(entry, kinds, out)
    ignored = None if options.ignore is None else Ignored.parse(options.ignore)
    pictures = find(words(options.pictures), out, options.listed)
    if not pictures:
        raise RequestError("there are no pictures to score; give files or folders")
    _check_calibration(options)
    _check_page(options.one_file, kinds, out, len(pictures))
    if options.scale is not None and not {"heat", "page"} & set(kinds):
        raise RequestError(
            "--scale: changes nothing without heat maps; add 'heat' or 'page' to --save"
        )
    normal = [] if options.is_calibrated else references_of(options.normal, "--calibrate")
    good = find(map(str, normal))
    if ignored:
        _tell_unmasked(ignored, [*pictures, *good])
    references = references_of(options.references)
    warn_of_twins(references, [p.path for p in pictures])
    shots = _check_bank(options.method, options.bank, options.save_bank, len(references))
    if out is not None:
        require_writable(out, f"--out {out}")
        _tell_earlier(Path(out), options, kinds, formats)
    return CheckedRequest(kinds, formats, ignored, pictures, good, references, shots)


def _scored(
    loaded: LoadedMethod,
    options: PredictOptions,
    request: CheckedRequest,
    limits: Thresholds | None,
    made_by: dict[str, Any],
    called: Mapping[str, str],
) -> Iterator[Prediction]:
    """Score picture after picture, and write the files of each."""
    from zsad.inference import outputs

    stream = loaded.stream(
        [p.path for p in request.pictures],
        options.class_name,
        references=request.references,
        explanations=options.explanations,
        thresholds=limits,
        keep_errors=True,
        kinds=options.kind,
        domains=options.domain,
        ignore=request.ignored,
    )
    with contextlib.ExitStack() as stack:
        writer: Writer | None = None
        if options.out:
            bits = loaded.framing.bits
            writer = outputs.Writer(
                options.out, request.kinds, options.scale, bits, options.one_file, request.formats
            )
            stack.enter_context(writer)
        for photo, prediction in zip(request.pictures, stream):
            prediction.made_by = made_by
            if called:
                _call(prediction, str(photo.path), called)
            prediction.set_by_hand(options.image_threshold, options.threshold)
            yield _written(writer, prediction, photo) if writer else prediction


def _tell_earlier(
    out: Path, options: PredictOptions, kinds: Sequence[str], formats: Sequence[str]
) -> None:
    """Say which files about all pictures lie in ``out`` and are not written anew."""
    from zsad.inference import outputs

    calibrates = bool(options.normal)  # or takes the thresholds of that very file
    again = outputs.files_of_all(kinds, formats, calibrates)
    left = [name for name in outputs.OF_ALL if name not in again and (out / name).is_file()]
    if left:
        log.warning(
            "--out %s: %s of an earlier run: not written anew, and not about this one",
            *(out, ", ".join(left) + (" is" if len(left) == 1 else " are")),
        )


def _warn_of_unread(entry: MethodEntry, facts: Mapping[str, str]) -> None:
    """Say which facts about the pictures the method does not depend on."""
    for fact in (fact for fact in facts if fact not in entry.reads):
        log.warning(
            "--%s %s: changes nothing, %s does not depend on it",
            *(fact, facts[fact], entry.title),
        )


def _check_bank(
    method: str, bank: str | Path | None, save_bank: str | Path | None, references: int
) -> int:
    """How many pictures the method compares with.  Raises before anything is loaded."""
    from zsad.inference.reference_bank import read_account

    compares = registry.method(method).transductive
    if bank is not None:
        if references or save_bank is not None:
            raise RequestError(
                f"--bank {bank}: holds the references; leave --reference and --save-bank out"
            )
        shots = read_account(bank).shots
        return 0 if compares else shots
    if save_bank is not None and not references and not compares:
        raise RequestError(f"--save-bank {save_bank}: needs --reference with normal pictures")
    return references


def _check_page(one_file: bool, kinds: Sequence[str], out: str | Path | None, count: int) -> None:
    """Raise :class:`RequestError` for a page in one file that cannot be made."""
    from zsad.inference.page import MOST_IN_ONE

    if one_file and (out is None or "page" not in kinds):
        raise RequestError("--one-file: needs --out DIR, and 'page' among the kinds of --save")
    if one_file and count > MOST_IN_ONE:
        raise RequestError(
            f"--one-file: holds at most {MOST_IN_ONE} pictures, and there are {count}; leave it out"
        )


def _check_prompts(entry: MethodEntry, kinds: Sequence[str], out: str | Path | None) -> None:
    """Raise :class:`RequestError` for a method that has no prompts to show."""
    if out is not None and "prompts" in kinds and not entry.shows_prompts:
        able = sorted(name for name, other in registry.methods().items() if other.shows_prompts)
        raise RequestError(
            f"--save prompts: method '{entry.name}' shows no single prompts; those that do: "
            f"{', '.join(able)}"
        )


def _check_numbers(options: PredictOptions) -> None:
    """Raise :class:`RequestError` for NaN and infinity: nothing would ever be above or below."""
    low, high = options.scale or (None, None)
    for name, value in (
        ("threshold", options.threshold),
        ("image-threshold", options.image_threshold),
        ("false-alarms", options.false_alarms),
        ("scale", low),
        ("scale's end", high),
    ):
        if value is not None and not math.isfinite(value):
            raise RequestError(f"--{name} {value}: is not a finite number")


def _tell_unmasked(hidden: Ignored, pictures: Sequence[Photo]) -> None:
    """Check what is ignored of every picture, and say of which there is nothing."""
    missing = hidden.check([p.path for p in pictures])
    if hidden.masks and missing:
        log.warning(
            "--ignore %s: %d of %s without a mask there, %s the first; nothing is ignored there",
            hidden.masks,
            len(missing),
            counted(len(pictures), "picture"),
            missing[0],
        )


def _check_calibration(options: PredictOptions) -> None:
    """Raise :class:`RequestError` before anything is loaded."""
    normal, stored = options.normal, options.is_calibrated
    if stored and not Path(normal[0]).is_file():
        raise RequestError(f"--calibrate {normal[0]}: no such file")
    if options.false_alarms is not None and not 0 < options.false_alarms < 1:
        raise RequestError(
            f"--false-alarms {options.false_alarms:g}: give a share between 0 and 1, such as 0.05"
        )
    if options.false_alarms is not None and (stored or not normal):
        raise RequestError(
            f"--false-alarms {options.false_alarms:g}: needs --calibrate with a folder of normal "
            f"pictures"
        )


def _limits(
    loaded: LoadedMethod,
    options: PredictOptions,
    request: CheckedRequest,
    references: str,
    made_by: Mapping[str, Any],
) -> Thresholds:
    """The thresholds of an earlier run, or those that normal pictures give.  ``references``: the
    digest of what the method compares with, or ""."""
    from zsad.inference import calibration, outputs
    from zsad.inference.references import warn_of_twins

    facts, reads = options.facts, registry.method(options.method).reads
    made_for = loaded.identity(options.class_name, request.ignored)
    made_for |= {"references": references} if references else {}
    made_for |= {fact: facts[fact] for fact in reads if fact in facts}
    if options.is_calibrated:
        return calibration.load(options.normal[0], made_for)
    good = [p.path for p in request.good]
    warn_of_twins(request.references, good, "--calibrate")
    share = calibration.FALSE_ALARMS if options.false_alarms is None else options.false_alarms
    limits = loaded.calibrate(
        good,
        options.class_name,
        references=request.references,
        false_alarms=share,
        ignore=request.ignored,
        kinds=options.kind,
        domains=options.domain,
    )
    if options.out is not None:
        outputs.save_calibration(options.out, limits, made_for, made_by)
    return limits


def _written(writer: Writer, prediction: Prediction, photo: Photo) -> Prediction:
    """Write the files of a picture; what concerns it alone is its own error.

    Raises :class:`RequestError` where the output folder cannot be written.
    """
    from zsad.inference.pictures import failed

    try:
        writer.put(prediction, photo)
    except RequestError:
        raise
    except Exception as error:
        prediction = failed(str(photo.path), reason(error))
        writer.put(prediction, photo)  # its row of the table
    return prediction


def _call(prediction: Prediction, path: str, called: Mapping[str, str]) -> None:
    """Let a prediction say the name of its picture in place of the path."""
    prediction.path = called.get(path, path)
    prediction.error = prediction.error.replace(path, prediction.path)

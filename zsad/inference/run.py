"""Own pictures: load a method, find the pictures, set thresholds, score and write.

What ``zsad.load_method`` and ``zsad.predict`` do.  Torch is imported when a method is loaded: a
wrong request ends before.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zsad import registry
from zsad.checkpoints import bundled
from zsad.errors import RequestError, WeightsError, counted, reason
from zsad.inference import provenance
from zsad.inference.settings import ORIGIN, split
from zsad.io import require_writable

if TYPE_CHECKING:
    from zsad.checkpoints.account import Origin
    from zsad.data.ignored import Ignored
    from zsad.inference.loaded_method import LoadedMethod
    from zsad.inference.outputs import Writer
    from zsad.inference.pictures import Photo
    from zsad.inference.prediction import Prediction
    from zsad.method import AnyMethod
    from zsad.registry import MethodEntry
    from zsad.runtime.thresholds import Thresholds
    from zsad.types import BackboneInfo

log = logging.getLogger(__name__)

Paths = str | Path | Sequence[str | Path]
Overrides = Mapping[str, Any] | Sequence[str] | None


def load_method(
    name: str,
    backbone: str,
    weights: str | Path | None,
    image_size: int | None,
    checkpoint: str | Path | None,
    preset: str | None,
    device: str,
    overrides: Overrides,
    *,
    precision: str,
    engine: str,
    offline: bool,
    untrained: bool,
    seed: int,
    activation: str,
    tiles: int | str | None,
    keep_aspect: bool,
) -> LoadedMethod:
    """Load one method on one backbone; see :func:`zsad.api.load_method`."""

    from zsad import backbones
    from zsad.backbones.devices import choose_device
    from zsad.backbones.precision import resolved
    from zsad.backbones.specs import require_text
    from zsad.checkpoints import load_into
    from zsad.checkpoints.choice import single
    from zsad.data.calibration import EXAMPLES
    from zsad.inference.loaded_method import LoadedMethod
    from zsad.inference.tiles import Framing
    from zsad.method import new_method

    entry = registry.method(name)
    settings, own = split(
        name,
        overrides,
        {
            "name": backbone,
            "weights": str(weights) if weights else None,
            "image_size": image_size,
            "precision": precision,
            "engine": engine,
            "activation": activation,
        },
    )
    chosen = replace(settings.value, backbone=resolved(settings.value.backbone, device))
    framing = Framing.of(tiles, keep_aspect, chosen.data.folder.bits)
    place = choose_device(device)
    require_text(chosen.backbone.name, [name] if entry.reads_text else [])
    base = backbones.load_chosen(chosen.backbone, place, offline, EXAMPLES)
    how: dict[str, Any] = {
        "image_size": chosen.backbone.image_size,  # given, it is stronger than the method's own
        "batch_size": chosen.run.batch_size,
        "framing": framing,
        "deterministic": chosen.run.deterministic
        and settings.origin("run.deterministic") == ORIGIN,
    }
    layers: list[tuple[str, Mapping[str, Any]]] = []
    if preset:
        layers.append((ORIGIN, {"preset": preset}))
    layers.append((ORIGIN, own))
    shipped = None if untrained else bundled.state_of(entry, base.info.name)
    if checkpoint is None and shipped is not None:
        method = _shipped(entry, shipped, base.info, layers)
        return LoadedMethod(method, base, place, **how)
    if checkpoint is None:
        if entry.trained and not untrained:
            raise WeightsError(
                f"method '{name}' is trained and no checkpoint is given; pass checkpoint=FILE "
                f"(`zsad train --methods {name} ...` makes one), or untrained=True for its "
                f"initial state"
            )
        method = new_method(entry, entry.resolve(*layers), base.info, seed)
        loaded = LoadedMethod(method, base, place, **how)
        loaded.untrained = entry.trained
        return loaded
    if not entry.trained:
        raise RequestError(f"method '{name}' is training-free: it takes no checkpoint")
    origin = single(checkpoint, name, offline=offline, companions=entry.companions)
    method, report = load_into(entry, origin.path, base.info, layers)
    return LoadedMethod(method, base, place, report=[*_known(origin), *report], **how)


def _shipped(
    entry: MethodEntry, path: Path, info: BackboneInfo, layers: Sequence[tuple[str, Any]]
) -> AnyMethod:
    """The method with the state that comes with it.  Raises :class:`RequestError` for settings that
    it was not trained with: nobody chose the file, so it is not stretched to fit."""
    from zsad.checkpoints import load_into
    from zsad.training.identity import training_config

    method, _ = load_into(entry, path, info, layers)
    recipe = bundled.recipe_of(entry, info.name).config
    asked = training_config(entry.resolve(("the state that comes with zsad", recipe), *layers))
    plain = training_config(load_into(entry, path, info)[0].config)
    if differing := [key for key in plain if asked.get(key) != plain[key]]:
        raise RequestError(
            f"{entry.name}: the state that comes with zsad for {info.name} was trained with other "
            f"settings ({', '.join(differing)}); give a checkpoint that was trained with yours "
            f"(`zsad train`), or leave them out"
        )
    method.trained_from["bundled"] = bundled.words(path)
    return method


def _known(origin: Origin) -> list[str]:
    """What is known of a released file, as lines of a report."""
    row = origin.released
    return [] if row is None else [f"{origin.words}; serves {row.serves_words}"]


def predict(
    method: str,
    pictures: Paths,
    class_name: str,
    *,
    calibrate: Paths | None,
    false_alarms: float | None,
    out: str | Path | None,
    threshold: float | None,
    image_threshold: float | None,
    scale: tuple[float, float] | None,
    ignore: str | Path | None,
    save: str | Sequence[str] | None,
    to: str | Sequence[str] | None,
    one_file: bool,
    kind: str | None,
    domain: str | None,
    references: Paths,
    explanations: int,
    listed: Sequence[str],
    plugins: str | Path | None,
    overrides: Overrides,
    bank: str | Path | None,
    save_bank: str | Path | None,
    load: Callable[[Overrides], LoadedMethod],
    called: Mapping[str, str] | None = None,
) -> Iterator[Prediction]:
    """Check the request, ``load`` the method and return the predictions as they are made; see
    :func:`zsad.api.predict`.

    ``called``: names by path that predictions, and what is written, say in place of paths.
    """
    from zsad.data.ignored import Ignored
    from zsad.inference import handover, outputs
    from zsad.inference.pictures import find
    from zsad.inference.references import digest, with_shots
    from zsad.inference.references import found as references_of
    from zsad.inference.request import category_of

    if plugins:
        registry.add_plugins(plugins)
    entry = registry.method(method)  # a misspelt name ends here, before torch is imported
    told = {k: v for k, v in (("kind", kind), ("domain", domain)) if v is not None}
    category_of(class_name, **told)  # so does another kind than there are
    for fact in (fact for fact in told if fact not in entry.reads):
        log.warning(
            "--%s %s: changes nothing, %s does not depend on it",
            *(fact, told[fact], entry.title),
        )
    _check_numbers(threshold=threshold, image_threshold=image_threshold, false_alarms=false_alarms)
    _check_numbers(**dict(zip(("scale", "scale's end"), scale or ())))
    kinds, handed = outputs.kinds(save, out), handover.formats(to, out)
    _check_prompts(entry, kinds, out)
    hidden = None if ignore is None else Ignored.parse(ignore)
    found = find(_words(pictures), out, listed)
    if not found:
        raise RequestError("there are no pictures to score; give files or folders")
    normal = _words(calibrate) if calibrate else []
    _check_calibration(normal, false_alarms)
    _check_page(one_file, kinds, out, len(found))
    good = [] if _is_stored(normal) else find(normal)
    if hidden:
        _tell_unmasked(hidden, [*found, *good])
    near = references_of(references)
    shots = _check_bank(method, bank, save_bank, len(near))
    if out is not None:
        require_writable(out, f"--out {out}")
    loaded = load(with_shots(method, overrides, shots))
    loaded.pictures.expect(len(found) + len(good))
    loaded.pictures.shows_prompts = "prompts" in kinds
    made_by = provenance.made_by(loaded, class_name) | told
    bits = loaded.framing.bits
    kept = digest(near, bits) if near else ""
    if bank is not None:
        kept = loaded.load_bank(bank, class_name)
    if save_bank is not None:
        loaded.save_bank(save_bank, near or [p.path for p in found], class_name)
    limits = None
    if normal:
        made_for = loaded.identity(class_name, hidden) | ({"references": kept} if kept else {})
        made_for |= {fact: told[fact] for fact in entry.reads if fact in told}
        limits = _limits(
            *(loaded, normal, good, class_name, near, made_for, false_alarms, out, hidden),
            *(made_by, told),
        )

    def each() -> Iterator[Prediction]:
        stream = loaded.stream(
            [p.path for p in found],
            class_name,
            None,
            near,
            explanations,
            limits,
            keep_errors=True,
            kinds=kind,
            domains=domain,
            ignore=hidden,
        )
        with contextlib.ExitStack() as stack:
            writer = (
                stack.enter_context(outputs.Writer(out, kinds, scale, bits, one_file, handed))
                if out
                else None
            )
            for photo, prediction in zip(found, stream):
                prediction.made_by = made_by
                if called:
                    _call(prediction, str(photo.path), called)
                prediction.set_by_hand(image_threshold, threshold)
                if writer:
                    prediction = _written(writer, prediction, photo)
                yield prediction

    return each()


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
    """Raise :class:`RequestError` for a page in one file that cannot be meant."""
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


def _check_numbers(**values: float | None) -> None:
    """Raise :class:`RequestError` for NaN and infinity: nothing would ever be above or below."""
    for name, value in values.items():
        if value is not None and not math.isfinite(value):
            flag = name.replace("_", "-")
            raise RequestError(f"--{flag} {value}: is not a finite number")


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


def _is_stored(normal: Sequence[str]) -> bool:
    """Whether the thresholds come from the ``calibration.json`` of an earlier run."""
    return len(normal) == 1 and normal[0].endswith(".json")


def _check_calibration(normal: Sequence[str], false_alarms: float | None) -> None:
    """Raise :class:`RequestError` before anything is loaded."""
    stored = _is_stored(normal)
    if stored and not Path(normal[0]).is_file():
        raise RequestError(f"--calibrate {normal[0]}: no such file")
    if false_alarms is not None and (stored or not normal):
        raise RequestError(
            f"--false-alarms {false_alarms:g}: needs --calibrate with a folder of normal pictures"
        )


def _limits(
    loaded: LoadedMethod,
    normal: Sequence[str],
    good: Sequence[Photo],
    class_name: str,
    references: Sequence[Any],
    made_for: dict[str, Any],
    false_alarms: float | None,
    out: str | Path | None,
    hidden: Ignored | None,
    made_by: Mapping[str, Any],
    told: Mapping[str, str],
) -> Thresholds:
    """The thresholds of an earlier run, or those that the pictures ``good`` give.  ``made_for``:
    what they depend on; ``told``: kind and domain, where given."""
    from zsad.inference import calibration, outputs
    from zsad.inference.references import warn_of_twins

    if _is_stored(normal):
        return calibration.load(normal[0], made_for)
    warn_of_twins(references, [p.path for p in good])
    share = calibration.FALSE_ALARMS if false_alarms is None else false_alarms
    limits = loaded.calibrate(
        [p.path for p in good],
        *(class_name, references, share, hidden),
        kinds=told.get("kind"),
        domains=told.get("domain"),
    )
    if out is not None:
        outputs.save_calibration(out, limits, made_for, made_by)
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


def _words(value: Paths) -> list[str]:
    return [str(v) for v in ([value] if isinstance(value, (str, Path)) else value)]

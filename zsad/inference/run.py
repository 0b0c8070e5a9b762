"""Own pictures: load a method, find the pictures, set thresholds, score and write.

What ``zsad.load_method`` and ``zsad.predict`` do.  Torch is imported when a method is loaded: a
wrong request ends before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zsad import registry
from zsad.config import merge, parse_dotlist
from zsad.errors import RequestError, WeightsError, reason

if TYPE_CHECKING:
    from zsad.inference.loaded_method import LoadedMethod
    from zsad.inference.pictures import Photo
    from zsad.inference.prediction import Prediction, Thresholds

Paths = str | Path | Sequence[str | Path]


def load_method(
    name: str,
    backbone: str,
    weights: str | Path | None,
    image_size: int | None,
    checkpoint: str | Path | None,
    preset: str | None,
    device: str,
    overrides: Mapping[str, Any] | Sequence[str] | None,
    *,
    precision: str,
    offline: bool,
    untrained: bool,
    seed: int,
) -> LoadedMethod:
    """Load one method on one backbone; see :func:`zsad.api.load_method`."""
    from zsad import backbones
    from zsad.backbones.devices import choose_device
    from zsad.checkpoints import load_into
    from zsad.inference.loaded_method import LoadedMethod
    from zsad.method import new_method

    entry = registry.method(name)
    place = choose_device(device)
    base = backbones.load(
        backbone,
        weights=str(weights) if weights else None,
        image_size=image_size or 0,
        precision=precision,
        device=str(place),
        offline=offline,
    )
    layers: list[tuple[str, Mapping[str, Any]]] = []
    if preset:
        layers.append(("load_method", {"preset": preset}))
    layers.append(("load_method", _method_overrides(name, overrides)))
    if checkpoint is None:
        if entry.trained and not untrained:
            raise WeightsError(
                f"method '{name}' is trained and no checkpoint is given; pass checkpoint=FILE "
                f"(`zsad train --methods {name} ...` makes one), or untrained=True for its "
                f"initial state"
            )
        method = new_method(entry, entry.resolve(*layers), base.info, seed)
        return LoadedMethod(method, base, place, image_size or 0)
    if not entry.trained:
        raise RequestError(f"method '{name}' is training-free: it takes no checkpoint")
    method, report = load_into(entry, Path(checkpoint), base.info, layers)
    return LoadedMethod(method, base, place, image_size or 0, report)


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
    references: Sequence[str | Path],
    explanations: int,
    listed: Sequence[str],
    plugins: str | Path | None,
    load: Callable[[], LoadedMethod],
) -> Iterator[Prediction]:
    """Check the request, ``load`` the method and return the predictions as they are made; see
    :func:`zsad.api.predict`."""
    from zsad.inference import outputs
    from zsad.inference.pictures import failed, find

    if plugins:
        registry.add_plugins(plugins)
    registry.method(method)  # a misspelt name ends here, before torch is imported
    _check_numbers(threshold=threshold, image_threshold=image_threshold, false_alarms=false_alarms)
    _check_numbers(**dict(zip(("scale", "scale's end"), scale or ())))
    found = find(_words(pictures), out, listed)
    if not found:
        raise RequestError("there are no pictures to score; give files or folders")
    normal = _words(calibrate) if calibrate else []
    _check_calibration(normal, false_alarms)
    good = [] if _is_stored(normal) else find(normal)
    loaded = load()
    if references and not loaded.method.shots:
        hint = f"; set {method}.shots" if hasattr(loaded.method.config, "shots") else ""
        raise RequestError(f"--reference: method {method} looks at no references here{hint}")
    limits = None
    if normal:
        limits = _limits(loaded, normal, good, class_name, references, false_alarms, out)

    def each() -> Iterator[Prediction]:
        paths = [p.path for p in found]
        stream = loaded.stream(
            paths, class_name, None, references, explanations, limits, keep_errors=True
        )
        for photo, prediction in zip(found, stream):
            prediction.set_by_hand(image_threshold, threshold)
            if out is not None and not prediction.error:
                try:
                    outputs.save(prediction, photo, out, scale)
                except RequestError:
                    raise
                except Exception as error:  # what concerns this picture alone is its own error
                    prediction = failed(str(photo.path), reason(error))
            yield prediction

    return each()


def _check_numbers(**values: float | None) -> None:
    """Raise :class:`RequestError` for NaN and infinity: nothing would ever be above or below."""
    for name, value in values.items():
        if value is not None and not math.isfinite(value):
            flag = name.replace("_", "-")
            raise RequestError(f"--{flag} {value}: is not a finite number")


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
    references: Sequence[str | Path],
    false_alarms: float | None,
    out: str | Path | None,
) -> Thresholds:
    """The thresholds of an earlier run, or those that the pictures ``good`` give."""
    from zsad.inference import calibration, outputs

    made_for = loaded.identity(class_name)
    if _is_stored(normal):
        return calibration.load(normal[0], made_for)
    share = calibration.FALSE_ALARMS if false_alarms is None else false_alarms
    limits = loaded.calibrate([p.path for p in good], class_name, references, share)
    if out is not None:
        outputs.save_calibration(out, limits, made_for)
    return limits


def _words(value: Paths) -> list[str]:
    return [str(v) for v in ([value] if isinstance(value, (str, Path)) else value)]


def _method_overrides(
    name: str, overrides: Mapping[str, Any] | Sequence[str] | None
) -> dict[str, Any]:
    """Accept nested mappings, dotted keys, and dot-lists with or without the method's name."""
    if not overrides:
        return {}
    if isinstance(overrides, Mapping):
        nested = {k: v for k, v in overrides.items() if "." not in str(k)}
        dotted = [f"{k}={v}" for k, v in overrides.items() if "." in str(k)]
    else:
        nested, dotted = {}, list(overrides)
    values = merge(nested, parse_dotlist(dotted) if dotted else {})
    if set(values) == {name} and isinstance(values[name], Mapping):
        return dict(values[name])
    return values

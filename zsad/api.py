"""The Python surface: ``zsad.bench``, ``zsad.train``, ``zsad.predict``, ``zsad.load_method``."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zsad import registry
from zsad.config import merge, parse_dotlist
from zsad.errors import RequestError, WeightsError
from zsad.runner.request import build_request, make_column

if TYPE_CHECKING:
    from zsad.predictor import LoadedMethod
    from zsad.types import Prediction

log = logging.getLogger(__name__)


def bench(
    methods: str | Sequence[str] | None = None,
    datasets: str | Sequence[str] | None = None,
    *,
    protocol: str | None = None,
    backbone: str | None = None,
    weights: str | Path | None = None,
    data_root: str | Path | None = None,
    results: str | Path | None = None,
    seeds: str | int | Sequence[int] | None = None,
    limit: int | str | None = None,
    launcher: str = "local",
    ray_address: str | None = None,
    device: str = "auto",
    fresh: bool = False,
    dry_run: bool = False,
    offline: bool = False,
    untrained: bool = False,
    plugins: str | Path | None = None,
    config: str | Path | None = None,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    progress: bool = False,
) -> dict[str, Any]:
    """Run a sweep and return its document: cells, summary, failures, counters.

    Cells that the results folder holds already are not computed again (``fresh`` ignores
    them).  ``launcher="ray"`` spreads them over a Ray cluster, that of ``ray_address`` or one of
    its own.  Raises :class:`zsad.errors.ZsadError` when the request is wrong: nothing was run
    then.  A cell that fails is listed under ``failed``, and the others are stored.
    """
    if plugins:
        registry.add_plugins(plugins)
    if launcher not in registry.LAUNCHERS:
        raise RequestError(
            f"--launcher {launcher}: known launchers are {', '.join(registry.LAUNCHERS)}"
        )
    if ray_address and launcher != "ray":
        raise RequestError(f"--ray-address {ray_address}: needs --launcher ray")
    request = build_request(
        methods=methods,
        datasets=datasets,
        protocol=protocol,
        backbone=backbone,
        weights=str(weights) if weights else None,
        data=data_root,
        results=results,
        seeds=seeds,
        limit=limit,
        device=device,
        offline=offline,
        untrained=untrained,
        fresh=fresh,
        config_file=config,
        ray_address=ray_address,
        overrides=overrides,
    )
    from zsad.runner.launch import launch

    return launch(request, launcher=launcher, dry_run=dry_run, progress=progress)


def train(
    methods: str | Sequence[str],
    on: str,
    *,
    protocol: str | None = None,
    backbone: str | None = None,
    weights: str | Path | None = None,
    data_root: str | Path | None = None,
    results: str | Path | None = None,
    seeds: str | int | Sequence[int] | None = None,
    limit: int | str | None = None,
    device: str = "auto",
    offline: bool = False,
    plugins: str | Path | None = None,
    config: str | Path | None = None,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    devices: int | str = 1,
    strategy: str = "auto",
    logger: str = "auto",
    progress: bool = False,
) -> dict[str, Any]:
    """Train methods on the labelled part of a dataset and return where the checkpoints lie.

    They lie in the results folder under a name that hashes everything they depend on:
    :func:`bench` finds them there.  ``devices`` and ``strategy`` are Lightning's.
    Raises :class:`zsad.errors.ZsadError` when the request is wrong.
    """
    if plugins:
        registry.add_plugins(plugins)
    request = build_request(
        methods=methods,
        datasets=on,
        protocol=protocol,
        backbone=backbone,
        weights=str(weights) if weights else None,
        data=data_root,
        results=results,
        seeds=seeds,
        limit=limit,
        device=device,
        offline=offline,
        config_file=config,
        overrides=overrides,
    )
    from zsad.runner.train import train as run

    return run(request, devices=devices, strategy=strategy, logger=logger, progress=progress)


def load_method(
    name: str,
    backbone: str = "vit-l-14-336",
    weights: str | Path | None = None,
    image_size: int | None = None,
    checkpoint: str | Path | None = None,
    preset: str | None = None,
    device: str = "auto",
    overrides: Mapping[str, Any] | Sequence[str] | None = None,
    *,
    precision: str = "fp32",
    offline: bool = False,
    untrained: bool = False,
    seed: int = 0,
    activation: str = "auto",
) -> LoadedMethod:
    """Load one method on one backbone.

    ``checkpoint``: a trained state, ours or an official one as released (which forces
    ``preset="released"`` unless another is given; sizes that it implies win over the config).
    ``backbone="file"`` with ``weights=FILE`` builds the architecture that a CLIP state dict in
    OpenAI's naming implies; ``activation="gelu"`` where its weights were trained with that one and
    not with QuickGELU (a LAION model, say).  ``overrides``: config keys of the method, nested or dotted.
    A trained method without a checkpoint raises :class:`WeightsError` unless ``untrained``.
    """
    from zsad import backbones
    from zsad.checkpoints import load_into
    from zsad.method import new_method
    from zsad.predictor import LoadedMethod
    from zsad.runner.execute import choose_device

    entry = registry.method(name)
    place = choose_device(device)
    base = backbones.load(
        backbone,
        weights=str(weights) if weights else None,
        image_size=image_size or 0,
        precision=precision,
        device=str(place),
        offline=offline,
        activation=activation,
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
        column = make_column(entry, layers)
        method = new_method(entry, column.config, base.info, seed)
        return LoadedMethod(method, base, place, image_size or 0)
    if not entry.trained:
        raise RequestError(f"method '{name}' is training-free: it takes no checkpoint")
    method, report = load_into(entry, Path(checkpoint), base.info, layers)
    return LoadedMethod(method, base, place, image_size or 0, report)


def predict(
    method: str,
    pictures: str | Path | Sequence[str | Path],
    class_name: str,
    *,
    calibrate: str | Path | Sequence[str | Path] | None = None,
    false_alarms: float | None = None,
    out: str | Path | None = None,
    threshold: float | None = None,
    image_threshold: float | None = None,
    scale: tuple[float, float] | None = None,
    references: Sequence[str | Path] = (),
    explanations: int = 5,
    listed: Sequence[str] = (),
    plugins: str | Path | None = None,
    **loading: Any,
) -> Iterator[Prediction]:
    """Score pictures that have no labels, one after the other.

    ``pictures``: files, folders, wildcards (one, or several); ``listed``: further ones of a list.
    ``calibrate``: a few normal pictures, or the ``calibration.json`` that an earlier run left in
    its ``out``; ``false_alarms``: the highest share of them that is wished for (0.05).
    ``threshold`` and ``image_threshold`` set the thresholds by hand.  With ``out`` the map, heat
    map, mask and description of every picture are written there.  ``loading``: further keywords
    of :func:`load_method`.  What a prediction holds: :class:`zsad.types.Prediction`; that of a
    picture that cannot be read or scored has an ``error``, and the others go on.
    Raises :class:`zsad.errors.ZsadError` when the request is wrong: nothing was scored then.
    """
    from zsad import photos

    if plugins:
        registry.add_plugins(plugins)
    registry.method(method)  # a misspelt name ends here, before torch is imported
    found = photos.find(_words(pictures), out, listed)
    if not found:
        raise RequestError("there are no pictures to score; give files or folders")
    normal = _words(calibrate) if calibrate else []
    stored = len(normal) == 1 and normal[0].endswith(".json")
    if stored and not Path(normal[0]).is_file():
        raise RequestError(f"--calibrate {normal[0]}: no such file")
    if false_alarms is not None and (stored or not normal):
        raise RequestError(
            f"--false-alarms {false_alarms:g}: needs --calibrate with a folder of normal pictures"
        )
    good = [] if stored else photos.find(normal)
    loaded = load_method(method, **loading)

    from zsad import calibration

    limits = None
    made_for = loaded.identity(class_name) if normal else {}
    if stored:
        limits = calibration.load(normal[0], made_for)
    elif normal:
        limits = loaded.calibrate(
            [p.path for p in good],
            class_name,
            references,
            calibration.FALSE_ALARMS if false_alarms is None else false_alarms,
        )
        if out is not None:
            photos.save_calibration(out, limits, made_for)

    def each() -> Iterator[Prediction]:
        paths = [p.path for p in found]
        stream = loaded.stream(
            paths, class_name, None, references, explanations, limits, keep_errors=True
        )
        for photo, prediction in zip(found, stream):
            prediction.set_by_hand(image_threshold, threshold)
            if out is not None and not prediction.error:
                photos.save(prediction, photo, out, scale)
            yield prediction

    return each()


def _words(value: str | Path | Sequence[str | Path]) -> list[str]:
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

"""One method on one backbone, with its state: what ``zsad.load_method`` does.

Torch is imported once the request is known to make sense.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zsad import registry
from zsad.checkpoints import bundled
from zsad.errors import RequestError, WeightsError
from zsad.inference.options import LoadOptions
from zsad.inference.settings import ORIGIN, split

if TYPE_CHECKING:
    from zsad.checkpoints.account import Origin
    from zsad.inference.loaded_method import LoadedMethod
    from zsad.method import AnyMethod
    from zsad.registry import MethodEntry
    from zsad.types import BackboneInfo

Layers = Sequence[tuple[str, Mapping[str, Any]]]


def load_method(options: LoadOptions) -> LoadedMethod:
    """Load one method on one backbone; see :func:`zsad.api.load_method`."""

    from zsad import backbones
    from zsad.backbones.devices import choose_device
    from zsad.backbones.precision import resolved
    from zsad.backbones.specs import require_text
    from zsad.data.calibration import EXAMPLES
    from zsad.inference.loaded_method import LoadedMethod
    from zsad.inference.tiles import Framing

    name, device = options.name, options.device
    entry = registry.method(name)
    settings, own = split(name, options.overrides, options.of_backbone())
    chosen = replace(settings.value, backbone=resolved(settings.value.backbone, device))
    framing = Framing.of(options.tiles, options.keep_aspect, chosen.data.folder.bits)
    place = choose_device(device)
    require_text(chosen.backbone.name, [name] if entry.reads_text else [])
    base = backbones.load_chosen(chosen.backbone, place, options.offline, EXAMPLES)
    preset = [(ORIGIN, {"preset": options.preset})] if options.preset else []
    method, report = _with_state(entry, options, base.info, [*preset, (ORIGIN, own)])
    loaded = LoadedMethod(
        method,
        base,
        place,
        image_size=chosen.backbone.image_size,  # given, it is stronger than the method's own
        report=report,
        batch_size=chosen.run.batch_size,
        framing=framing,
        deterministic=chosen.run.deterministic and settings.origin("run.deterministic") == ORIGIN,
    )
    loaded.untrained = entry.trained and options.untrained and options.checkpoint is None
    return loaded


def _with_state(
    entry: MethodEntry, options: LoadOptions, info: BackboneInfo, layers: Layers
) -> tuple[AnyMethod, list[str]]:
    """The method with the state that was asked for, and what there is to say of a file.

    Raises :class:`WeightsError` for a trained method without a state."""
    from zsad.checkpoints import load_into
    from zsad.checkpoints.choice import single
    from zsad.method import new_method

    if options.checkpoint is not None:
        if not entry.trained:
            raise RequestError(f"method '{entry.name}' is training-free: it takes no checkpoint")
        origin = single(
            options.checkpoint, entry.name, offline=options.offline, companions=entry.companions
        )
        method, report = load_into(entry, origin.path, info, layers)
        return method, [*_known(origin), *report]
    shipped = None if options.untrained else bundled.state_of(entry, info.name)
    if shipped is not None:
        return _shipped(entry, shipped, info, layers), []
    if entry.trained and not options.untrained:
        raise WeightsError(
            f"method '{entry.name}' is trained and no checkpoint is given; pass checkpoint=FILE "
            f"(`zsad train --methods {entry.name} ...` makes one), or untrained=True for its "
            f"initial state"
        )
    return new_method(entry, entry.resolve(*layers), info, options.seed), []


def _shipped(entry: MethodEntry, path: Path, info: BackboneInfo, layers: Layers) -> AnyMethod:
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

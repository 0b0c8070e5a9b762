"""The columns of a sweep: every method, or every row that a protocol has of it, resolved.

No torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

from zsad import config as cfg
from zsad import registry
from zsad.checkpoints import bundled
from zsad.checkpoints.sources import BUNDLED, Sources, parse
from zsad.config import Settings
from zsad.config.method_config import OF_TRAINING, MethodConfig
from zsad.config.sections import COMMAND_LINE, PROTOCOL, SECTIONS, resolve_settings
from zsad.errors import RequestError, nearest, unknown
from zsad.protocols import Protocol, ProtocolRow
from zsad.registry import MethodEntry
from zsad.runner.options import Names


@dataclass(frozen=True)
class Column:
    """One column of a table: a method with a resolved config.

    ``label`` is the name under which results are stored: the method's name, or for an
    ablation row ``method@row``.  ``checkpoint``: files given by the user, by target.  ``given``:
    the keys that were set beyond the method's defaults.  ``origins``: the layer that set each key.
    Of its protocol's row alone: ``settings`` (those of the run with the row's, None: of the run),
    ``seeds``, ``trained_on`` (() and "": of the run).
    """

    label: str
    title: str
    entry: MethodEntry
    config: MethodConfig
    checkpoint: Sources | None = None
    given: Mapping[str, Any] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)
    settings: Settings | None = None
    seeds: tuple[int, ...] = ()
    trained_on: str = ""

    @property
    def shots(self) -> int:
        return self.config.shots

    @property
    def seeded(self) -> bool:
        """Whether the seed can change a number."""
        return self.entry.trained or self.shots > 0


def split_layers(
    layers: Sequence[tuple[str, Mapping[str, Any]]], chosen: Sequence[str]
) -> dict[str, list[tuple[str, Mapping[str, Any]]]]:
    """Sort the method groups of every layer: ``{method: [(origin, values), ...]}``.

    A first component that is neither a settings section nor a method is an error.  A method
    that exists but is not part of the run is one on the command line only: a config file or
    protocol may hold values for methods that are not run.
    """
    known = registry.methods()
    out: dict[str, list[tuple[str, Mapping[str, Any]]]] = {name: [] for name in chosen}
    for origin, values in layers:
        for key, value in values.items():
            if key in SECTIONS:
                continue
            if key not in known:
                options = [*known, *SECTIONS]
                raise RequestError(
                    f"unknown key '{key}' ({origin}){nearest(key, options)}; an override starts "
                    f"with a method or one of {', '.join(SECTIONS)}"
                )
            if not isinstance(value, Mapping):
                raise RequestError(
                    f"'{key}={value}' ({origin}) sets no key of method {key}; write {key}.KEY=VALUE"
                )
            if key in out:
                out[key].append((origin, value))
            elif origin == COMMAND_LINE:
                raise RequestError(
                    f"'{key}.{next(iter(value), '')}' is set but method {key} is not in --methods"
                )
    return out


def make_columns(
    entry: MethodEntry,
    proto: Protocol,
    layers: Sequence[cfg.Layer],
    per_method: Sequence[cfg.Layer],
    *,
    offline: bool = False,
    seeded: bool = False,
) -> Iterator[Column]:
    """The columns of one method: one for each of its rows in the protocol, or itself.

    ``layers``: all layers of the request, the protocol's first; ``per_method``: those of this
    method.  What the user sets comes before a row's conditions, and a row's switch before all.
    ``seeded``: the user gave seeds.
    """
    rows = [r for r in proto.rows if r.method == entry.name]
    if not rows:
        yield make_column(entry, per_method, offline=offline)
    for row in rows:
        origin = f"{PROTOCOL}{proto.name}, row {row.label or row.method}"
        below = [layer for layer in per_method if layer[0] == layers[0][0]]
        above = per_method[len(below) :]
        own = [*below, (origin, row.conditions), *above, (origin, row.switch)]
        column = make_column(
            entry,
            own,
            row.stored,
            f"{entry.title}: {row.label}" if row.label else entry.title,
            offline,
            given=(*map(_without_preset, below), *above, (origin, row.switch)),
        )
        yield replace(
            column,
            settings=_settings_of(row, origin, layers),
            seeds=() if seeded else row.seeds,
            trained_on=row.trained_on,
        )


def rows_named(columns: Sequence[Column], names: Names, proto: Protocol) -> list[Column]:
    """The columns whose row is called like one of ``names`` (wildcards, any case); a method that
    has no label is called by its name.  Raises :class:`RequestError` for one that is not there."""
    labels = {row.stored: row.label or row.method for row in proto.rows}
    called = {column.label: labels.get(column.label, column.label) for column in columns}
    chosen: dict[str, None] = {}
    for name in registry.expand(names):
        pattern = name.lower()
        found = [at for at, label in called.items() if fnmatchcase(label.lower(), pattern)]
        if not found:
            raise unknown("row", name, called.values(), f"see `zsad show {proto.name}`")
        chosen.update(dict.fromkeys(found))
    return [column for column in columns if column.label in chosen]


def _settings_of(row: ProtocolRow, origin: str, layers: Sequence[cfg.Layer]) -> Settings | None:
    """The settings of a row, None where it has none of its own.  Where the user names a
    backbone, the row's does not hold, nor does the size that goes with it."""
    own = dict(row.settings)
    if any("name" in (values.get("backbone") or {}) for _, values in layers[1:]):
        own.pop("backbone", None)
    if not own:
        return None
    return resolve_settings([layers[0], (origin, own), *layers[1:]]).value


def make_column(
    entry: MethodEntry,
    layers: Sequence[cfg.Layer],
    label: str = "",
    title: str = "",
    offline: bool = False,
    given: Sequence[cfg.Layer] | None = None,
) -> Column:
    """Resolve one method's config; the reserved key ``checkpoint`` names trained states, see
    :mod:`zsad.checkpoints.sources` (``offline``: one of the hub must lie in its cache).

    ``given``: the layers that hold for a checkpoint, too, whose own config comes before the
    conditions of a protocol; None: all."""
    checkpoint: Sources | None = None
    kept: list[cfg.Layer] = []
    for origin, values in layers:
        if "checkpoint" in values:
            if not entry.trained:
                raise RequestError(
                    f"{entry.name}.checkpoint ({origin}): method {entry.name} is training-free"
                )
            value, option = values["checkpoint"], f"{entry.name}.checkpoint"
            own = {BUNDLED: bundled.folder_of(entry)}
            checkpoint = None
            if value:
                checkpoint = parse(value, option, origin, folders=own, offline=offline)
        kept.append((origin, _without_checkpoint(values)))
    found = entry.resolved(*kept)
    if checkpoint is not None:
        _refuse_training(entry, layers)
        given = [(o, _inferring(values)) for o, values in (given or kept)]
    return Column(
        label or entry.name,
        title or entry.title,
        entry,
        found.value,
        checkpoint,
        cfg.merge(*(_without_checkpoint(values) for _, values in (given or kept))),
        found.origins,
    )


def _refuse_training(entry: MethodEntry, layers: Sequence[cfg.Layer]) -> None:
    """Raise :class:`RequestError` for a key that says how to train, where a user set it beside a
    checkpoint: tables would call the column by what it had no part in."""
    for origin, values in layers:
        for group in OF_TRAINING if not origin.startswith(PROTOCOL) else ():
            for key in cfg.flat({group: values[group]}) if group in values else ():
                raise RequestError(
                    f"{entry.name}.{key} ({origin}): says how to train, and "
                    f"{entry.name}.checkpoint is trained already; leave one of them out"
                )


def _inferring(values: Mapping[str, Any]) -> dict[str, Any]:
    """What of a layer holds for a checkpoint, too: not how to train."""
    return {key: value for key, value in values.items() if key not in OF_TRAINING}


def _without_preset(layer: cfg.Layer) -> cfg.Layer:
    """A layer of conditions without the preset: a checkpoint has its own."""
    origin, values = layer
    return origin, {key: value for key, value in values.items() if key != "preset"}


def _without_checkpoint(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != "checkpoint"}

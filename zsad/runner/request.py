"""The request of a sweep: what the user asked for, layered and checked, without torch."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zsad import config as cfg
from zsad import registry
from zsad.backbones.backbone_spec import require_fitting
from zsad.backbones.device_names import require_device
from zsad.backbones.outline import outline
from zsad.backbones.precision import resolved
from zsad.backbones.specs import require_text
from zsad.backbones.specs import spec as find_backbone
from zsad.config import BackboneSettings, MetricSettings, Settings
from zsad.config.sections import COMMAND_LINE, PROTOCOL, resolve_settings
from zsad.errors import RequestError, WeightsError, nearest, shorter
from zsad.io import not_writable, refuse_address, require_writable
from zsad.protocols import Protocol, load_protocol
from zsad.results import folder
from zsad.runner.columns import Column, make_columns, rows_named, split_layers
from zsad.runner.options import BenchOptions, Names, RunOptions, takes

if TYPE_CHECKING:
    from zsad.data.definition import DatasetSpec

log = logging.getLogger(__name__)

LAST_SEED = 2**32 - 1  # of NumPy's generators, and of Lightning's
MOST_IMAGES = 10**9  # of a category: more is a slip of the finger


@dataclass(frozen=True)
class Request:
    """A checked request.

    ``data_root``: the folder that holds the datasets, or None.  ``trained_on``: the dataset that
    the user wants trained methods to have learnt from, "": the protocol's.  ``options``: as they
    were given; what they say about the other fields stands there, checked.  ``origins``: the layer
    that set each key of ``settings``.
    """

    columns: tuple[Column, ...]
    datasets: tuple[str, ...]
    settings: Settings
    protocol: Protocol
    seeds: tuple[int, ...]
    results: Path
    data_root: Path | None = None
    limit: int = 0
    trained_on: str = ""
    options: RunOptions = field(default_factory=RunOptions)
    origins: Mapping[str, str] = field(default_factory=dict)
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def seeds_of(self, column: Column) -> tuple[int, ...]:
        """The seeds of a column: those of its protocol's row, else those of the run."""
        return column.seeds or self.seeds

    def settings_of(self, column: Column) -> Settings:
        """The settings of a column: those of its protocol's row, else those of the run."""
        return column.settings or self.settings

    def parts(self) -> list[Request]:
        """The request by backbone, in the order of the columns; itself where there is one.

        Columns of one backbone share a load of it and, at one image size, every pass."""
        groups: dict[BackboneSettings, list[Column]] = {}
        for column in self.columns:
            backbone = self.settings_of(column).backbone
            groups.setdefault(replace(backbone, image_size=0), []).append(column)
        return [self._part(backbone, columns) for backbone, columns in groups.items()]

    def _part(self, backbone: BackboneSettings, columns: Sequence[Column]) -> Request:
        """The columns of one backbone, which is loaded at the image size that all of them share,
        or at the run's."""
        sizes = {self.settings_of(column).backbone.image_size for column in columns}
        plain = any(column.settings is None for column in columns)
        size = sizes.pop() if len(sizes) == 1 else self.settings.backbone.image_size * plain
        settings = replace(self.settings, backbone=replace(backbone, image_size=size))
        return replace(self, columns=tuple(columns), settings=settings)

    @property
    def device(self) -> str:
        return self.options.device

    @property
    def offline(self) -> bool:
        return self.options.offline

    def metrics_of(self, dataset: DatasetSpec) -> MetricSettings:
        """``metrics.*`` for one of the datasets (:meth:`DatasetSpec.metric_settings`)."""
        set_by = self.origins.get("metrics.fpr_limit", cfg.DEFAULTS)
        return dataset.metric_settings(self.settings.metrics, set_by)

    @property
    def untrained(self) -> bool:
        """Whether trained methods are evaluated in their initial state."""
        return isinstance(self.options, BenchOptions) and self.options.untrained

    @property
    def fresh(self) -> bool:
        """Whether stored cells are computed again."""
        return isinstance(self.options, BenchOptions) and self.options.fresh


def results_dir(value: str | Path | None) -> Path:
    """``--results``, else ``ZSAD_RESULTS``, else ``./results``.  Raises for an address."""
    place = value or os.environ.get("ZSAD_RESULTS") or "results"
    refuse_address(place, f"--results {place}")
    return Path(place)


def require_results(results: Path) -> None:
    """Raise :class:`RequestError` before any work if nothing could be stored in ``results``."""
    given = f"--results {results}"
    require_writable(results, given)
    try:
        with folder.lock(results):
            pass  # a lock that a stopped process holds, or that is no file, is said now
    except OSError as error:
        raise not_writable(given, error) from None


def data_root(value: str | Path | None) -> Path | None:
    """``--data-root``, else ``ZSAD_DATA``, else None.  Raises if a given folder is absent."""
    chosen = value or os.environ.get("ZSAD_DATA")
    if not chosen:
        return None
    path = Path(chosen)
    if not path.is_dir():
        raise RequestError(
            f"--data-root {chosen}: no such folder; give the folder that holds the datasets"
        )
    return path


def parse_seeds(value: str | int | Sequence[int] | None, default: Sequence[int]) -> tuple[int, ...]:
    """``"0,1,2"``, one number or a list of numbers."""
    if value is None:
        return tuple(default)
    items = (
        value.split(",") if isinstance(value, str) else [value] if isinstance(value, int) else value
    )
    shown = f"--seeds {shorter(value)}"
    try:
        seeds = tuple(int(s) for s in items)
    except (TypeError, ValueError):
        raise RequestError(f"{shown}: give whole numbers such as 0,1,2") from None
    if not seeds or min(seeds) < 0 or len(set(seeds)) != len(seeds):
        raise RequestError(f"{shown}: give distinct whole numbers from 0 up")
    if max(seeds) > LAST_SEED:
        raise RequestError(f"{shown}: no seed is above {LAST_SEED}")
    return seeds


def parse_limit(value: int | str | None) -> int:
    """A positive number of images per category; None (0) means without limit."""
    if value is None:
        return 0
    try:
        limit = int(value)
    except (TypeError, ValueError):
        raise RequestError(
            f"--limit {shorter(value)!r}: give a whole number of images per category"
        ) from None
    if limit < 1:
        raise RequestError(f"--limit {value}: give at least 1 image per category, or leave it out")
    if limit > MOST_IMAGES:
        raise RequestError(
            f"--limit {shorter(value)}: no category has so many images; leave it out for all"
        )
    return limit


@takes(BenchOptions)
def build_request(options: BenchOptions) -> Request:
    """The request of a sweep; see :func:`request_of`."""
    return request_of(options, options.methods, options.datasets)


def request_of(options: RunOptions, methods: Names | None, datasets: Names | None) -> Request:
    """Layer and check everything that can be checked without torch and without data.

    Raises :class:`RequestError`: nothing has been run then.
    """
    from zsad.data.catalog import select_datasets

    require_device(options.device)
    if options.plugins:
        registry.add_plugins(options.plugins)
    proto = load_protocol(options.protocol or "default")
    layers: list[cfg.Layer] = []
    layers.append((f"{PROTOCOL}{proto.name}", cfg.merge(proto.settings, proto.overrides)))
    if options.config:
        layers.append((str(options.config), cfg.read_yaml(options.config)))
    given = options.overrides
    from_line = dict(given) if isinstance(given, Mapping) else cfg.parse_dotlist(list(given))
    layers.append((COMMAND_LINE, cfg.merge(_by_flags(options, from_line), from_line)))

    entries = registry.select_methods(methods or proto.methods)
    per_method = split_layers(layers, [e.name for e in entries])
    given_settings = resolve_settings(layers)
    settings = replace(given_settings, value=_for_device(given_settings.value, options.device))
    columns = [
        replace(column, settings=column.settings and _for_device(column.settings, options.device))
        for entry in entries
        for column in make_columns(
            entry,
            proto,
            layers,
            per_method[entry.name],
            offline=options.offline,
            seeded=options.seeds is not None,
        )
    ]
    if isinstance(options, BenchOptions) and options.rows:
        columns = rows_named(columns, options.rows, proto)
    _refuse_one_file_for_several(settings.value, columns)
    _refuse_unknown_backbone(settings.value, settings.origins)
    _refuse_without_text(settings.value, columns)
    _refuse_image_sizes(settings.value, columns, settings.origins)
    _refuse_what_changes_nothing(options, columns, from_line)
    chosen = tuple(select_datasets(datasets or proto.datasets, settings.value.data.folder))
    trained_on = _trained_on(options, columns, settings.value)
    learnt = {trained_on, "synthetic", *map(proto.auxiliary.of, chosen)}
    trained = any(c.entry.trained for c in columns)
    _refuse_other_variants(from_line, {*chosen, *(learnt if trained else ())})
    return Request(
        columns=tuple(columns),
        datasets=chosen,
        settings=settings.value,
        protocol=proto,
        seeds=_seeds(options, columns, proto),
        results=results_dir(options.results),
        data_root=data_root(options.data_root),
        limit=parse_limit(options.limit),
        trained_on=trained_on,
        options=options,
        origins=settings.origins,
        overrides=from_line,
    )


def _refuse_unknown_backbone(settings: Settings, origins: Mapping[str, str]) -> None:
    """Raise :class:`RequestError` for a name that no backbone has, and say which file has it."""
    with _from(origins.get("backbone.name", "")):
        find_backbone(settings.backbone.name)


@contextlib.contextmanager
def _from(origin: str) -> Iterator[None]:
    """Let what is refused name the file that asked for it, where a file did."""
    try:
        yield
    except RequestError as error:
        file = origin if origin not in ("", COMMAND_LINE, cfg.DEFAULTS) else ""
        raise RequestError(f"{file}: {error}" if file else str(error)) from None


def _refuse_without_text(settings: Settings, columns: Sequence[Column]) -> None:
    """Raise :class:`RequestError` for methods that read text on a backbone that has none."""
    readers: dict[str, dict[str, None]] = {}
    for column in columns:
        name = (column.settings or settings).backbone.name
        readers.setdefault(name, {}).update(
            {column.entry.name: None} if column.entry.reads_text else {}
        )
    for name, methods in readers.items():
        require_text(name, list(methods))


def _for_device(settings: Settings, device: str) -> Settings:
    """The settings with a precision instead of ``auto``, which every identity needs."""
    return replace(settings, backbone=resolved(settings.backbone, device))


def _refuse_one_file_for_several(settings: Settings, columns: Sequence[Column]) -> None:
    """Raise :class:`RequestError` for one weight file where rows have backbones of their own."""
    weights = settings.backbone.weights
    own = [c.settings or settings for c in columns]
    names = list(dict.fromkeys(one.backbone.name for one in own))
    if weights and weights != "random" and len(names) > 1:
        raise RequestError(
            f"--weights {weights}: the rows of this run have several backbones "
            f"({', '.join(names)}); choose one by --backbone {names[0]}, or methods by --methods"
        )


def _trained_on(options: RunOptions, columns: Sequence[Column], settings: Settings) -> str:
    """The dataset of ``--trained-on``, "" where it was not given.

    Raises :class:`RequestError` for several datasets, and where it would change nothing.
    """
    from zsad.data.catalog import select_datasets

    value = options.trained_on if isinstance(options, BenchOptions) else None
    if not value:
        return ""
    names = select_datasets(value, settings.data.folder)
    if len(names) != 1:
        raise RequestError(f"--trained-on {value}: give one dataset")
    open_columns = [c for c in columns if c.entry.trained and c.checkpoint is None]
    if not open_columns or (isinstance(options, BenchOptions) and options.untrained):
        raise RequestError(
            f"--trained-on {value}: no method of this run is trained by it; leave it out"
        )
    return str(names[0])


def _refuse_image_sizes(
    settings: Settings, columns: Sequence[Column], origins: Mapping[str, str]
) -> None:
    """Raise :class:`RequestError` for a size that the backbone's patches do not tile, where these
    are known without a file."""
    for backbone in [settings.backbone, *(c.settings.backbone for c in columns if c.settings)]:
        if not backbone.image_size:
            continue
        with contextlib.suppress(WeightsError):  # `file`, whose sizes are those of a file
            patch = outline(backbone.name).patch
            with _from(origins.get("backbone.image_size", "")):
                require_fitting(backbone.image_size, patch)


def _refuse_what_changes_nothing(
    options: RunOptions, columns: Sequence[Column], from_line: Mapping[str, Any]
) -> None:
    """Raise :class:`RequestError` for an option that the rest of the request makes void."""
    if isinstance(options, BenchOptions) and options.untrained:
        trained = [c for c in columns if c.entry.trained]
        if not trained:
            names = ", ".join(dict.fromkeys(c.entry.name for c in columns))
            raise RequestError(f"--untrained: none of {names} is trained; leave it out")
        if given := [c for c in trained if c.checkpoint]:
            raise RequestError(
                f"--untrained and {given[0].entry.name}.checkpoint: give one of them"
            )
    if "ray" in from_line and getattr(options, "launcher", "") != "ray":
        key = next(iter(cfg.flat({"ray": from_line["ray"]})))
        raise RequestError(f"{key}: needs `zsad bench --launcher ray`; leave it out")


def _refuse_other_variants(from_line: Mapping[str, Any], datasets: set[str]) -> None:
    """Raise :class:`RequestError` for the variant of a dataset that this run does not read."""
    data = from_line.get("data")
    given = data.get("variants") if isinstance(data, Mapping) else None
    for name in given if isinstance(given, Mapping) else ():
        if name not in datasets:
            near = nearest(str(name), datasets)
            raise RequestError(f"data.variants.{name}: this run does not read {name}{near}")


def _seeds(options: RunOptions, columns: Sequence[Column], proto: Protocol) -> tuple[int, ...]:
    """The seeds of a run; a warning where they change nothing."""
    seeds = parse_seeds(options.seeds, proto.seeds)
    if options.seeds is not None and not any(c.seeded for c in columns):
        log.warning(
            "--seeds %s: no method of this run depends on the seed; all have the same figures",
            ",".join(map(str, seeds)),
        )
    return seeds


def _by_flags(options: RunOptions, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that have an option of their own, as nested keys.

    Raises :class:`RequestError` where an override gives one of them another value.
    """
    address = options.ray_address if isinstance(options, BenchOptions) else None
    given = {
        ("--backbone", "backbone", "name"): options.backbone,
        ("--weights", "backbone", "weights"): options.weights,
        ("--ray-address", "ray", "address"): address,
    }
    found: dict[str, Any] = {}
    for (flag, section, key), value in given.items():
        if not value:
            continue
        found.setdefault(section, {})[key] = str(value)
        others = overrides.get(section)
        if isinstance(others, Mapping) and others.get(key, str(value)) != str(value):
            raise RequestError(
                f"{flag} {value} and {section}.{key}={others[key]} set the same thing; "
                f"give one of them"
            )
    return found

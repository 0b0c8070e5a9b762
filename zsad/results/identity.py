"""What a stored figure is of: a method *and* its configuration, under settings of the run.

Two configurations of one method are two columns of a table.  The identity derives from what
records hold, so that records of any age have one; no fingerprint depends on it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, NamedTuple

from zsad import config as cfg
from zsad import registry
from zsad.backbones import specs
from zsad.config import DataSettings, MetricSettings
from zsad.config.method_config import shots_in_words
from zsad.errors import ZsadError, counted
from zsad.metrics.spec import METRICS
from zsad.protocols import load_protocol
from zsad.results.records import CellRecord

SHOWN = 2  # overridden keys in a column's heading; all of them stand in a footnote
NO_BOXES = "no boxes"
IMPORTED = "imported"  # in place of a backbone, where the method is not one of ours
_CACHED = re.compile(r"[0-9a-f]{16}\.safetensors")  # a state that a run trained for itself
# Settings of `metrics.*` that add a metric and change no other one.
_MORE_METRICS = {"extra", *(m.flag for m in METRICS.values() if m.flag)}

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Configuration:
    """A column: ``method`` as it is stored (``name`` or ``name@row``) and how it was run.

    ``overrides``: the keys of the config that differ from its preset (and its protocol's row),
    with their values, in words.  ``known``: whether that could be told; where it could not (a
    plug-in that is not there), ``overrides`` holds every key.  ``boxes``: False where the method
    asks for boxes and had none.  ``settings``: what of the run changes figures or images, as
    (key, words); no words: as usual.  ``row_says``: its row's label stands for the preset;
    ``row_preset``: the one that its row runs by now, where that is another one.
    ``preset_title``: how the method's ``config.yaml`` calls the preset, where it has words for it.
    ``unusual``: how many settings of the run are not what they are unless somebody sets them.
    """

    method: str
    preset: str = "default"
    shots: int = 0
    revision: int = 1
    overrides: Pairs = ()
    known: bool = True
    boxes: bool = True
    settings: Pairs = ()
    row_says: bool = False
    row_preset: str = ""
    preset_title: str = field(default="", compare=False)
    unusual: int = field(default=0, compare=False)

    @property
    def untrained(self) -> bool:
        """Whether a trained method was measured in its initial state."""
        return bool(dict(self.settings).get("untrained"))

    @property
    def same_method(self) -> tuple[Any, ...]:
        """Everything but the settings of the run."""
        return (self.method, self.preset, self.shots, self.revision, self.overrides, self.boxes)


@dataclass(frozen=True)
class Heading:
    """How a column is told from others of its method.

    ``suffix``: what follows the method's title, at most :data:`SHOWN` keys; ``key``: the same in
    full, for machines; ``overrides``: all overridden keys in words, "" for none.
    """

    suffix: str
    key: str
    overrides: str


def of_record(record: CellRecord) -> Configuration:
    """The configuration that a record was computed under."""
    info = record.info
    preset = str(info.get("preset") or "default")
    held = info.get("config")
    config = cfg.flat(held) if isinstance(held, Mapping) else {}
    protocol = str(info.get("protocol") or "")
    base = _base(record.method, preset, protocol)
    layers = _row_layers(record.method, protocol)
    row_presets = [str(layer["preset"]) for layer in layers if "preset" in layer]
    overrides = _differing(config, base, _cosmetic(record.method)) if config else ()
    return Configuration(
        record.method,
        preset,
        int(info.get("shots") or 0),
        int(info.get("revision") or 1),
        overrides,
        base is not None or not config,
        not without_boxes(record),
        _settings(info, record.dataset),
        preset in row_presets,
        "" if preset in (row_presets or [preset]) or not info.get("preset") else row_presets[-1],
        str(info.get("preset_title") or ""),
        _unusual(info, record.dataset),
    )


def row_config(record: CellRecord) -> dict[str, Any]:
    """The config that a record's preset and its protocol's row resolve to, without what the user
    changed, by dotted key; the record's own config where the row is not known."""
    info = record.info
    protocol, preset = str(info.get("protocol") or ""), str(info.get("preset") or "default")
    held = info.get("config")
    own = cfg.flat(held) if isinstance(held, Mapping) else {}
    if not _row_layers(record.method, protocol):
        return own
    return _base(record.method, preset, protocol) or own


class Files(NamedTuple):
    """Which files of a dataset a record was measured on, and how they were read.

    ``said``: what `data.folder.*` said of a folder, in words; "" for nothing.  ``fingerprint``
    covers it along with the files.
    """

    dataset: str
    variant: str
    said: str
    fingerprint: str


def files_of(record: CellRecord) -> Files:
    """Which files of a dataset a record was measured on, and how they were read."""
    info = record.info
    held = info.get("folder")
    said = [f"{k}={_text(v)}" for k, v in held.items()] if isinstance(held, Mapping) else []
    variant, fingerprint = (str(info.get(k) or "") for k in ("variant", "dataset_fingerprint"))
    return Files(record.dataset, variant, ", ".join(said), fingerprint)


def backbone_of(record: CellRecord) -> tuple[str, str]:
    """What records must share to stand in one table: backbone and (short) weight hash."""
    info = record.info
    if imported(record):
        return IMPORTED, ""
    name = str(info.get("backbone") or "unknown backbone")
    if info.get("weights_source") == "random":
        return f"{name}-random", ""
    return name, str(info.get("weights_sha256") or "")[:8]


def imported(record: CellRecord) -> Mapping[str, Any]:
    """What is known of scores and maps that another program made; empty for a cell of ours."""
    held = record.info.get("imported")
    return held if isinstance(held, Mapping) else {}


def without_boxes(record: CellRecord) -> bool:
    """Whether the method asks for boxes and had none, unless its protocol's row wants it so."""
    boxes, held = record.info.get("boxes"), record.info.get("config")
    config = cfg.flat(held) if isinstance(held, Mapping) else {}
    if config.get("grounding.enabled") is not False:  # not switched off
        if not isinstance(boxes, Mapping) or not boxes:
            return False
        answered = boxes.get("answered") or not boxes.get("unanswered")
        if boxes.get("source") != "none" and answered:
            return False
    preset = str(record.info.get("preset") or "default")
    base = _base(record.method, preset, str(record.info.get("protocol") or "")) or {}
    return base.get("grounding.enabled") is not False


def headings(siblings: Sequence[Configuration]) -> list[Heading]:
    """The headings of all columns of one method, which differ from each other.

    A setting of the run is named where columns of one configuration differ in it.
    """
    varied = _varied([dict(s.overrides) for s in siblings])
    found: list[Heading] = []
    for one in siblings:
        # The keys that tell siblings apart come first; of an unknown method only these are told.
        pairs = sorted(one.overrides, key=lambda pair: pair[0] not in varied)
        if not one.known:
            pairs = [pair for pair in pairs if pair[0] in varied]
        parts = [f"{key}={value}" for key, value in pairs]
        rivals = [s for s in siblings if s.same_method == one.same_method]
        differ = _varied([dict(s.settings) for s in rivals])
        words = [text for key, text in one.settings if key in differ and text]
        if len({s.revision for s in siblings}) > 1:
            words.append(f"revision {one.revision}")
        found.append(_heading(one, parts, words))
    repeated = {h.suffix for h in found if [x.suffix for x in found].count(h.suffix) > 1}
    return [
        Heading(f"{h.suffix} [{i + 1}]", h.key, h.overrides) if i and h.suffix in repeated else h
        for i, h in enumerate(found)
    ]


def merged(parts: Sequence[Configuration]) -> Configuration:
    """One configuration for runs that differ in settings alone: "at most 1 images or ..."."""
    if len(parts) == 1:
        return parts[0]
    words: dict[str, dict[str, None]] = {}
    for part in parts:
        for key, text in part.settings:
            words.setdefault(key, {})[text] = None
    settings = tuple((key, " or ".join(filter(None, texts))) for key, texts in words.items())
    return replace(parts[0], settings=settings)


def plain_first(one: Configuration) -> tuple[Any, ...]:
    """A sort key: what a method is by default before what was changed."""
    return (
        bool(one.overrides),
        one.preset != "default",
        not one.boxes,
        -one.revision,
        one.unusual,
        len(one.overrides),
    )


def _heading(one: Configuration, parts: list[str], words: list[str]) -> Heading:
    shown = [*words, *parts[: max(0, SHOWN)]]
    rest = len(parts) - len(parts[:SHOWN])
    shown += [f"+{rest}"] if rest else []
    inside = f" [{', '.join(shown)}]" if shown else ""
    preset = (
        f" ({one.preset_title or one.preset})"
        if one.preset != "default" and not one.row_says
        else " (preset default)" * bool(one.row_preset)
    )
    said = shots_in_words(one.shots)
    row = one.method.partition("@")[2].removesuffix("s")  # "4-shots" says it, too
    shots = f", {said}" if one.shots and not f"-{row}".endswith(f"-{said}") else ""
    boxes = "" if one.boxes else f" ({NO_BOXES})"
    whole = [f"preset={one.preset}"] * bool(preset) + [NO_BOXES] * (not one.boxes)
    whole += [*words, *parts]
    return Heading(f"{preset}{shots}{boxes}{inside}", ", ".join(whole), ", ".join(parts))


def _varied(found: Sequence[Mapping[str, str]]) -> set[str]:
    """The keys that not all of the mappings hold with the same value."""
    keys = {key for one in found for key in one}
    return {key for key in keys if len({one.get(key) for one in found}) > 1}


# ---------------------------------------------------------------------------- the config
def _base(method: str, preset: str, protocol: str) -> dict[str, Any] | None:
    """The config that a preset (and a protocol's row) resolves to; None if it cannot be told."""
    name = method.partition("@")[0]
    entry = registry.methods().get(name)
    return None if entry is None else _resolved(entry.origin, method, preset, protocol)


@cache
def _resolved(origin: str, method: str, preset: str, protocol: str) -> dict[str, Any] | None:
    name = method.partition("@")[0]
    layers = [("row", layer) for layer in _row_layers(method, protocol)]
    plain = [(where, {k: v for k, v in x.items() if k != "checkpoint"}) for where, x in layers]
    try:
        config = registry.methods()[name].resolve(*plain, (origin, {"preset": preset}))
    except ZsadError:  # a preset that is no longer there
        return None
    return cfg.flat(cfg.identity(config))


def _row_layers(method: str, protocol: str) -> list[Mapping[str, Any]]:
    """What a protocol and its row set, for a record of a row; nothing for a plain method."""
    name, _, slug = method.partition("@")
    if not slug:
        return []
    try:
        found = load_protocol(protocol)
    except ZsadError:  # somebody's own protocol: its row is told as overridden keys
        return []
    rows = [row for row in found.rows if row.stored == method]
    return [found.overrides.get(name) or {}, rows[0].layer] if rows else []


def _cosmetic(method: str) -> tuple[str, ...]:
    """The keys of a method's config that change no figure."""
    entry = registry.methods().get(method.partition("@")[0])
    try:
        return entry.config_class().cosmetic if entry else ()
    except ZsadError:  # a plug-in whose config cannot be imported
        return ()


def _within(key: str, groups: Sequence[str]) -> bool:
    return any(key == group or key.startswith(f"{group}.") for group in groups)


def _differing(
    config: Mapping[str, Any], base: Mapping[str, Any] | None, cosmetic: Sequence[str]
) -> Pairs:
    """The keys of a record's config that differ from ``base``, with their values in words.

    A key that the record does not hold was added later, and had its default.
    """
    told = ("preset", "shots", *cosmetic)  # the heading says them in its own way, or nothing does
    held = {k: v for k, v in config.items() if not _within(k, told)}
    if base is None:
        return tuple((k, _text(v)) for k, v in sorted(held.items()))
    pairs = {k: _text(v) for k, v in held.items() if k not in base or base[k] != v}
    absent = {k for k in base if k not in config and not _within(k, told)}
    return tuple(sorted({**pairs, **dict.fromkeys(absent, "default")}.items()))


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(_text, value))}]"
    return "none" if value is None else str(value)


# --------------------------------------------------------------------- settings of the run
def _settings(info: Mapping[str, Any], dataset: str) -> Pairs:
    """What of a run changes figures or the images behind them, each in words."""
    size, limit = info.get("image_size"), info.get("limit")
    found = {
        "image_size": f"{size} px" if size else "",
        "pos_interp": _named("pos_interp", info.get("pos_interp")),
        "activation": _named("activation", info.get("activation")),
        "precision": str(info.get("precision") or ""),
        "limit": f"at most {counted(limit, 'image')}" if limit else "",
        "mask_resize": _named("mask_resize", info.get("mask_resize")),
        "names": _named("names", info.get("names")),
        "untrained": "not trained" if info.get("untrained") else "",
        "training": training(info, dataset),
    }
    metrics = info.get("metrics")
    for key, value in sorted(metrics.items()) if isinstance(metrics, Mapping) else ():
        if key == "fpr_limit" and value == usual_limit(info):  # not the same on every dataset
            found[f"metrics.{key}"] = ""
        elif key not in _MORE_METRICS:
            found[f"metrics.{key}"] = _named(key, value)
    return tuple(found.items())


def _unusual(info: Mapping[str, Any], dataset: str) -> int:
    """How many settings of a run are not what they are unless somebody sets them."""
    held = info.get("metrics")
    metrics = held if isinstance(held, Mapping) else {}
    plain = cfg.to_dict(MetricSettings())
    usual = {"precision": "fp32", "mask_resize": DataSettings().mask_resize, "names": "spoken"}
    return sum(
        (
            bool(info.get("limit")),
            bool(info.get("untrained")),
            bool(training(info, dataset)),
            *(bool(info.get(key)) and info[key] != value for key, value in usual.items()),
            *(
                value != plain.get(key)
                for key, value in metrics.items()
                if key not in (*_MORE_METRICS, "fpr_limit")
            ),
            limit_of_info(info) != usual_limit(info),
            _other_size(info),
        )
    )


def _other_size(info: Mapping[str, Any]) -> bool:
    """Whether pictures had another size than the backbone's own."""
    size = info.get("image_size")
    try:
        return bool(size) and size != specs.spec(str(info.get("backbone"))).image_size
    except ZsadError:  # a backbone that is no longer there
        return False


def usual_limit(info: Mapping[str, Any]) -> float:
    """Up to which false positive rate AUPRO goes on a record's dataset, unless a user says so."""
    return float(info.get("dataset_fpr_limit") or MetricSettings().fpr_limit)


def limit_of(record: CellRecord) -> float:
    """Up to which false positive rate a record's AUPRO goes."""
    return limit_of_info(record.info)


def limit_of_info(info: Mapping[str, Any]) -> float:
    """The same of a record's ``info``."""
    settings = info.get("metrics")
    found = settings.get("fpr_limit") if isinstance(settings, Mapping) else None
    return float(found or usual_limit(info))


def _named(key: str, value: Any) -> str:
    return "" if value is None else f"{key}={_text(value)}"


def _proves_nothing(info: Mapping[str, Any]) -> bool:
    """Whether the backbone is random or the demonstration one, which train on made-up pictures."""
    return info.get("weights_source") in ("random", "bundled")


def training(info: Mapping[str, Any], dataset: str) -> str:
    """Which training a state came from, where it is not the usual one for a target."""
    found = info.get("trained_on")
    found = found if isinstance(found, Mapping) else {"dataset": found}
    name = str(found.get("dataset") or found.get("name") or "")
    if not name:
        return ""
    parts = []
    usual = load_protocol("default").auxiliary.of(dataset)
    if name != usual and not (name == "synthetic" and _proves_nothing(info)):
        parts.append(f"trained on {name}")
    if found.get("part") == "all":
        parts.append("trained on all parts")
    if file := given_file(found):
        parts.append(f"checkpoint {file}")
    return ", ".join(parts)


def given_file(trained_on: Mapping[str, Any]) -> str:
    """The checkpoint that a user gave, by its name and the beginning of its hash, which tells it
    from others of that name; "" for a state that zsad made for the run or brought along."""
    file, digest = (str(trained_on.get(k) or "") for k in ("checkpoint", "sha256"))
    if digest:
        return f"{file} ({digest[:8]})"
    return "" if _CACHED.fullmatch(file) else file

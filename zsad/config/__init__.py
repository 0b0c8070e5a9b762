"""Configuration in layers: OmegaConf reads and merges them, :mod:`zsad.io.schema` checks them.

:func:`resolve` merges layers (defaults, preset, protocol, file, command line) over the defaults of
a schema, a plain dataclass, and keeps for every key which layer set it.  :func:`build` checks one
mapping.  An unknown key or a wrong type is a :class:`RequestError` that names the key, where it
came from and the nearest valid key.  Nothing here imports torch.

=====================  ======================================================
``sections``           the settings beside those of methods, and their layers
``method_config``      what the framework asks of a method's config
``backbone_settings``  ``backbone.*``
``folder_settings``    ``data.folder.*``
``later_keys``         keys that came after results were stored
=====================  ======================================================
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from zsad.config.backbone_settings import BackboneSettings as BackboneSettings
from zsad.config.folder_settings import FolderSettings as FolderSettings
from zsad.config.later_keys import added as added
from zsad.config.later_keys import default_of as default_of
from zsad.config.later_keys import former, left_out
from zsad.config.later_keys import is_added as is_added
from zsad.config.later_keys import replaced as replaced
from zsad.errors import RequestError, gist, is_out_of_memory
from zsad.io import environment
from zsad.io.schema import SchemaError, check, read
from zsad.metrics.spec import Mode, check_extra

# OmegaConf 2.4 gives `register_new_resolver` the name of what had no `replace` before, and warns.
_register: Any = OmegaConf.register_resolver
if "replace" not in inspect.signature(_register).parameters:
    _register = OmegaConf.register_new_resolver
_register("oc.env", environment.taken, replace=True)

T = TypeVar("T")
Layer = tuple[str, Mapping[str, Any]]  # where it comes from, and what it sets
DEFAULTS = "schema"  # the origin of what no layer sets
MOST_NODES = 100_000  # of a YAML document with aliases
DEEPEST = 100  # brackets inside of each other
MOST_KEPT = 128  # merged layers in memory
_NODES: dict[tuple[type[Any], str], DictConfig] = {}


# ------------------------------------------------------------------------------- layers
def parse_dotlist(items: Sequence[str]) -> dict[str, Any]:
    """Turn ``["winclip.temperature=0.1"]`` into nested mappings, values parsed as YAML."""
    for item in items:
        key, sep, _ = item.partition("=")
        if not sep or not all(part.strip() for part in key.split(".")):
            raise RequestError(
                f"override '{item}' is not of the form KEY=VALUE; write e.g. clip.temperature=0.1"
            )
        if key.count(".") > DEEPEST:
            raise RequestError(f"override '{item}': no key has more than {DEEPEST} parts")
    try:
        merged = OmegaConf.from_dotlist(list(items))
        return typing.cast("dict[str, Any]", OmegaConf.to_container(merged, resolve=True))
    except (OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        reason = gist(error)
        raise RequestError(f"override {' '.join(items)!r} cannot be read: {reason}") from None


def read_yaml(path: Path | str) -> dict[str, Any]:
    """Read a YAML mapping.  Raises :class:`RequestError` that names the file."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        _check_depth(text)
        _check_aliases(text)
        loaded = OmegaConf.to_container(OmegaConf.create(text), resolve=True)
    except FileNotFoundError:
        raise RequestError(f"{path}: no such file; give the path of a YAML file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"{path}: cannot be read ({error})") from None
    except Exception as error:  # yaml and omegaconf raise many types
        if is_out_of_memory(error):
            raise
        raise RequestError(f"{path}: not valid YAML ({gist(error)})") from None
    if not isinstance(loaded, dict):
        raise RequestError(f"{path}: must hold a mapping of keys, not a {type(loaded).__name__}")
    return typing.cast("dict[str, Any]", loaded)


def _check_depth(text: str) -> None:
    """Raise ``ValueError`` for brackets that open and open: the parser would need minutes."""
    depth = deepest = 0
    for bracket in re.findall(r"[][{}]", text):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    if deepest > DEEPEST:
        raise ValueError(f"more than {DEEPEST} brackets inside of each other")


def _check_aliases(text: str) -> None:
    """Raise ``ValueError`` for a document that aliases blow up: each is copied where it stands."""
    if "*" not in text or "&" not in text:
        return
    sizes: dict[int, int] = {}

    def size(node: yaml.Node) -> int:
        if id(node) in sizes:
            if not sizes[id(node)]:
                raise ValueError("an alias inside of what it stands for")
            return sizes[id(node)]
        sizes[id(node)] = 0  # not known yet
        inner: list[Any] = node.value if isinstance(node, yaml.CollectionNode) else []
        total = 1
        for item in inner:
            total += sum(map(size, item)) if isinstance(item, tuple) else size(item)
        sizes[id(node)] = total
        return total

    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if root is not None and size(root) > MOST_NODES:
        raise ValueError(f"aliases that expand to more than {MOST_NODES:,} values")


def merge(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Merge nested mappings; later layers win, lists are replaced whole."""
    return _plain(OmegaConf.merge({}, *(_created(_coded(layer)) for layer in layers)))


def _created(values: Mapping[str, Any]) -> DictConfig:
    return OmegaConf.create(dict(values), flags={"allow_objects": True})


def _plain(node: Any) -> dict[str, Any]:
    """The content of a node, without the keys that nobody sets."""
    return typing.cast("dict[str, Any]", _decoded(OmegaConf.to_container(node)))


def _coded(value: Any) -> Any:
    """``value`` so that OmegaConf takes all text in it for text: interpolations were resolved
    where they were written, and ``???`` is what somebody wrote."""
    if isinstance(value, Mapping):
        return {k: _coded(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_coded(v) for v in value]
    if isinstance(value, str):
        text = value.replace("\0", "\0\0").replace("${", "$\0{")
        return "\0!???" if text == "???" else text
    return value


def _decoded(value: Any) -> Any:
    """What :func:`_coded` was given; keys without a value (``???``) are left out."""
    if isinstance(value, dict):
        return {k: _decoded(v) for k, v in value.items() if v != "???"}
    if isinstance(value, list):
        return [_decoded(v) for v in value]
    if isinstance(value, str) and "\0" in value:
        return re.sub("\0([\0!]?)", lambda m: "\0" if m[1] == "\0" else "", value)
    return value


# ------------------------------------------------------------------------------- schemas
def build(schema: type[T], values: Mapping[str, Any], *, origin: str, prefix: str = "") -> T:
    """Check ``values`` against the dataclass ``schema`` and return an instance of it.

    ``origin`` (a file or "the command line") and ``prefix`` ("winclip.") appear in errors.
    """
    try:
        return read(schema, values, origin=origin, prefix=prefix)
    except SchemaError as error:
        raise RequestError(str(error)) from None


@dataclasses.dataclass(frozen=True)
class Resolved(Generic[T]):
    """A checked config.  ``origins``: the layer that set each key (dotted), or "schema"."""

    value: T
    origins: Mapping[str, str]

    def origin(self, key: str) -> str:
        """Where a key, or the keys of a group, were set.  Raises ``KeyError``."""
        found = _origins_of(self.origins, key)
        if not found:
            raise KeyError(key)
        return ", ".join(found)


def resolve(schema: type[T], layers: Sequence[Layer], *, prefix: str = "") -> Resolved[T]:
    """Merge ``layers`` over the schema's defaults, later ones over earlier ones.

    Each layer is checked by itself first, so that an error names where its key came from even
    if a later layer would hide it.  Raises :class:`RequestError`.
    """
    set_by: dict[str, str] = {}

    def origin(key: str, message: str) -> str:
        """Of the keys that a message names; else of the whole group."""
        inner = key.removeprefix(prefix.rstrip(".")).lstrip(".")
        words = [w.strip(".") for w in re.findall(r"[\w.]+", message)]
        named = [k for w in words for k in (w, f"{inner}.{w}") if k in set_by]
        places = [o for k in named or [inner] for o in _origins_of(set_by, k)]
        return ", ".join(dict.fromkeys(places))

    try:
        checked = [(o, check(schema, values, origin=o, prefix=prefix)) for o, values in layers]
        for name, values in checked:
            _note(set_by, values, name)
        merged = _plain(_node(schema, [_coded(values) for _, values in checked if values]))
        value = read(schema, merged, origin=origin, prefix=prefix)
    except SchemaError as error:
        raise RequestError(str(error)) from None
    except OmegaConfBaseException as error:
        raise RequestError(f"{prefix.rstrip('.')}: {gist(error)}") from None
    keys = flat(dataclasses.asdict(typing.cast("Any", value)))
    return Resolved(value, {key: set_by.get(key, DEFAULTS) for key in keys})


def _node(schema: type[Any], layers: Sequence[Mapping[str, Any]]) -> DictConfig:
    """``layers`` over the defaults of ``schema``, typed as far as OmegaConf can express that.

    Making a node takes milliseconds, and the lower layers are nearly always the same ones.
    """
    key = (schema, repr(layers))
    if (known := _NODES.get(key)) is not None:
        return known
    if layers:
        merged = OmegaConf.merge(_node(schema, layers[:-1]), _created(layers[-1]))
        found = typing.cast("DictConfig", merged)
    else:
        try:
            found = OmegaConf.structured(schema)
        except OmegaConfBaseException:  # a tuple of several types, a union of lists
            found = _created(_coded(_defaults(schema)))
    if len(_NODES) >= MOST_KEPT:
        _NODES.clear()
    _NODES[key] = found
    return found


def _defaults(schema: type[Any]) -> dict[str, Any]:
    """The defaults of a schema as nested mappings."""
    found: dict[str, Any] = {}
    for f in dataclasses.fields(schema):
        if f.default_factory is not dataclasses.MISSING:
            found[f.name] = f.default_factory()
        elif f.default is not dataclasses.MISSING:
            found[f.name] = f.default
    groups = {k: v for k, v in found.items() if dataclasses.is_dataclass(v)}
    return found | {k: dataclasses.asdict(v) for k, v in groups.items()}  # type: ignore[arg-type]


def _note(set_by: dict[str, str], values: Mapping[str, Any], origin: str, prefix: str = "") -> None:
    """Remember ``origin`` for every key of a layer; what it replaces is forgotten."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            set_by.pop(name, None)
            _note(set_by, value, origin, f"{name}.")
        elif not isinstance(value, Mapping) or not _origins_of(set_by, name):
            for inner in [k for k in set_by if k.startswith(f"{name}.")]:
                del set_by[inner]
            set_by[name] = origin


def _origins_of(origins: Mapping[str, str], key: str) -> list[str]:
    """The distinct origins of a key and of all below it; of everything for an empty key."""
    inside = (o for k, o in origins.items() if not key or k == key or k.startswith(f"{key}."))
    return list(dict.fromkeys(inside))


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys joined with dots; lists and empty mappings are values."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            out.update(flat(value, f"{prefix}{key}."))
        else:
            out[f"{prefix}{key}"] = value
    return out


def to_dict(config: Any) -> dict[str, Any]:
    """Return a JSON-ready mapping of a config dataclass."""
    return typing.cast("dict[str, Any]", json.loads(json.dumps(dataclasses.asdict(config))))


# ------------------------------------------------------------------------------ identity
def identity(config: Any) -> dict[str, Any]:
    """Return :func:`to_dict` of a config without later keys (:func:`added`) at their default.

    This is what training identities hash, and what records hold.
    """
    return typing.cast("dict[str, Any]", plain(_identity(config)))


def hashed(config: Any) -> dict[str, Any]:
    """:func:`identity` as fingerprints hash it: with former defaults (:func:`replaced`)."""
    return typing.cast("dict[str, Any]", plain(_identity(config, former)))


def set_later(group: Any) -> dict[str, Any]:
    """Return, nested as in :func:`to_dict`, the later keys alone that are not at their default."""
    found: dict[str, Any] = {}
    for f in dataclasses.fields(group):
        value = getattr(group, f.name)
        if is_added(f):
            if not left_out(f, value):
                found[f.name] = plain(_identity(value))
        elif _is_instance(value) and (inner := set_later(value)):
            found[f.name] = inner
    return found


def plain(value: Any) -> Any:
    """Return a value as JSON gives it back: mappings for dataclasses, lists for tuples."""
    return json.loads(json.dumps(dataclasses.asdict(value) if _is_instance(value) else value))


def _identity(value: Any, said: Callable[..., Any] = lambda field, held: held) -> Any:
    if _is_instance(value):
        return {
            f.name: _identity(said(f, held), said)
            for f in dataclasses.fields(value)
            for held in [getattr(value, f.name)]
            if not left_out(f, held)
        }
    if isinstance(value, (list, tuple)):
        return [_identity(v, said) for v in value]
    if isinstance(value, Mapping):
        return {k: _identity(v, said) for k, v in value.items()}
    return value


def _is_instance(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def digest(value: Any, length: int = 12) -> str:
    """Return a stable hex digest of a JSON-ready value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


# ------------------------------------------------------------------- settings of a run
MOST_THREADS = 256  # that decode pictures


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """``data.*``: which part of a dataset, how masks are brought to the working size."""

    mask_resize: Literal["bilinear", "whole", "nearest", "native"] = "bilinear"
    # decoding threads; auto: one, or with a GPU all cores but one, at most eight
    workers: int | Literal["auto"] = "auto"
    train_part: Literal["test", "all"] = "test"  # the part of the auxiliary set that is trained on
    variants: dict[str, str] = dataclasses.field(default_factory=dict)  # dataset -> variant name
    # What all prompts call a category: "metal nut", or as released scripts, by its folder; a
    # method's own `names` (of its preset) is the stronger
    names: Literal["spoken", "released"] = added("spoken")
    # In the identity of the datasets that it is for, so no later key of every cell.
    folder: FolderSettings = dataclasses.field(default_factory=FolderSettings)
    skip_broken: bool = added(False)  # score a category without its files that cannot be read

    def __post_init__(self) -> None:
        if self.workers != "auto" and not 0 <= self.workers <= MOST_THREADS:
            raise ValueError(f"workers={self.workers} must lie in 0..{MOST_THREADS}, or be auto")


@dataclasses.dataclass(frozen=True)
class MetricSettings:
    """``metrics.*``: exact or binned, FPR limit of AUPRO, and what is computed on request: the
    papers' 200-step AUPRO, AUPIMO, and further metrics by name."""

    mode: Mode = "binned"
    fpr_limit: float = 0.3
    aupro_200: bool = False
    aupimo: bool = added(False)
    extra: tuple[str, ...] = added(())

    def __post_init__(self) -> None:
        if not 0 < self.fpr_limit <= 1:
            raise ValueError(f"fpr_limit={self.fpr_limit} must be above 0, and at most 1")
        check_extra(self.extra)
        # A set: neither order nor repetition changes what is computed.
        object.__setattr__(self, "extra", tuple(sorted(set(self.extra))))


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """``run.*``: how the work is cut."""

    batch_size: int = 0  # images; 0: chosen automatically
    deterministic: bool = True
    feature_cache_gb: float = 4.0  # host memory for frozen features in training

    def __post_init__(self) -> None:
        if self.batch_size < 0:
            raise ValueError(f"batch_size={self.batch_size} must be 0 (chosen) or above")
        if self.feature_cache_gb < 0:
            raise ValueError(f"feature_cache_gb={self.feature_cache_gb} must be 0 or above")


@dataclasses.dataclass(frozen=True)
class RaySettings:
    """``ray.*``: where ``--launcher ray`` runs, and what one of its tasks needs."""

    address: str | None = None  # of a running cluster; None: one is started on this machine
    cpus: float = 1.0  # processors of a task
    gpus: float | None = None  # of a task; None: 1 where the cluster has any, unless device=cpu
    workers: int = 0  # tasks at a time of a cluster that is started here; 0: as many as fit
    retries: int = 2  # further attempts at a task that failed or lost its worker

    def __post_init__(self) -> None:
        if self.cpus <= 0 or (self.gpus or 0) < 0 or self.workers < 0 or self.retries < 0:
            raise ValueError("cpus must be above 0; gpus, workers and retries at least 0")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything about a run that is not a method's own."""

    backbone: BackboneSettings = dataclasses.field(default_factory=BackboneSettings)
    data: DataSettings = dataclasses.field(default_factory=DataSettings)
    metrics: MetricSettings = MetricSettings()
    run: RunSettings = RunSettings()
    ray: RaySettings = RaySettings()

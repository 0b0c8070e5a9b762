"""Typed configuration: plain dataclasses as schemas, OmegaConf as the layering.

A schema is a (possibly nested) dataclass.  :func:`build` checks a mapping against it and
returns an instance; an unknown key or a wrong type is a :class:`RequestError` that names the
key, where it came from and the nearest valid key.  Supported field types: ``bool``, ``int``,
``float``, ``str``, ``Literal``, ``X | None``, unions, ``list[X]``, ``tuple[X, ...]``,
``dict[str, X]`` and nested dataclasses.  Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import reprlib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from zsad.errors import RequestError, nearest

T = TypeVar("T")
MOST_NODES = 100_000  # of a YAML document with aliases
DEEPEST = 100  # brackets inside of each other


# ------------------------------------------------------------------------------- layers
def parse_dotlist(items: Sequence[str]) -> dict[str, Any]:
    """Turn ``["winclip.temperature=0.1"]`` into nested mappings, values parsed as YAML."""
    for item in items:
        key, sep, _ = item.partition("=")
        if not sep or not all(part.strip() for part in key.split(".")):
            raise RequestError(
                f"override '{item}' is not of the form KEY=VALUE; write e.g. clip.temperature=0.1"
            )
    try:
        merged = OmegaConf.from_dotlist(list(items))
        return typing.cast("dict[str, Any]", OmegaConf.to_container(merged, resolve=True))
    except (OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        reason = first_line(error)
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
        raise RequestError(f"{path}: not valid YAML ({first_line(error)})") from None
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


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its class."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def merge(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Merge nested mappings; later layers win, lists are replaced whole."""
    out: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            if isinstance(value, Mapping) and isinstance(out.get(key), Mapping):
                out[key] = merge(out[key], value)
            else:
                out[key] = merge(value) if isinstance(value, Mapping) else value
    return out


# ------------------------------------------------------------------------------- schemas
def build(schema: type[T], values: Mapping[str, Any], *, origin: str, prefix: str = "") -> T:
    """Check ``values`` against the dataclass ``schema`` and return an instance of it.

    ``origin`` (a file or "the command line") and ``prefix`` ("winclip.") appear in errors.
    """
    hints = typing.get_type_hints(schema)
    fields = {f.name: f for f in dataclasses.fields(typing.cast("Any", schema)) if f.init}
    kwargs: dict[str, Any] = {}
    for key, value in values.items():
        if key not in fields:
            raise RequestError(
                f"unknown key '{prefix}{key}' ({origin}){nearest(str(key), fields)}; "
                f"valid: {', '.join(sorted(fields))}"
            )
        kwargs[key] = _convert(value, hints[key], f"{prefix}{key}", origin)
    for name, f in fields.items():
        missing = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if name not in kwargs and missing:
            raise RequestError(f"key '{prefix}{name}' is missing ({origin}); add it")
    try:
        return schema(**kwargs)
    except ValueError as error:  # a schema's own __post_init__ check
        raise RequestError(f"{prefix.rstrip('.')}: {error} ({origin})") from None


_BARE_WORDS = (
    *(("off", False), ("no", False), ("on", True), ("yes", True)),
    *(("none", None), ("null", None)),
)


def _convert(value: Any, hint: Any, key: str, origin: str) -> Any:
    """Return ``value`` as the type ``hint`` or raise a :class:`RequestError`."""
    kind = typing.get_origin(hint)
    args = typing.get_args(hint)
    if hint is Any:
        return value
    if kind in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        for option in args:
            if option is type(None):
                continue
            try:
                return _convert(value, option, key, origin)
            except RequestError as error:
                last = error
        raise last
    if kind is Literal:
        for word, read in _BARE_WORDS:  # YAML reads a bare `off` as a boolean
            if value is read and word in args:
                value = word
        for option in args:
            if value == option and type(value) is type(option):  # 1, 1.0 and True are equal
                return option
        options = [str(a) for a in args]
        raise RequestError(
            f"{key}={value!r} ({origin}) is not one of: {', '.join(options)}"
            f"{nearest(str(value), options)}"
        )
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise _wrong(key, value, "a group of keys", origin)
        return build(typing.cast("type[Any]", hint), value, origin=origin, prefix=f"{key}.")
    if kind in (list, tuple, Sequence):
        if not isinstance(value, (list, tuple)):
            raise _wrong(key, value, "a list", origin)
        if kind is tuple and not (len(args) == 2 and args[1] is Ellipsis):
            if len(value) != len(args):
                raise _wrong(key, value, f"a list of {len(args)} values", origin)
            return tuple(
                _convert(v, a, f"{key}[{i}]", origin) for i, (v, a) in enumerate(zip(value, args))
            )
        items = [_convert(v, args[0], f"{key}[{i}]", origin) for i, v in enumerate(value)]
        return tuple(items) if kind is tuple else items
    if kind is dict:
        if not isinstance(value, Mapping):
            raise _wrong(key, value, "a mapping", origin)
        return {str(k): _convert(v, args[1], f"{key}.{k}", origin) for k, v in value.items()}
    if hint is bool and isinstance(value, bool):
        return value
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if hint is str and isinstance(value, str):
        return value
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    raise _wrong(key, value, names.get(hint, str(hint)), origin)


def _wrong(key: str, value: Any, wanted: str, origin: str) -> RequestError:
    shown = reprlib.repr(value)
    return RequestError(f"{key}={shown} ({origin}) must be {wanted}, not {type(value).__name__}")


def to_dict(config: Any) -> dict[str, Any]:
    """Return a JSON-ready mapping of a config dataclass."""
    return typing.cast("dict[str, Any]", json.loads(json.dumps(dataclasses.asdict(config))))


# ------------------------------------------------------------------------------ identity
_ADDED = "zsad.added"


def added(default: Any = dataclasses.MISSING, *, default_factory: Any = dataclasses.MISSING) -> Any:
    """Declare a key of a schema that came after results were stored.

    It enters an identity (:func:`identity`) only where it differs from its default, so that
    what was stored without it is still found.  The default stays what it is for ever.
    """
    if default is dataclasses.MISSING and default_factory is dataclasses.MISSING:
        raise TypeError("a key that is added later needs a default")
    found: Any = dataclasses.field(
        default=default, default_factory=default_factory, metadata={_ADDED: True}
    )
    return found


def digest(value: Any, length: int = 12) -> str:
    """Return a stable hex digest of a JSON-ready value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


# ------------------------------------------------------------------- settings of a run
@dataclasses.dataclass(frozen=True)
class BackboneSettings:
    """``backbone.*``: which encoder, from where, how exact."""

    name: str = "vit-l-14-336"
    weights: str | None = None  # file, or "random"; None: bundled, cache, hub
    image_size: int = 0  # pixels; 0: the backbone's default
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    compile: bool = False
    # of the weights of backbone `file`; auto: quick_gelu, as OpenAI's
    activation: Literal["auto", "quick_gelu", "gelu"] = added("auto")


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """``data.*``: which part of a dataset, how masks are brought to the working size."""

    mask_resize: Literal["bilinear", "nearest", "native"] = "bilinear"
    workers: int = 1  # decoding threads
    train_part: Literal["test", "all"] = "test"  # the part of the auxiliary set that is trained on
    variants: dict[str, str] = dataclasses.field(default_factory=dict)  # dataset -> variant name


@dataclasses.dataclass(frozen=True)
class MetricSettings:
    """``metrics.*``: exact or binned, FPR limit of AUPRO, the papers' 200-step AUPRO."""

    mode: Literal["binned", "exact"] = "binned"
    fpr_limit: float = 0.3
    aupro_200: bool = False


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """``run.*``: how the work is cut."""

    batch_size: int = 0  # images; 0: chosen automatically
    deterministic: bool = True
    feature_cache_gb: float = 4.0  # host memory for frozen features in training


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

    backbone: BackboneSettings = BackboneSettings()
    data: DataSettings = dataclasses.field(default_factory=DataSettings)
    metrics: MetricSettings = MetricSettings()
    run: RunSettings = RunSettings()
    ray: RaySettings = RaySettings()

"""Finds methods, datasets, backbones and protocols by name, without importing torch.

Methods: every sub-folder of ``zsad.methods`` with a ``config.yaml``; folders given by
``--plugins DIR``; and entry points of the group ``zsad.methods`` (value: an importable
package that holds a ``config.yaml``).  A name that two places claim is an error; an entry point
that cannot be used is left out with a warning that names its distribution.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import importlib
import importlib.util
import logging
import sys
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from zsad import config as cfg
from zsad.backbones import families
from zsad.config.method_config import ALL_SHOTS, MethodConfig, check_schema
from zsad.errors import RequestError, reason, unknown
from zsad.io import sha256_file

if TYPE_CHECKING:
    from zsad.method import Method

GROUPS = ("all", "papers", "baselines", "training-free", "trained")  # of methods
SOURCES = (".py", ".yaml", ".yml")  # endings of the files that make a method
_PLUGIN_DIRS: list[Path] = []
_IMPORTED: dict[str, str] = {}  # origin of a method -> hash of its files when it was imported
_BROKEN: dict[str, str] = {}  # entry points that cannot be used: what is said of them
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MethodEntry:
    """A method as its ``config.yaml`` describes it; the class is imported on demand.

    These fields are the keys of that file (``key``: where the name differs).  ``differs``: in what
    it is always another method than the one whose figures papers print; no figure of it is then
    called equal to a printed one.  ``revision``: raised
    by whoever changes what the method computes under equal settings; above 1 it enters the
    fingerprint of cells and the identity of trained states.  ``masks``: false where the maps do not
    show where a defect is, so that ``zsad predict`` marks no pixels (``docs/own-photos.md`` has the
    measurement).  ``reads``: what its figures depend on besides the name of a thing, ``kind`` or
    ``domain``.  ``preset_titles``: what tables call a preset, where its name says too little.
    ``shows_prompts``: whether it says what each of its prompts finds (:meth:`Method.prompt_views`).
    ``companions``: files that the authors' training writes beside a checkpoint, and that are read
    along with it.  ``authors``: all of ``paper``'s, as "Family, Given".
    """

    name: str
    title: str
    summary: str
    paper: str
    group: Literal["papers", "baselines"]
    trained: bool
    target: str = field(metadata={"key": "class"})  # "module:Class"
    schema: str  # "module:Config", a MethodConfig, torch-free
    defaults: Mapping[str, Any] = field(default_factory=dict, metadata={"key": "config"})
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    origin: str = field(default="", metadata={"key": ""})  # the config.yaml itself
    transductive: bool = False
    backbones: tuple[str, ...] = ()  # empty: any
    notes: tuple[str, ...] = field(default=())
    differs: tuple[str, ...] = field(default=())
    revision: int = 1
    masks: bool = True
    reads: tuple[str, ...] = ()
    preset_titles: Mapping[str, str] = field(default_factory=dict)
    companions: tuple[str, ...] = ()
    prompt_kind: str = ""  # "module:object", torch-free; see zsad.prompt_bank.kinds
    authors: tuple[str, ...] = ()
    shows_prompts: bool = False
    reads_text: bool = True  # false: runs on backbones without a text tower

    def __post_init__(self) -> None:
        if self.revision < 1:
            raise ValueError(f"revision {self.revision} must be a whole number from 1 up")

    def config_class(self) -> type[MethodConfig]:
        """Import the method's config class, without torch.

        Raises :class:`RequestError` that says what to write where the framework cannot ask it
        what it needs.
        """
        what = f"schema of method '{self.name}'"
        try:
            schema = check_schema(load_object(self.schema, what), self.defaults)
            self._check_prompt_kind(schema.prompt_kind)
            return schema
        except (TypeError, ValueError, NameError) as error:  # refused by the base, or not a schema
            raise RequestError(f"{self.origin}: {what}, {self.schema}, {error}") from None

    def _check_prompt_kind(self, read: str) -> None:
        """Raise ``ValueError`` unless the texts that the config says it ``read``-s, which enter
        identities, are of the kind that ``config.yaml`` makes known."""
        brought = ""
        if self.prompt_kind:
            kind = load_object(self.prompt_kind, f"prompt kind of method '{self.name}'")
            brought = str(getattr(kind, "name", ""))
        if read != brought:
            raise ValueError(
                f"has prompt_kind '{read}', and config.yaml names a prompt_kind '{brought}' "
                f"({self.prompt_kind or 'no key prompt_kind'}); give both the same kind, or neither"
            )

    def resolve(self, *layers: cfg.Layer) -> MethodConfig:
        """Return the checked config dataclass.  ``layers``: (origin, values), later ones win.

        ``preset`` chooses one of ``presets``; it lies above the defaults and below all layers.
        """
        return self.resolved(*layers).value

    def resolved(self, *layers: cfg.Layer) -> cfg.Resolved[MethodConfig]:
        """The same, with the layer that set each key."""
        schema = self.config_class()
        layers = tuple((origin, self._with_number(schema, values)) for origin, values in layers)
        given = [v["preset"] for _, v in ((self.origin, self.defaults), *layers) if "preset" in v]
        chosen = given[-1] if given else "default"
        presets = {"default": {}, **self.presets}
        if isinstance(chosen, str) and chosen not in presets:
            raise unknown(f"preset of method {self.name}", chosen, presets)
        below: list[cfg.Layer] = [
            (cfg.DEFAULTS, {"preset": "default"}),
            (self.origin, self.defaults),
            (
                f"{self.origin}, preset {chosen}",
                self._with_number(schema, presets.get(str(chosen), {})),
            ),
        ]
        return cfg.resolve(schema, [*below, *layers], prefix=f"{self.name}.")

    def _with_number(
        self, schema: type[MethodConfig], values: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """The keys of a layer with ``shots: all`` as it is held.  Raises :class:`RequestError` for
        a method that does not take all, and for a negative number."""
        shots = values.get("shots")
        if shots == "all" and schema.full_shot:
            return {**values, "shots": ALL_SHOTS}
        if shots == "all" and "shots" in schema.__dataclass_fields__:  # type: ignore[attr-defined]
            raise RequestError(f"{self.name}.shots=all: {self.name} takes a number, such as 4")
        if isinstance(shots, int) and shots < 0:
            raise RequestError(
                f"{self.name}.shots={shots}: must be a number from 0 up"
                + (", or all" if schema.full_shot else "")
            )
        return values

    def source_digest(self) -> str:
        """The hash of the files of a method in a folder of `--plugins`, and of modules beside it,
        which its author changes between runs; "" for one that is installed: it has a ``revision``.

        Raises :class:`RequestError` where they have changed since this process imported them."""
        written = self._written()
        if written != _IMPORTED.get(self.origin, written):
            raise RequestError(
                f"method {self.name}: its files have changed since they were imported; start "
                "Python anew"
            )
        return written

    @property
    def imported_digest(self) -> str:
        """The same of the files as this process imported them; "" before that."""
        return _IMPORTED.get(self.origin, "")

    def _written(self) -> str:
        folder = Path(self.origin).parent
        if folder.parent not in plugin_dirs():
            return ""
        own, shared = folder.rglob("*"), folder.parent.glob("*.py")
        found = sorted(p for p in (*own, *shared) if p.suffix in SOURCES and p.is_file())
        named = [[p.relative_to(folder.parent).as_posix(), sha256_file(p)] for p in found]
        return cfg.digest(named, 16)

    def load(self) -> type[Method[Any, Any]]:
        """Import the method's class (imports torch)."""
        _IMPORTED.setdefault(self.origin, self._written())
        return typing.cast(
            "type[Method[Any, Any]]", load_object(self.target, f"class of method '{self.name}'")
        )


def load_object(target: str, what: str) -> Any:
    """Import ``"package.module:attribute"``."""
    module, _, attribute = target.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise RequestError(f"{what}: cannot import {target} ({error})") from None


# ------------------------------------------------------------------------------- methods
def add_plugins(folder: Path | str) -> None:
    """Also look for methods in the sub-folders of ``folder`` (``--plugins DIR``), and for families
    of backbones in its folder ``backbones``."""
    path = Path(folder).resolve()
    if not path.is_dir():
        raise RequestError(f"--plugins {folder}: no such folder")
    if not any(path.glob("*/config.yaml")) and not families.plugin_files(path):
        raise RequestError(
            f"--plugins {folder}: holds no method and no backbone; give the folder that holds "
            f"NAME/config.yaml or {families.FOLDER}/NAME.py"
        )
    if path not in _PLUGIN_DIRS:
        _PLUGIN_DIRS.append(path)
        if str(path) not in sys.path:
            sys.path.append(str(path))
        methods.cache_clear()
        families.add_folder(path)


def plugin_dirs() -> tuple[Path, ...]:
    """The folders of :func:`add_plugins`, for another process to know the same methods."""
    return tuple(_PLUGIN_DIRS)


def forget_plugins() -> None:
    """Know the methods of zsad and of entry points alone, as a new process does."""
    _PLUGIN_DIRS.clear()
    methods.cache_clear()
    families.forget()


@contextlib.contextmanager
def plugins_forgotten() -> Iterator[None]:
    """Know no folder of :func:`add_plugins` inside the block, and those known before after it."""
    before = plugin_dirs()
    forget_plugins()
    try:
        yield
    finally:
        forget_plugins()
        _PLUGIN_DIRS.extend(before)
        for path in before:
            families.add_folder(path)


@cache
def methods() -> dict[str, MethodEntry]:
    """All methods by name."""
    found: dict[str, MethodEntry] = {}
    places: list[tuple[str, Any]] = [("zsad.methods", files("zsad.methods"))]
    places += [(str(p), p) for p in _PLUGIN_DIRS]
    configs: list[Any] = [
        child / "config.yaml"
        for _, place in places
        for child in sorted(place.iterdir(), key=lambda c: c.name)
        if child.is_dir() and (child / "config.yaml").is_file()
    ]
    for path in configs:
        _join(found, _read_entry(path))
    _BROKEN.clear()
    for point in entry_points(group="zsad.methods"):
        try:
            entry = _installed(point)
            _join(found, entry)
        except Exception as error:  # of another distribution: whatever its code raises
            _BROKEN[point.name] = f"plug-in {_distribution(point)} is left out: {reason(error)}"
            log.warning("%s", _BROKEN[point.name])
    return found


def _join(found: dict[str, MethodEntry], entry: MethodEntry) -> None:
    if entry.name in found:
        raise RequestError(
            f"method '{entry.name}' is defined twice: {found[entry.name].origin} and {entry.origin}"
        )
    found[entry.name] = entry


def _installed(point: EntryPoint) -> MethodEntry:
    """The method of an entry point, whose config class can be imported."""
    spec = importlib.util.find_spec(point.value.partition(":")[0])
    if spec is None or not spec.submodule_search_locations:
        raise RequestError(f"entry point zsad.methods '{point.name}': no package {point.value}")
    entry = _read_entry(Path(next(iter(spec.submodule_search_locations))) / "config.yaml")
    entry.config_class()
    return entry


def _distribution(point: EntryPoint) -> str:
    """Name and version of what installed an entry point."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else f"'{point.name}'"


def broken_plugins() -> dict[str, str]:
    """What is left out of :func:`methods`: for every entry point that cannot be used, by its name,
    a line that says why."""
    methods()
    return dict(_BROKEN)


def _read_entry(path: Any) -> MethodEntry:
    given = {key: value for key, value in cfg.read_yaml(path).items() if value is not None}
    return dataclasses.replace(cfg.build(MethodEntry, given, origin=str(path)), origin=str(path))


def method(name: str) -> MethodEntry:
    """One method by name, or an error that suggests the nearest."""
    known = methods()
    if name in _BROKEN and name not in known:
        raise RequestError(f"method '{name}': {_BROKEN[name]}")
    if name not in known:
        raise unknown("method", name, known, "see `zsad list methods`")
    return known[name]


def select_methods(names: str | Sequence[str]) -> list[MethodEntry]:
    """Expand names, wildcards and the groups ``all``, ``papers``, ``baselines``,
    ``training-free``, ``trained``."""
    known = methods()
    groups: dict[str, list[str]] = {
        "all": list(known),
        "papers": [n for n, e in known.items() if e.group == "papers"],
        "baselines": [n for n, e in known.items() if e.group == "baselines"],
        "training-free": [n for n, e in known.items() if not e.trained],
        "trained": [n for n, e in known.items() if e.trained],
    }
    chosen: dict[str, None] = {}
    for name in expand(names):
        if name in groups:
            chosen.update(dict.fromkeys(groups[name]))
        elif matches := fnmatch.filter(known, name):
            chosen.update(dict.fromkeys(matches))
        elif name in _BROKEN:
            raise RequestError(f"method '{name}': {_BROKEN[name]}")
        else:
            raise unknown("method", name, [*known, *groups], "see `zsad list methods`")
    if not chosen:
        raise RequestError("no method chosen; give --methods all or a list of names")
    return [known[n] for n in chosen]


def list_methods() -> list[str]:
    """Names of all methods."""
    return sorted(methods())


# --------------------------------------------------------- datasets, protocols, backbones
@cache
def yaml_names(folder: str) -> dict[str, Any]:
    """``{stem: path}`` of the YAML files below ``zsad.benchmarks/<folder>``."""
    root = files("zsad.benchmarks") / folder
    return {
        child.name.removesuffix(".yaml"): child
        for child in sorted(root.iterdir(), key=lambda c: c.name)
        if child.name.endswith(".yaml")
    }


def list_datasets() -> list[str]:
    """Names of all datasets."""
    return sorted(yaml_names("datasets"))


def list_protocols() -> list[str]:
    """Names of all protocols."""
    return sorted(yaml_names("protocols"))


def list_backbones() -> list[str]:
    """Names of all backbones: the registered ones, and open_clip's models of CLIP's form."""
    from zsad.backbones.specs import specs, usable_open_clip_models

    return sorted({*specs(), *usable_open_clip_models()})


def expand(names: str | Iterable[str]) -> list[str]:
    """Split a comma list."""
    items = names.split(",") if isinstance(names, str) else names
    return [n.strip() for n in items if n.strip()]

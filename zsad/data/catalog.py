"""Dataset definitions: one YAML file each, checked against the schema below.  No torch.

Bundled definitions lie in ``benchmarks/datasets/``.  A user's own dataset is a YAML file of the
same schema (``--datasets my.yaml``) or a plain folder (``--datasets folder:PATH``).
"""

from __future__ import annotations

import contextlib
import fnmatch
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from zsad import config as cfg
from zsad import registry
from zsad.errors import RequestError, unknown
from zsad.types import Category

Counts = tuple[int, int]  # (normal, anomalous)

GROUPS: dict[str, str] = {
    "all": "the 19 datasets of the FAPrompt paper",
    "extended": "all 22 datasets of the four papers",
    "industrial": "the nine industrial datasets of the FAPrompt paper",
    "medical": "the ten medical datasets of the FAPrompt paper",
}


@dataclass(frozen=True)
class CategorySpec:
    """One evaluation category.  ``prompt``: its spoken name.  ``test`` and ``train``: published
    counts of the default variant; ``also``: other test counts known to circulate.
    ``group``: ``train`` keeps the category out of evaluation (it is trained on)."""

    prompt: str
    kind: Literal["object", "texture"] = "object"
    test: Counts | None = None
    train: Counts | None = None
    also: tuple[Counts, ...] = ()
    group: Literal["train", "test"] = "test"


@dataclass(frozen=True)
class Layout:
    """One way in which a variant lies on disk.  ``looks``: how, in words, for messages.
    ``within``: usual wrapping folders below the dataset's folder, tried in order.
    ``only_counts``: the layout is meant only if its test counts are these.  ``package``: the
    installed Python package that holds the files.  ``generated``: there are no files."""

    indexer: str
    options: dict[str, Any] = field(default_factory=dict)
    looks: str = ""
    within: tuple[str, ...] = ()
    only_counts: Counts | None = None
    package: str = ""
    generated: bool = False


@dataclass(frozen=True)
class VariantSpec:
    """A preparation of a dataset that changes its samples or masks.

    ``test``: published (normal, anomalous).  ``certainty``: ``published`` figures must match;
    ``unconfirmed`` ones come from no source at hand, so a difference is only reported.
    ``mask_threshold``: grey values above it (of 255) are anomalous.
    ``numbered``: the layout option that the number at the end of the variant's name sets, so that
    ``seed-0`` stands for ``seed-1``, ``seed-2``, ... as well.
    """

    title: str
    layouts: tuple[Layout, ...]
    test: Counts | None = None
    certainty: Literal["published", "unconfirmed"] = "published"
    mask_threshold: int = 0
    numbered: str = ""

    def with_number(self, number: int) -> VariantSpec:
        """The same preparation with another number in title and layouts."""
        layouts = tuple(
            replace(x, options={**x.options, self.numbered: number}) for x in self.layouts
        )
        return replace(self, title=re.sub(r"\d+$", str(number), self.title), layouts=layouts)


@dataclass(frozen=True)
class Archive:
    """Where the data comes from.  ``files``: names of the archives; ``sha256`` where known;
    ``how``: what a person has to do; ``package``: a PyPI package that holds the data."""

    how: str
    url: str = ""
    files: tuple[str, ...] = ()
    sha256: dict[str, str] = field(default_factory=dict)
    package: str = ""


@dataclass(frozen=True)
class DatasetSpec:
    """A dataset as its YAML file describes it.

    ``order``: rank in tables (the papers' rows).  ``levels``: what can be evaluated.
    ``auxiliary``: the dataset that learned methods are trained on when this one is the target.
    ``folders``: usual names of its folder below ``--data-root``.  ``training_split``: the part
    that others are trained on ("test" is the published practice).  ``root``: a fixed folder, for
    a user's own dataset.  ``module``: a Python module that registers the indexer and reader that
    the layouts name.  ``revision``: raised whenever the rules change by which images are decoded
    or masks are read while the files stay as they are; above 1 it enters the fingerprint, and
    everything that depends on the dataset is computed again.
    """

    name: str
    title: str
    categories: dict[str, CategorySpec]
    variants: dict[str, VariantSpec]
    default_variant: str
    groups: tuple[str, ...] = ()
    order: int = 1000
    domain: Literal["industrial", "medical"] = "industrial"
    modality: str = ""
    levels: tuple[Literal["image", "pixel"], ...] = ("image", "pixel")
    auxiliary: str = "mvtec"
    folders: tuple[str, ...] = ()
    training_split: Literal["test", "train"] = "test"
    root: str = ""
    module: str = ""
    licence: str = ""
    redistributable: bool = False
    home: str = ""
    citation: str = ""
    archive: Archive | None = None
    notes: tuple[str, ...] = ()
    revision: int = 1

    def __post_init__(self) -> None:
        if self.revision < 1:
            raise ValueError(f"revision={self.revision} must be a whole number from 1 up")
        if self.default_variant not in self.variants:
            raise ValueError(
                f"default_variant '{self.default_variant}' is not one of its variants: "
                f"{', '.join(self.variants)}"
            )
        empty = [name for name, variant in self.variants.items() if not variant.layouts]
        if empty:
            raise ValueError(f"variant '{empty[0]}' names no layout")

    def category(self, key: str) -> Category:
        """The category as methods see it."""
        spec = self.categories[key]
        return Category(self.name, key, spec.prompt, self.domain, spec.kind)

    def variant(self, name: str) -> VariantSpec:
        """A variant by name, or an error that suggests the nearest."""
        found = self.find_variant(name)
        if found is None:
            hint = f"see `zsad show {self.name}`"
            raise unknown(f"variant of dataset {self.name}", name, self.variants, hint)
        return found

    def find_variant(self, name: str) -> VariantSpec | None:
        """A variant by name, or None; a numbered one answers to every number (at most 9 digits)."""
        if name in self.variants:
            return self.variants[name]
        if match := re.fullmatch(r"(.*\D)(\d{1,9})", name):
            for known, variant in self.variants.items():
                if variant.numbered and re.fullmatch(re.escape(match[1]) + r"\d+", known):
                    return variant.with_number(int(match[2]))
        return None

    @property
    def folder_names(self) -> tuple[str, ...]:
        """Folder names to look for, the dataset's own name first."""
        return tuple(dict.fromkeys((self.name, *self.folders)))


# Definitions that the command line brought in (a YAML file or a folder), by their short name.
_USER_SPECS: dict[str, DatasetSpec] = {}
_ORIGINS: dict[str, str] = {}  # the file or folder that each of them came from


def register_spec(spec: DatasetSpec, origin: str = "") -> str:
    """Make a definition available under its name and return the name.

    ``origin``: the file or folder it was made from.  What comes from the same place again
    replaces what was there, because people edit a definition and go on in the same process.
    Raises :class:`RequestError` when a dataset from another place has that name already.
    """
    if spec.name in registry.yaml_names("datasets"):
        raise _taken(spec.name, "a dataset of zsad")
    known = _USER_SPECS.get(spec.name)
    if known not in (None, spec) and not (origin and _ORIGINS[spec.name] == origin):
        raise _taken(spec.name, _ORIGINS[spec.name] or "another definition")
    _USER_SPECS[spec.name] = spec
    _ORIGINS[spec.name] = origin
    return spec.name


def forget_own() -> None:
    """Know the bundled definitions alone, as a new process does."""
    _USER_SPECS.clear()
    _ORIGINS.clear()


@contextlib.contextmanager
def own_forgotten() -> Iterator[None]:
    """Know no definition of :func:`register_spec` inside the block, and those known before after
    it."""
    specs, origins = dict(_USER_SPECS), dict(_ORIGINS)
    forget_own()
    try:
        yield
    finally:
        forget_own()
        _USER_SPECS.update(specs)
        _ORIGINS.update(origins)


def _taken(name: str, by: str) -> RequestError:
    return RequestError(
        f"dataset name '{name}' is taken by {by}; give the definition another `name`"
    )


def list_specs() -> list[str]:
    """Names of all datasets, bundled and registered."""
    return sorted({*registry.yaml_names("datasets"), *_USER_SPECS})


def load_spec(name: str | DatasetSpec) -> DatasetSpec:
    """A definition by name, by YAML file or by ``folder:PATH``.

    Raises :class:`RequestError` that suggests the nearest name, or names the key that is wrong.
    """
    if isinstance(name, DatasetSpec):
        return name
    if name in _USER_SPECS:
        return _USER_SPECS[name]
    if is_own(name):
        return load_spec(register_spec(*_own_spec(name)))
    if name not in registry.yaml_names("datasets"):
        raise unknown("dataset", name, [*list_specs(), *GROUPS], "see `zsad list datasets`")
    return _bundled(name)


def is_own(name: str) -> bool:
    """Whether ``name`` denotes a user's own dataset: a YAML file or ``folder:PATH``."""
    return name.startswith("folder:") or name.endswith((".yaml", ".yml"))


@cache
def _bundled(name: str) -> DatasetSpec:
    path = registry.yaml_names("datasets")[name]
    return _build(cfg.read_yaml(path), path.name, name)


def _build(values: Mapping[str, Any], origin: str, stem: str) -> DatasetSpec:
    spec = cfg.build(DatasetSpec, values, origin=origin)
    if spec.name != stem:
        raise RequestError(f"{origin}: name '{spec.name}' must equal the file's name '{stem}'")
    return spec


def _own_spec(name: str) -> tuple[DatasetSpec, str]:
    """The definition, and the absolute path of what it was made from."""
    if name.startswith("folder:"):
        from zsad.data.own import folder_spec

        spec = folder_spec(Path(name.removeprefix("folder:")))
        return spec, spec.root
    path = Path(name)
    values = dict(cfg.read_yaml(path))
    values.setdefault("name", path.stem)
    spec = cfg.build(DatasetSpec, values, origin=str(path))
    if spec.root and not Path(spec.root).is_absolute():
        spec = replace(spec, root=str((path.parent / spec.root).resolve()))
    return spec, str(path.resolve())


def select_datasets(names: str | Sequence[str] | Iterable[str]) -> list[str]:
    """Expand groups, wildcards, names, YAML files and ``folder:PATH`` to dataset names.

    Own datasets are registered and returned under their short name.  Raises
    :class:`RequestError` for an unknown name or an empty selection.
    """
    chosen: dict[str, None] = {}
    for name in registry.expand(names):
        if is_own(name):
            chosen[load_spec(name).name] = None
        elif name in GROUPS:
            chosen.update(dict.fromkeys(group_members(name)))
        elif any(c in name for c in "*?["):
            matched = fnmatch.filter(list_specs(), name)
            if not matched:
                raise unknown("dataset", name, [*list_specs(), *GROUPS], "nothing matches")
            chosen.update(dict.fromkeys(matched))
        else:
            chosen[load_spec(name).name] = None
    if not chosen:
        raise RequestError(
            f"no dataset chosen; give --datasets {'|'.join(GROUPS)} or a list of names"
        )
    return list(chosen)


@cache
def group_members(group: str) -> tuple[str, ...]:
    """Names of the datasets of a group, in the order of the papers' tables."""
    specs = [_bundled(name) for name in registry.yaml_names("datasets")]
    members = [s for s in specs if group in s.groups]
    return tuple(s.name for s in sorted(members, key=lambda s: (s.order, s.name)))

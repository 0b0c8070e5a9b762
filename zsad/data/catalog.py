"""Dataset definitions: one YAML file each, checked against the schema below.  No torch.

Bundled definitions lie in ``benchmarks/datasets/``.  A user's own dataset is a YAML file of the
same schema (``--datasets my.yaml``) or a plain folder (``--datasets folder:PATH``).
"""

from __future__ import annotations

import contextlib
import fnmatch
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from zsad import config as cfg
from zsad import registry
from zsad.config import FolderSettings
from zsad.data.definition import DatasetSpec
from zsad.errors import RequestError, nearest, unknown

GROUPS: dict[str, str] = {
    "all": "the 19 datasets of the FAPrompt paper",
    "extended": "all 22 datasets of the four papers",
    "industrial": "the nine industrial datasets of the FAPrompt paper",
    "medical": "the ten medical datasets of the FAPrompt paper",
    "more": "five datasets of later papers",
}

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


def load_spec(name: str | DatasetSpec, folder: FolderSettings | None = None) -> DatasetSpec:
    """A definition by name, by YAML file or by ``folder:PATH``; ``folder`` says what the latter
    cannot.

    Raises :class:`RequestError` that suggests the nearest name, or names the key that is wrong.
    """
    if isinstance(name, DatasetSpec):
        return name
    if name in _USER_SPECS:
        return _USER_SPECS[name]
    if is_own(name):
        return load_spec(register_spec(*_own_spec(name, folder)))
    if name not in registry.yaml_names("datasets"):
        raise unknown("dataset", name, [*list_specs(), *GROUPS], "see `zsad list datasets`")
    return _bundled(name)


def named(text: str, option: str) -> str:
    """The names of the datasets that a user calls by any of their names ("MVTec AD", "VisA"), or
    a list of them, joined by " + " as checkpoints have it; one that is none of ours stays as it is.

    Raises :class:`RequestError`, which names ``option``, for a name that is nearly one of ours.
    """
    return " + ".join(dict.fromkeys(_named(n.strip(), option) for n in re.split(r",| \+ ", text)))


def _named(name: str, option: str) -> str:
    if not name:
        raise RequestError(f"{option}: names no dataset; give one, such as {option} mvtec")
    if is_own(name):
        return load_spec(name).name
    found = _every_name().get(_plain(name))
    if found:
        return found
    if hint := nearest(name.lower(), list_specs(), 0.75):
        raise RequestError(f"{option} {name}: not a dataset of zsad's{hint}")
    return name


def _every_name() -> dict[str, str]:
    """What every dataset is called (its own name, its title, its folders), without case and
    punctuation."""
    specs = [load_spec(name) for name in list_specs()]
    others = {_plain(n): s.name for s in specs for n in (s.title, *s.folders)}
    return {**others, **{_plain(s.name): s.name for s in specs}}


def _plain(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum())


def origin_of(spec: DatasetSpec) -> str:
    """The absolute path of the file or folder that a user's definition was made from; else ""."""
    return _ORIGINS.get(spec.name, "") if _USER_SPECS.get(spec.name) == spec else ""


def is_folder(spec: DatasetSpec) -> bool:
    """Whether a definition was made from ``folder:PATH``: nobody stated what should be there."""
    origin = origin_of(spec)
    return bool(origin) and not is_own(origin)


def typed(spec: DatasetSpec) -> str:
    """What to type for a dataset, quoted for a shell: its name, its YAML file, or folder:PATH."""
    origin = origin_of(spec)
    if not origin:
        return spec.name
    return shlex.quote(origin if is_own(origin) else f"folder:{origin}")


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


def _own_spec(name: str, folder: FolderSettings | None) -> tuple[DatasetSpec, str]:
    """The definition, and the absolute path of what it was made from."""
    if name.startswith("folder:"):
        from zsad.data.folder_dataset import folder_spec

        if name == "folder:":
            raise RequestError("folder: names no folder; write folder:PATH (folder:. is this one)")
        spec = folder_spec(Path(name.removeprefix("folder:")), folder)
        return spec, spec.root
    path = Path(name)
    values = dict(cfg.read_yaml(path))
    values.setdefault("name", path.stem)
    spec = cfg.build(DatasetSpec, values, origin=str(path))
    if spec.root and not Path(spec.root).is_absolute():
        spec = replace(spec, root=str((path.parent / spec.root).resolve()))
    return spec, str(path.resolve())


def select_datasets(
    names: str | Sequence[str] | Iterable[str], folder: FolderSettings | None = None
) -> list[str]:
    """Expand groups, wildcards, names, YAML files and ``folder:PATH`` to dataset names.

    ``folder``: what the folders among them cannot say (``data.folder.*``).
    Own datasets are registered and returned under their short name.  Raises
    :class:`RequestError` for an unknown name or an empty selection.
    """
    chosen: dict[str, None] = {}
    for name in registry.expand(names):
        if is_own(name):
            chosen[load_spec(name, folder).name] = None
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

"""What a call of ``zsad.load_method`` says about backbone, run and method.  No torch.

The words are those of ``zsad bench``: ``backbone.precision=bf16``, ``run.batch_size=2``,
``METHOD.KEY=VALUE``.  Nothing is taken that would change nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from zsad import config as cfg
from zsad import registry
from zsad.config import BackboneSettings, FolderSettings, Settings
from zsad.config.sections import SECTIONS, read_overrides, resolve_settings
from zsad.errors import RequestError, nearest

ORIGIN = "load_method"
# Of `run`, the keys that scoring reads; of the other sections it reads none.
READ = {"backbone": None, "run": ("batch_size", "deterministic"), "data": ("folder",)}
FOLDER = ("bits",)  # of `data.folder`, what holds for pictures without labels


def split(
    method: str,
    overrides: Mapping[str, Any] | Sequence[str] | None,
    named: Mapping[str, Any],
) -> tuple[cfg.Resolved[Settings], dict[str, Any]]:
    """Settings and the method's own values, of ``overrides`` in any form.

    ``named``: values of ``backbone.*`` that have a parameter of their own.  The method's keys may
    stand with its name or without.  Raises :class:`RequestError` for a key that nothing reads, and
    for a value that is given twice in different words.
    """
    values = read_overrides(overrides)
    sections = {k: v for k, v in values.items() if k in SECTIONS}
    _check_read(sections)
    default = cfg.flat(cfg.to_dict(BackboneSettings()))
    said = {k: v for k, v in named.items() if v not in (None, default[k])}
    for key, value in _group(sections, "backbone").items():
        if key in said and said[key] != value:
            raise RequestError(
                f"backbone.{key}={value} and --{_FLAGS.get(key, key)} {said[key]} contradict each "
                f"other; give one of them"
            )
    layers = [(ORIGIN, {"backbone": said}), (ORIGIN, sections)]
    rest = {k: v for k, v in values.items() if k not in SECTIONS}
    return resolve_settings(layers), _of_method(method, rest)


_OF_FOLDER = [f.name for f in dataclasses.fields(FolderSettings)]
_FLAGS = {"name": "backbone", "image_size": "image-size"}


def _group(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The keys of a section; a section that is not a mapping is the schema's to refuse."""
    found = values.get(name, {})
    return found if isinstance(found, Mapping) else {}


def _check_read(sections: Mapping[str, Any]) -> None:
    """Raise :class:`RequestError` for a setting that changes nothing here."""
    for name in sections:
        known = READ.get(name, ())
        keys = [k for k in _group(sections, name) if known is not None and k not in known]
        folder = _group(_group(sections, "data"), "folder") if name == "data" else {}
        keys += [f"folder.{k}" for k in folder if k in _OF_FOLDER and k not in FOLDER]
        first = keys[0].partition(".")[0] if keys else ""
        if name not in READ or first in cfg.to_dict(getattr(Settings(), name)):
            key = f"{name}.{keys[0]}" if keys else name
            raise RequestError(
                f"{key}: changes nothing about pictures of one's own; `zsad predict` reads "
                f"backbone.*, run.batch_size, run.deterministic, data.folder.bits and the method's "
                f"keys"
            )


def _of_method(method: str, values: Mapping[str, Any]) -> dict[str, Any]:
    own = values.get(method, {})
    bare = {k: v for k, v in values.items() if k != method}
    if not isinstance(own, Mapping):
        raise RequestError(
            f"'{method}={own}' sets no key of method {method}; write {method}.KEY=VALUE"
        )
    known = registry.methods()
    for key, value in bare.items():
        if not isinstance(value, Mapping):
            continue
        if key in known:
            raise RequestError(
                f"'{key}.{next(iter(value), '')}' is set but the method is {method}; "
                f"write {method}.KEY=VALUE"
            )
        schema: Any = registry.method(method).config_class()
        fields = [f.name for f in dataclasses.fields(schema)]
        if key not in fields:
            raise RequestError(
                f"unknown key '{key}.{next(iter(value), '')}'"
                f"{nearest(key, [method, *SECTIONS, *fields])}; an override starts with "
                f"{method}, backbone or run"
            )
    return cfg.merge(bare, dict(own))

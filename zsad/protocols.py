"""Protocols: who is compared, on what, trained on what, under which settings.  No torch.

One YAML file each in ``benchmarks/protocols/``; a path to a file of the same schema works too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from zsad import config as cfg
from zsad import registry
from zsad.backbones.specs import spec
from zsad.errors import RequestError, unknown


@dataclass(frozen=True)
class ProtocolRow:
    """One row: a method under its own conditions and overrides.

    ``label``: "" where the row is the method itself, in the protocol's only configuration of it.
    Conditions, in place of the protocol's: ``backbone``, ``image_size`` (pixels), ``preset``,
    ``trained_on`` (for targets other than that dataset), ``train_part``, ``seeds``, ``checkpoint``
    (what ``METHOD.checkpoint`` takes).  What the user sets comes before a condition.
    ``overrides``: what the row is about; nothing comes before it.  ``boxes``: "none" for a row
    that asks no detector, "required" as for the protocol.
    """

    label: str = ""
    method: str = ""
    overrides: dict[str, Any] = field(default_factory=dict)
    backbone: str = ""
    image_size: int = 0
    preset: str = ""
    trained_on: str = ""
    train_part: Literal["", "test", "all"] = ""
    seeds: tuple[int, ...] = ()
    checkpoint: Any = ""
    boxes: Literal["", "required", "none"] = ""

    def __post_init__(self) -> None:
        if not self.method:
            raise ValueError("a row names its method")
        if self.image_size < 0 or (self.image_size and not self.backbone):
            raise ValueError(f"image_size {self.image_size}: give pixels, and the row's backbone")

    @property
    def slug(self) -> str:
        """The label as a part of a file name."""
        text = re.sub(r"[^a-z0-9]+", "-", self.label.lower().replace("+", " plus "))
        return text.strip("-") or "row"

    @property
    def stored(self) -> str:
        """The name under which its results are stored: the method's, or ``method@slug``."""
        return f"{self.method}@{self.slug}" if self.label else self.method

    @property
    def settings(self) -> dict[str, Any]:
        """Its conditions that are settings, as nested sections."""
        found: dict[str, Any] = {}
        if self.backbone:
            found["backbone"] = {"name": self.backbone, "image_size": self.image_size}
        if self.train_part:
            found["data"] = {"train_part": self.train_part}
        return found

    @property
    def conditions(self) -> dict[str, Any]:
        """Its conditions that are keys of the method: preset and checkpoint."""
        found = {"preset": self.preset, "checkpoint": self.checkpoint}
        return {key: value for key, value in found.items() if value}

    @property
    def switch(self) -> dict[str, Any]:
        """The keys of the method that the row is about."""
        return {**({"grounding": "none"} if self.boxes == "none" else {}), **self.overrides}

    @property
    def layer(self) -> dict[str, Any]:
        """Everything that it sets in the method's config."""
        preset = {"preset": self.preset} if self.preset else {}
        return {**preset, **self.switch}


@dataclass(frozen=True)
class AuxiliaryRule:
    """Training data of learned methods: ``default``, and ``overrides`` by target dataset."""

    default: str = "mvtec"
    overrides: dict[str, str] = field(default_factory=dict)

    def of(self, dataset: str) -> str:
        """The dataset that is trained on when ``dataset`` is the target."""
        return self.overrides.get(dataset, self.default)


@dataclass(frozen=True)
class Protocol:
    """A protocol as its YAML file describes it.

    ``methods`` and ``datasets``: names or groups; ``train_part``: the part of the auxiliary
    data that is trained on, always to the last epoch, so that nothing is chosen on the target.
    ``settings``: sections of :class:`zsad.config.Settings`.
    ``overrides``: ``{method: {key: value}}``.  ``rows``: a method under conditions of its own, or
    under several overrides, which stand in place of it; ``ablation``: the rows are compared with
    each other only, and have a table of their own.  ``boxes``: "required" where the paper's
    method has a detector's boxes: a method that asks for them must get them, or be told to do
    without.
    """

    name: str
    title: str
    datasets: tuple[str, ...]
    methods: tuple[str, ...]
    paper: str = ""
    tables: tuple[int, ...] = ()
    note: str = ""
    auxiliary: AuxiliaryRule = AuxiliaryRule()
    train_part: Literal["test", "all"] = "test"
    seeds: tuple[int, ...] = (0,)
    settings: dict[str, Any] = field(default_factory=dict)
    overrides: dict[str, Any] = field(default_factory=dict)
    rows: tuple[ProtocolRow, ...] = ()
    ablation: bool = False
    boxes: Literal["", "required"] = ""

    def __post_init__(self) -> None:
        if not self.datasets or not self.methods:
            raise ValueError("a protocol names at least one dataset and one method")
        names = [row.stored for row in self.rows]
        if len(set(names)) != len(names):
            raise ValueError("two rows of one method have the same label")
        if self.ablation and not self.rows:
            raise ValueError("ablation: true needs rows")


def load_protocol(name: str) -> Protocol:
    """A protocol by name or by path of a YAML file.

    ``settings.data.train_part`` always holds the protocol's ``train_part``.  Raises
    :class:`RequestError` that suggests the nearest name, or names the key that is wrong.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        return _build({"name": path.stem, **cfg.read_yaml(path)}, str(path))
    known = registry.yaml_names("protocols")
    if name not in known:
        raise unknown("protocol", name, known, "see `zsad list protocols`")
    return _bundled(name)


@cache
def _bundled(name: str) -> Protocol:
    path = registry.yaml_names("protocols")[name]
    protocol = _build(cfg.read_yaml(path), path.name)
    if protocol.name != name:
        raise RequestError(
            f"{path.name}: name '{protocol.name}' must equal the file's name '{name}'"
        )
    return protocol


def _build(values: Mapping[str, Any], origin: str) -> Protocol:
    listed = dict(values)
    for key in ("methods", "datasets"):
        if isinstance(listed.get(key), str):
            listed[key] = registry.expand(listed[key])
    settings = listed.get("settings") or {}
    if not isinstance(settings, Mapping):
        raise RequestError(f"{origin}: settings must be a group of keys")
    if isinstance(data := settings.get("data"), Mapping) and "train_part" in data:
        raise RequestError(f"{origin}: write train_part at the top, not in settings.data")
    cfg.build(cfg.Settings, settings, origin=origin, prefix="settings.")
    part = {"data": {"train_part": listed.get("train_part", "test")}}
    listed["settings"] = cfg.merge(settings, part)
    protocol = cfg.build(Protocol, listed, origin=origin)
    _check_methods(protocol, origin)
    return protocol


def _check_methods(protocol: Protocol, origin: str) -> None:
    """Raise :class:`RequestError` for overrides that address no method."""
    known = registry.methods()
    for name in (*protocol.overrides, *(row.method for row in protocol.rows)):
        if name not in known:
            raise unknown(f"method of {origin}", name, known)
    for row in protocol.rows:
        if row.backbone:
            try:
                spec(row.backbone)
            except RequestError as error:
                raise RequestError(f"{origin}, row of {row.method}: {error}") from None
        chosen = {e.name for e in registry.select_methods(protocol.methods)}
        if row.method not in chosen:
            raise RequestError(
                f"{origin}: row '{row.label}' is of {row.method}, which is not in methods"
            )

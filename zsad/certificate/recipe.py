"""What can be reproduced of a method: the file ``reproduce.yaml`` beside its ``config.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zsad import config as cfg
from zsad import registry
from zsad.errors import RequestError

FILE = "reproduce.yaml"


@dataclass(frozen=True)
class Roles:
    """The released files that a target wants: names of :mod:`zsad.checkpoints.released`."""

    checkpoint: str
    detector: str = ""


@dataclass(frozen=True)
class Slip:
    """What released code does in its own way: ``without``: the keys that undo it alone."""

    name: str
    says: str
    without: dict[str, Any]

    def __post_init__(self) -> None:
        if not self.without:
            raise ValueError(f"slip {self.name}: without names no key")


@dataclass(frozen=True)
class Recipe:
    """What to ask for and to compare with.

    ``where``: where the authors publish their files.  ``paper``, ``log``: names of sources in the
    published figures, "" for none.  ``agree``: the difference in points that still counts as
    agreement.  ``targets``: the files that each dataset wants, none where no file of the authors is
    known; then ``protocol`` names the datasets.  ``metrics``: settings ``metrics.*``.  ``kept``:
    keys of the preset ``released`` that no slip switches off, each with the reason.
    """

    where: str
    backbone: str
    paper: str
    log: str = ""
    agree: float = 0.1
    protocol: str = ""
    targets: dict[str, Roles] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    slips: tuple[Slip, ...] = ()
    kept: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if bool(self.targets) == bool(self.protocol):
            raise ValueError("give targets with their files, or the protocol whose datasets count")

    @property
    def detectors(self) -> bool:
        """Whether boxes of the authors' detectors belong to it."""
        return any(roles.detector for roles in self.targets.values())

    @property
    def kept_words(self) -> str:
        """What is not switched off and why, as a sentence; "" where everything is."""
        by_reason: dict[str, list[str]] = {}
        for key, why in self.kept.items():
            by_reason.setdefault(why, []).append(key)
        groups = "; ".join(f"{', '.join(keys)} ({why})" for why, keys in by_reason.items())
        return f"Not switched off: {groups}." if groups else ""


def names() -> list[str]:
    """The methods that have a recipe."""
    return [n for n, entry in registry.methods().items() if _place(entry).is_file()]


def load(method: str) -> tuple[registry.MethodEntry, Recipe]:
    """A method and its recipe.  Raises :class:`RequestError` where it has none."""
    entry = registry.method(method)
    place = _place(entry)
    if not place.is_file():
        raise RequestError(
            f"method {method} has no {FILE}, which says what can be reproduced; those that have "
            f"one: {', '.join(names())}"
        )
    values: Mapping[str, Any] = cfg.read_yaml(place)
    return entry, cfg.build(Recipe, values, origin=f"{method}/{FILE}")


def _place(entry: registry.MethodEntry) -> Path:
    return Path(entry.origin).with_name(FILE)

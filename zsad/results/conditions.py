"""When a measured figure may be called equal to a printed one, and in what it differs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from zsad import config as cfg
from zsad import registry
from zsad.config.method_config import shots_in_words
from zsad.errors import ZsadError
from zsad.registry import MethodEntry
from zsad.results import identity, weights
from zsad.results.published import Reference
from zsad.results.records import CellRecord

# Beginnings of the points that forbid to compare; all others are differences "in part".
SEVERE = (
    *("backbone", "only ", "not trained", "random", "demonstration", "unknown weights"),
    *("no boxes", "features of", "configuration train.", "trained on part"),
    *("a re-implementation", "a secondary note"),
)
RE_IMPLEMENTATION = "re-implementation"  # how a method's config.yaml calls such a preset


@dataclass(frozen=True)
class Match:
    """How far the conditions behind two figures agree, and the points in which they differ."""

    degree: Literal["yes", "partly", "no"]
    points: tuple[str, ...] = ()


def match(reference: Reference, record: CellRecord, metric: str) -> Match:
    """Compare a printed number's conditions with those of a record's ``metric``.

    Equal are they only if backbone, size, training, boxes, configuration, metric and the data's
    preparation agree, the method says of itself that it does not differ, and the number is a
    paper's (set beside the preset ``paper``, or a default that resolves to it) or an authors' log
    (set beside their released file).
    """
    info = record.info
    points = reference.differences(info, metric)
    points += weights.differences(info)
    points += [f"configuration {k}={v}" for k, v in identity.of_record(record).overrides]
    entry = registry.methods().get(record.method.split("@")[0])
    points += _of_kind(reference, info, trained=entry is None or entry.trained)
    if entry is not None:
        points += _of_preset(entry, reference, record)
        points += entry.differs
        if int(info.get("revision") or 1) != entry.revision:
            points.append(
                f"revision {info.get('revision') or 1} of the method, not the present one"
            )
    trained = info.get("trained_on")
    if isinstance(trained, Mapping) and trained.get("revision"):
        points.append(f"trained by revision {trained['revision']} of the method")
    if any(p.startswith(SEVERE) for p in points):
        return Match("no", tuple(points))
    return Match("partly" if points else "yes", tuple(points))


def _of_kind(reference: Reference, info: Mapping[str, Any], trained: bool) -> list[str]:
    """What kind of source forbids, or asks for; ``trained``: whether the method is."""
    state = info.get("trained_on")
    recognised = isinstance(state, Mapping) and state.get("recognised")
    if reference.kind == "re-implementation":
        return ["a re-implementation's figure, not the paper's"]
    if reference.kind == "secondary":
        return ["a secondary note's figure, not the paper's"]
    if reference.kind == "authors' log" and trained and not recognised:
        return ["the authors' log is of their released file, which this is not"]
    return []


def _of_preset(entry: MethodEntry, reference: Reference, record: CellRecord) -> list[str]:
    """The preset, where it resolves to another config than the one that the figure is of."""
    preset = str(record.info.get("preset") or "default")
    if RE_IMPLEMENTATION in entry.preset_titles.get(preset, ""):
        return [f"a {RE_IMPLEMENTATION}'s configuration, not the paper's"]
    if reference.kind == "authors' log":
        wanted = "released" if "released" in entry.presets else "default"
    elif identity.of_record(record).row_says and preset != "default":
        wanted = preset  # the protocol's row names it
    elif "paper" in entry.presets:
        wanted = "paper"
    else:
        return ["no preset of the method follows the paper's text"]
    if preset == wanted or _same(entry, preset, wanted):
        return []
    return [f"preset {preset}, not {wanted}"]


def _same(entry: MethodEntry, one: str, other: str) -> bool:
    """Whether two presets resolve to the same config."""
    try:
        found = [cfg.to_dict(entry.resolve(("preset", {"preset": p}))) for p in (one, other)]
    except ZsadError:  # a preset that is no longer there
        return False
    return {**found[0], "preset": ""} == {**found[1], "preset": ""}


def label_of(record: CellRecord) -> str:
    """The label under which the published numbers list a record's method."""
    info = record.info
    method, row = record.method.split("@")[0], record.method.partition("@")[2]
    if shots := int(info.get("shots") or 0):
        return record.method if row else f"{method}@{shots_in_words(shots)}"
    preset = str(info.get("preset") or "default")
    plain = preset in ("default", "paper", "released")
    return record.method if row or plain else f"{method}@{preset}"

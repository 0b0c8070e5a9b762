"""When a measured figure may be called equal to a printed one, and in what it differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from zsad import config as cfg
from zsad import registry
from zsad.config import MetricSettings
from zsad.config.method_config import shots_in_words
from zsad.data.catalog import list_specs, load_spec
from zsad.errors import ZsadError, categories, counted
from zsad.metrics.spec import METRICS
from zsad.protocols import load_protocol
from zsad.registry import MethodEntry, list_protocols
from zsad.results import identity, weights
from zsad.results.published import Reference
from zsad.results.records import CellRecord

# Beginnings of the points that forbid to compare; all others are differences "in part".
SEVERE = (
    *("backbone", "only ", "other images", "not trained", "random", "demonstration"),
    *("unknown weights", "no boxes", "features of", "configuration train.", "trained on part"),
    *("trained with", "a re-implementation", "a secondary note"),
)
# What records of one run say differently of every cell, and no condition is.
PER_CELL = ("method_info", "metric_bounds", "metric_per_image", "engine", "skipped")
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
    (set beside their released file).  Which images were measured on, :func:`of_images` compares.
    """
    info = record.info
    points = reference.differences(info, metric)
    points += _of_settings(reference, record, metric)
    points += weights.differences(info)
    points += [f"configuration {k}={v}" for k, v in identity.of_record(record).overrides]
    entry = registry.methods().get(record.method.split("@")[0])
    points += _of_kind(reference, info, trained=entry is None or entry.trained)
    points += _of_training(info) if entry is not None and entry.trained else []
    if entry is not None:
        points += _of_preset(entry, reference, record)
        points += entry.differs
        if int(info.get("revision") or 1) != entry.revision:
            points.append(
                f"revision {info.get('revision') or 1} of the method, not the present one"
            )
    return _verdict(points)


def matched(reference: Reference, records: Sequence[CellRecord], metric: str) -> Match:
    """The verdict on a figure over several records of one column and dataset: what any of them
    differs in, and what :func:`of_images` and :func:`of_seeds` say against all of them."""
    points: dict[str, None] = {}
    seen: list[dict[str, Any]] = []
    for record in records:
        told = {k: v for k, v in record.info.items() if k not in PER_CELL}
        if told not in seen:  # most records of a column say the same
            seen.append(told)
            points.update(dict.fromkeys(match(reference, record, metric).points))
    return _verdict([*points, *of_images(records), *of_seeds(reference, records)])


def of_seeds(reference: Reference, records: Sequence[CellRecord]) -> list[str]:
    """Whether a figure that was printed with its deviation over several runs is set beside one of
    fewer runs than its protocol has."""
    if reference.std is None or reference.protocol not in list_protocols():
        return []
    wanted, found = len(load_protocol(reference.protocol).seeds), len({r.seed for r in records})
    return [f"{counted(found, 'seed')}, not {wanted}"] * (found < wanted)


def _verdict(points: Sequence[str]) -> Match:
    if any(p.startswith(SEVERE) for p in points):
        return Match("no", tuple(points))
    return Match("partly" if points else "yes", tuple(points))


def of_images(records: Sequence[CellRecord]) -> list[str]:
    """In what the images behind records of one dataset are not those that its publisher counts.

    A limit is told elsewhere, and so are categories without a record.  Nothing is said of a
    dataset, or a preparation of it, whose counts no publisher states.
    """
    wrong: dict[str, str] = {}
    for record in records:
        known = _published_counts(record)
        found = (record.n_normal, record.n_anomalous)
        if known and found not in known and not record.info.get("limit"):
            fewer = all(n <= m for n, m in zip(found, known[0]))
            words = (
                "only {} of {} normal and {} of {} anomalous images"
                if fewer
                else ("other images: {} normal, not {}, and {} anomalous, not {}")
            )
            numbers = [n for pair in zip(found, known[0]) for n in pair]
            wrong[record.category] = words.format(*numbers)
    if len(wrong) < 2:
        return list(wrong.values())
    first = next(iter(wrong))
    return [f"other images than published in {categories(len(wrong))} ({first}: {wrong[first]})"]


def _published_counts(record: CellRecord) -> tuple[tuple[int, int], ...]:
    """The (normal, anomalous) test images that a record's category may have; () if not known."""
    if record.dataset not in list_specs():
        return ()
    spec = load_spec(record.dataset)
    name = str(record.info.get("variant") or spec.default_variant)
    variant = spec.find_variant(name)
    of = spec.categories.get(record.category)
    if variant is None or of is None or variant.certainty != "published":
        return ()
    if name == spec.default_variant and of.test is not None:
        return (of.test, *of.also)
    return (variant.test,) if len(spec.categories) == 1 and variant.test is not None else ()


def _of_settings(reference: Reference, record: CellRecord, metric: str) -> list[str]:
    """Settings of the run that are not those of the protocol that the figure is of."""
    info, points = record.info, []
    for key, wanted in reference.settings.items():
        found = info.get(key)
        if found and found != wanted:
            points.append(f"{key} {found}, not {wanted}")
    usual = MetricSettings().fpr_limit
    if "fpr_limit" in METRICS[metric].arguments and identity.limit_of(record) != usual:
        points.append(f"AUPRO up to {identity.limit_of(record):g}, not {usual:g}")
    return points


def _of_training(info: Mapping[str, Any]) -> list[str]:
    """What of a trained state is not known, or is not what its training set's name stands for."""
    held = info.get("trained_on")
    state = held if isinstance(held, Mapping) else {"dataset": held} if held else {}
    points: list[str] = []
    if info.get("untrained"):
        return points
    if not state.get("dataset"):
        points.append("what it was trained on is not known")
    if state.get("said_by"):
        points.append(f"what it was trained on is as {state['said_by']} says")
    if state.get("known_as"):
        points.append(f"the checkpoint is {state['known_as']}, which its authors do not evaluate")
    if state.get("revision"):
        points.append(f"trained by revision {state['revision']} of the method")
    images, (least, most) = int(state.get("images") or 0), _training_images(state)
    if images and most and not least <= images <= most:
        points.append(f"trained with {counted(images, 'image')}, not {most}")
    return points


def _training_images(state: Mapping[str, Any]) -> tuple[int, int]:
    """How many images the named part of a training set has at least and at most; (0, 0) where its
    publisher does not say."""
    name = str(state.get("dataset") or "")
    if name not in list_specs():
        return 0, 0
    spec = load_spec(name)
    variant = spec.find_variant(spec.default_variant)
    kept = spec.categories.values()
    if spec.training_split == "train" or variant is None or variant.certainty != "published":
        return 0, 0
    least = most = 0
    for of in kept:
        if of.test is None or (state.get("part") == "all" and of.train is None):
            return 0, 0
        train = sum(of.train) if state.get("part") == "all" and of.train else 0
        sizes = [sum(counts) + train for counts in (of.test, *of.also)]
        least, most = least + min(sizes), most + max(sizes)
    return least, most


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

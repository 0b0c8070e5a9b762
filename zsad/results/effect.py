"""Rows of an ablation whose switch changed nothing, found in what is stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zsad.results import identity
from zsad.results.records import CellRecord
from zsad.results.store import ResultStore, key_of

Place = tuple[str, str, int]  # dataset, category, seed
Rows = Mapping[str, Mapping[Place, CellRecord]]  # by label
Configs = Mapping[str, Mapping[str, Any]]  # by label, dotted keys


def without_effect(
    store: ResultStore, rows: Rows, meant: Configs | None = None
) -> list[tuple[str, str]]:
    """Pairs (row, earlier row) of one method that are to differ, and differ in no figure.

    Every metric of maps and images is equal to the last digit, and so is the score of every
    image, wherever both rows were measured on the same cells.  ``meant``: what the protocol sets
    in each row, before anything that the user changed for all of them; None: what records say.
    """
    pairs = []
    labels = list(rows)
    configs = meant or {label: _meant(row) for label, row in rows.items()}
    for i, label in enumerate(labels):
        for other in labels[:i]:
            if label.partition("@")[0] != other.partition("@")[0]:
                continue
            if _told_apart(configs.get(label, {}), configs.get(other, {})) and same(
                store, rows[label], rows[other]
            ):
                pairs.append((label, other))
                break  # one is enough to say it
    return pairs


def _meant(row: Mapping[Place, CellRecord]) -> Mapping[str, Any]:
    """What the protocol of a row's records sets in it; their own config where it is not there."""
    for record in row.values():
        return identity.row_config(record)
    return {}


def same(store: ResultStore, a: Mapping[Place, CellRecord], b: Mapping[Place, CellRecord]) -> bool:
    """Whether two rows hold the same cells with equal metrics and equal image scores."""
    if not a or a.keys() != b.keys():
        return False
    if any(a[place].metrics != b[place].metrics for place in a):
        return False
    for place in a:
        one, other = store.scores(key_of(a[place])), store.scores(key_of(b[place]))
        if one is None or other is None:
            return False
        if list(one["uid"]) != list(other["uid"]) or list(one["score"]) != list(other["score"]):
            return False
    return True


def _told_apart(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether two configs differ in more than the preset's name."""
    return {**a, "preset": ""} != {**b, "preset": ""}

"""Who is evaluated, trained on, and a reference: deterministic, balanced, disjoint."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.data.miniatures import write_miniature
from zsad.config.method_config import ALL_SHOTS
from zsad.data import splits
from zsad.data.index import load_index
from zsad.errors import RequestError
from zsad.types import Sample


def samples(normal: int, anomalous: int) -> list[Sample]:
    out = [Sample(f"n{i}.png", 0, "c", uid=f"n{i}") for i in range(normal)]
    return out + [
        Sample(f"a{i}.png", 1, "c", uid=f"a{i}", defect=f"d{i % 3}") for i in range(anomalous)
    ]


@pytest.mark.parametrize(
    "normal, anomalous, limit, expected",
    [
        (10, 10, 4, (2, 2)),
        (1, 10, 6, (1, 5)),
        (10, 1, 6, (5, 1)),
        (0, 9, 4, (0, 4)),
        (3, 3, 9, (3, 3)),
        (5, 5, 1, (0, 1)),
    ],
)
def test_limited_is_balanced_where_it_can(
    normal: int, anomalous: int, limit: int, expected: tuple[int, int]
) -> None:
    chosen = splits.limited(samples(normal, anomalous), limit)
    assert (sum(s.label == 0 for s in chosen), sum(s.label == 1 for s in chosen)) == expected


def test_limited_does_not_depend_on_the_listing_order() -> None:
    items = samples(20, 20)
    shuffled = items[:]
    random.Random(5).shuffle(shuffled)
    assert {s.uid for s in splits.limited(items, 8)} == {s.uid for s in splits.limited(shuffled, 8)}


def test_limited_sees_several_defect_types() -> None:
    defects = {s.defect for s in splits.limited(samples(30, 30), 16) if s.label}
    assert len(defects) > 1


def test_guard_refuses_shared_images_only() -> None:
    items = samples(2, 2)
    with pytest.raises(RequestError, match="trained on 1 of the images of 'mvtec'"):
        splits.guard(["n1", "other"], "mvtec", items, "mvtec")
    splits.guard(["other"], "mvtec", items, "mvtec")
    splits.guard(["n1"], "visa", items, "mvtec")


@pytest.mark.parametrize(
    "limit, total, categories, each",
    [(2, 8, 4, 2), (1, 4, 2, 1), (4, 16, 8, 2), (64, 256, 10, 26), (3, 0, 10, 3)],
)
def test_few_training_images_come_from_some_categories(
    limit: int, total: int, categories: int, each: int
) -> None:
    """Never fewer than two of a category while the limit allows; balanced labels."""
    index = load_index("synthetic")
    assert len(index.training_categories) == 10
    chosen = splits.by_category(splits.auxiliary(index, "test", limit, total))
    assert len(chosen) == categories
    assert {len(found) for found in chosen.values()} == {each}
    if each % 2 == 0:
        assert all(2 * sum(s.label for s in found) == each for found in chosen.values())


def test_some_categories_are_spread_evenly() -> None:
    index = load_index("synthetic")
    names = sorted(index.training_categories)
    chosen = splits.by_category(splits.auxiliary(index, "test", 2, 8))
    assert list(chosen) == [names[i] for i in (0, 2, 5, 7)]


def test_all_references_are_the_normal_training_images_whatever_the_seed(tmp_path: Path) -> None:
    write_miniature("dagm", tmp_path)  # its training part has defects, too
    index = load_index("dagm", tmp_path)
    found = {s: splits.references(index, "Class1", ALL_SHOTS, s) for s in (0, 1)}
    assert found[0] == found[1]
    assert {(s.split, s.label) for s in found[0]} == {("train", 0)}
    assert len(found[0]) == 2

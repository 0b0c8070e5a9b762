"""Cutting a plan: every cell in exactly one shard, categories whole, pieces that add up."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zsad.data.definition import CategorySpec, DatasetSpec, Layout, VariantSpec
from zsad.data.index import DatasetIndex
from zsad.results.records import CellKey
from zsad.runner.plan import DatasetPlan, Plan
from zsad.runner.ray.shards import MOST_IMAGES, PER_SLOT, Shard, shards
from zsad.runner.request import build_request
from zsad.types import Category, Sample

REQUEST = build_request(methods="clip,winclip", datasets="elpv", results=Path("results"))


def dataset(
    name: str, sizes: dict[str, int], columns: tuple[str, ...] = ("clip", "winclip")
) -> DatasetPlan:
    samples = {
        c: [Sample(f"{name}/{c}/{i}.png", i % 2, c, uid=f"{c}/{i}") for i in range(n)]
        for c, n in sizes.items()
    }
    index = DatasetIndex(
        DatasetSpec(
            name,
            name,
            {c: CategorySpec(c) for c in sizes},
            {"v": VariantSpec("v", (Layout("mvtec_like"),))},
            "v",
        ),
        [s for group in samples.values() for s in group],
        {c: Category(name, c, c) for c in sizes},
        "v",
        "f",
        None,
    )
    todo = {(m, 0, c): CellKey(m, name, c, 0, "f") for m in columns for c in sizes}
    return DatasetPlan(name, index, samples, todo)


def plan(*datasets: DatasetPlan) -> Plan:
    return Plan(REQUEST, "w", False, list(datasets))


@given(
    sizes=st.lists(
        st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 900), min_size=1),
        min_size=1,
        max_size=3,
    ),
    slots=st.integers(1, 40),
)
def test_every_cell_is_in_one_shard_and_shards_are_small(
    sizes: list[dict[str, int]], slots: int
) -> None:
    datasets = [dataset(f"d{i}", s) for i, s in enumerate(sizes)]
    found = shards(plan(*datasets), slots)
    keys = [key for shard in found for key in shard.plan.todo.values()]
    assert sorted(keys) == sorted(k for d in datasets for k in d.todo.values())
    total = sum(sum(s.values()) for s in sizes)
    goal = min(MOST_IMAGES, -(-total // (PER_SLOT * slots)))
    for shard in found:
        assert len(shard.plan.samples) == 1 or shard.images <= goal
        assert {s.category for s in shard.plan.index.samples} == set(shard.plan.samples)


def test_neighbours_share_a_shard_up_to_the_goal() -> None:
    sizes = {"a": 10, "b": 10, "c": 30, "d": 10, "e": 20}
    found = shards(plan(dataset("d", sizes)), slots=1)  # 80 images, four shards: 20 each
    assert [list(s.plan.samples) for s in found] == [["a", "b"], ["c"], ["d"], ["e"]]
    assert [s.name for s in found][:2] == ["d: a, b", "d: c"]


def test_stored_categories_are_left_out() -> None:
    whole = dataset("d", {"a": 10, "b": 10})
    whole.todo = {k: v for k, v in whole.todo.items() if k[2] == "b"}
    assert [list(s.plan.samples) for s in shards(plan(whole, dataset("e", {})), 1)] == [["b"]]


def test_a_shard_splits_into_categories_then_columns_then_no_more() -> None:
    shard = Shard(dataset("d", {"a": 2, "b": 3}))
    categories = shard.split()
    assert [s.name for s in categories] == ["d: a", "d: b"]
    columns = categories[0].split()
    assert [s.name for s in columns] == ["d: a (clip)", "d: a (winclip)"]
    assert columns[0].split() == [columns[0]]


@pytest.mark.parametrize("slots", [1, 7])
def test_nothing_to_do_is_no_shard(slots: int) -> None:
    empty = dataset("d", {"a": 3})
    empty.todo = {}
    assert shards(plan(empty), slots) == []

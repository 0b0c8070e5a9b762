"""Cuts a plan into shards: what one task of a sweep on several machines does.  No torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from zsad.runner.plan import DatasetPlan, Plan

PER_SLOT = 4  # shards for each task that runs at a time: late ones even out the early ones
MOST_IMAGES = 512  # per shard, so that a lost one costs little; a larger category stays whole


@dataclass(frozen=True)
class Shard:
    """Whole categories of one dataset, with the cells to do in them."""

    plan: DatasetPlan

    @property
    def name(self) -> str:
        """Dataset, categories, and (where there is one alone) the column."""
        labels = sorted({label for label, _, _ in self.plan.todo})
        parts = f"{self.plan.name}: {', '.join(self.plan.samples)}"
        return f"{parts} ({labels[0]})" if len(labels) == 1 else parts

    @property
    def images(self) -> int:
        return sum(map(len, self.plan.samples.values()))

    def split(self) -> list[Shard]:
        """The pieces to try alone when the whole fails: categories, then columns.

        A shard of one column of one category is its own only piece.
        """
        if len(self.plan.samples) > 1:
            return [_of(self.plan, [c]) for c in self.plan.samples]
        labels = dict.fromkeys(label for label, _, _ in self.plan.todo)
        return [
            Shard(replace(self.plan, todo={k: v for k, v in self.plan.todo.items() if k[0] == one}))
            for one in labels
        ]


def shards(plan: Plan, slots: int) -> list[Shard]:
    """Cut everything that is to do, for ``slots`` tasks at a time; order as in the plan.

    Categories stay whole, because their metrics are made in one pass (and some methods carry
    state from image to image), and a shard holds all columns, because they share the encoder's
    pass.
    """
    work = [(d, _open_categories(d)) for d in plan.datasets if d.todo]
    total = sum(len(d.samples[c]) for d, categories in work for c in categories)
    goal = min(MOST_IMAGES, -(-total // (PER_SLOT * max(1, slots))))
    return [
        _of(dataset, group)
        for dataset, categories in work
        for group in _groups(dataset, categories, goal)
    ]


def _open_categories(dataset: DatasetPlan) -> list[str]:
    to_do = {category for _, _, category in dataset.todo}
    return [c for c in dataset.samples if c in to_do]


def _groups(dataset: DatasetPlan, categories: Sequence[str], goal: int) -> Iterator[list[str]]:
    """Neighbouring categories of at most ``goal`` images together, or one larger one."""
    group: list[str] = []
    images = 0
    for category in categories:
        count = len(dataset.samples[category])
        if group and images + count > goal:
            yield group
            group, images = [], 0
        group.append(category)
        images += count
    if group:
        yield group


def _of(dataset: DatasetPlan, categories: Sequence[str]) -> Shard:
    """The shard of some categories; it carries no sample of another one."""
    chosen = set(categories)
    index = replace(
        dataset.index, samples=[s for s in dataset.index.samples if s.category in chosen]
    )
    return Shard(
        replace(
            dataset,
            index=index,
            samples={c: dataset.samples[c] for c in categories},
            todo={k: v for k, v in dataset.todo.items() if k[2] in chosen},
            stored={},
        )
    )

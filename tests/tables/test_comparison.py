"""Means over several datasets, set beside those that a paper prints."""

from __future__ import annotations

from pathlib import Path

from tests.tables.test_tables import md_rows, record
from zsad import tables
from zsad.data.catalog import load_spec, select_datasets
from zsad.results.group_means import GROUPS, members, title
from zsad.results.published import MEAN, Published
from zsad.results.store import ResultStore

METRICS = ("image_auroc", "image_ap", "pixel_auroc", "pixel_aupro_200")


def as_printed(store: ResultStore, *left_out: str) -> None:
    """FAPrompt's Table 1 as records: every category has its dataset's printed figures."""
    published = Published.load()
    for dataset in select_datasets("all"):
        values: dict[str, float | None] = {}
        for metric in METRICS if dataset not in left_out else ():
            name = metric.removesuffix("_200")  # what the paper prints is the approximation
            for r in published.lookup("faprompt", dataset, MEAN, metric=name, paper="FAPrompt"):
                values[metric] = r.value / 100
        for category, of in load_spec(dataset).categories.items():
            if of.group == "test" and values:
                more = {"title": "FAPrompt", "group": "papers", "protocol": "faprompt"}
                store.put(record("faprompt", dataset, category, metrics=values, **more))


def test_means_leave_out_the_dataset_with_another_training_set(tmp_path: Path) -> None:
    """FAPrompt's Tables 3 and 4: over the industrial datasets without MVTec AD, and the medical
    ones; made of the figures of its Table 1, they are those that the paper prints."""
    store = ResultStore(tmp_path)
    as_printed(store)
    lines = [s for s in tables.render(store.root, published=True).splitlines() if "–" not in s]
    for name, expected in (
        ("industrial_mean", [("(88.2, 87.2)", "+0.0"), ("(95.0, 85.0)", "+0.0")]),
        ("medical_mean", [("(90.9, 93.0)", "+0.0"), ("(85.4, 65.9)", "-0.1")]),  # of rounded ones
    ):
        assert "mvtec" not in members(name, "faprompt")
        rows = [r for s in lines for h, r in md_rows(s).items() if h == title(name)]
        assert [p.rstrip("≠≈") for _, p, _ in rows[:2]] == [p for p, _ in expected]
        assert [d for _, _, d in rows[:2]] == [f"(+0.0, {d})" for _, d in expected]


def test_a_mean_that_lacks_a_dataset_is_not_shown(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    as_printed(store, *(members(name, "faprompt", "image")[-1] for name in GROUPS))
    rows = md_rows(tables.render(store.root, published=True))
    assert not {title(name) for name in GROUPS} & set(rows)

"""The few-shot protocol on small data: its table, its means, and what its methods share."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import pytest

import zsad
from tests.runner.conftest import DEFINITION, SIZE, write_dataset
from zsad import registry, tables
from zsad.components import memory_bank
from zsad.data import splits
from zsad.data.index import load_index
from zsad.methods.patchcore import method as patchcore
from zsad.tables.model import Page

SEEDS = (0, 1)
OVERRIDES = [f"backbone.image_size={SIZE}", "metrics.mode=exact"]


def define(folder: Path, name: str) -> str:
    """A dataset of one category with four normal training images."""
    root = write_dataset(folder / name, ("bolt",))
    path = folder / f"{name}.yaml"
    path.write_text(
        DEFINITION.format(name=name, root=root).replace(
            "  cloth: {prompt: cloth, kind: texture}\n", ""
        )
    )
    return str(path)


@pytest.fixture(scope="module")
def run(
    weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Page, list[int]]:
    """The protocol's document, its page of tables, and the sizes of the banks that were made."""
    folder = tmp_path_factory.mktemp("few-shot")
    made: list[int] = []

    class Counted(memory_bank.MemoryBank):
        def __init__(self, features: Any) -> None:
            super().__init__(features)
            made.append(len(self))

    assert patchcore.MemoryBank is memory_bank.MemoryBank  # its own banks are not counted
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory_bank, "MemoryBank", Counted)
        document = zsad.bench(
            protocol="alfa-few-shot",
            datasets=[define(folder, "first"), define(folder, "second")],
            backbone="file",
            weights=weights,
            results=folder / "results",
            seeds=SEEDS,
            device="cpu",
            overrides=OVERRIDES,
        )
    pages = {p.name.rpartition("/")[2]: p for p in tables.pages(folder / "results")}
    return document, pages["few-shot"], made


def test_the_page_has_the_layout_of_the_papers_tables(
    run: tuple[dict[str, Any], Page, list[int]],
) -> None:
    document, page, _ = run
    assert not document["failed"]
    assert [t.title for t in page.tables] == ["Image level", "Pixel level"]
    image, pixel = page.tables
    assert (image.corner, image.heads) == ("setup", ("method", *("AUROC", "AP", "F1-max") * 2))
    assert pixel.heads == ("method", *("AUROC", "AUPRO", "F1-max") * 2)
    assert [n for _, n in image.groups] == [1, 3, 3]
    for table in page.tables:
        lines = [(line.label, line.cells[0][0].text) for line in table.lines]
        assert lines == [
            (f"{k}-shot", name) for k in (1, 2, 4) for name in ("PatchCore", "WinCLIP", "ALFA")
        ]
        assert [i for i, line in enumerate(table.lines) if line.rule] == [3, 6]


def test_figures_are_means_and_deviations_over_the_seeds(
    run: tuple[dict[str, Any], Page, list[int]],
) -> None:
    document, page, _ = run
    data = {
        (d["row"], d["method"], d["dataset"], d["metric"]): d for t in page.tables for d in t.data
    }
    assert len(data) == 9 * 2 * 6
    spread = 0
    for (setup, title, dataset, metric), found in data.items():
        values = [
            c["metrics"][metric]
            for c in document["cells"]
            if c["method"] == f"{title.lower()}@{setup}" and c["dataset"] == dataset
        ]
        assert len(values) == len(SEEDS)
        assert found["value"] == pytest.approx(100 * statistics.mean(values), abs=1e-3)
        if len(set(values)) > 1:
            spread += 1
            assert found["deviation"] == pytest.approx(100 * statistics.stdev(values), abs=1e-3)
        else:
            assert found["deviation"] is None
    assert spread > len(data) / 4  # the seed draws other references
    best = {line.label: 0 for line in page.tables[1].lines}
    for line in page.tables[1].lines:
        best[line.label] += sum(span.rank == 1 for cell in line.cells for span in cell)
    assert all(count >= 6 for count in best.values())  # a best one per column, for every setup


def test_alfa_and_winclip_share_their_memory(
    run: tuple[dict[str, Any], Page, list[int]],
) -> None:
    """For every draw of references one bank each of patch tokens and of two window sizes."""
    document, _, made = run
    draws = {
        (dataset, *(s.uid for s in splits.references(load_index(dataset), "bolt", shots, seed)))
        for dataset in {c["dataset"] for c in document["cells"]}
        for shots in (1, 2, 4)
        for seed in SEEDS
    }
    assert len(draws) > 3 * 2
    side = SIZE // 14
    sizes = [(side - k + 1) ** 2 * (len(draw) - 1) for draw in draws for k in (1, 2, 3)]
    assert sorted(made) == sorted(sizes)


def test_references_may_be_drawn_with_replacement(tmp_path: Path) -> None:
    """As scripts do: the same image may come twice, and the first ones are those of fewer shots."""
    index = load_index(define(tmp_path, "again"))
    pool = {s.uid for s in index.samples if s.split == "train" and s.category == "bolt"}

    def drawn(shots: int, seed: int) -> list[str]:
        found = splits.references(index, "bolt", shots, seed, replacement=True)
        return [s.uid for s in found]

    many = drawn(50, 0)  # more than there are
    assert set(many) == pool
    assert many[:4] == drawn(4, 0)
    assert many != drawn(50, 1)
    assert any(len(set(drawn(4, seed))) < 4 for seed in range(20))
    for method, preset in (("winclip", "released"), ("aprilgan", "released-few-shot")):
        config = registry.method(method).resolve(("test", {"preset": preset}))
        assert config.references == "replacement"
        assert registry.method(method).resolve().references == "distinct"

"""``data.skip_broken``: the rest of a category is scored, marked, neither ranked nor compared."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.hostile import TEXTS
from zsad.cli.bench import print_summary
from zsad.report.page_data import collect
from zsad.results.aggregate import PARTIAL, Figure, ranks
from zsad.results.store import ResultStore
from zsad.tables import pages

Bench = Callable[..., dict[str, Any]]
SKIP = ["data.skip_broken=true"]


def break_one(definition: Path, *names: str) -> None:
    for name in names or ("cloth/test/good/001.png",):
        (definition.parent / "things" / name).write_bytes(b"not a picture")


def cell(document: dict[str, Any], method: str, category: str) -> dict[str, Any]:
    (found,) = (c for c in document["cells"] if (c["method"], c["category"]) == (method, category))
    return dict(found)


@pytest.mark.parametrize(
    ("broken", "normal", "anomalous"),
    [("test/good/001.png", 3, 4), ("ground_truth/spot/002_mask.png", 4, 3)],
)
def test_the_rest_is_scored_and_what_is_left_out_is_named(
    broken: str, normal: int, anomalous: int, bench: Bench, definition: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    break_one(definition, f"cloth/{broken}")
    without = bench("clip,musc")
    assert {f["cell"]["category"] for f in without["failed"]} == {"cloth"}
    found = bench("clip,musc", overrides=SKIP)
    assert found["failed"] == []
    for method in ("clip", "musc"):
        made = cell(found, method, "cloth")
        assert (made["n_normal"], made["n_anomalous"]) == (normal, anomalous)
        assert len(made["skipped"]) == 1
        assert broken in made["skipped"][0]
        assert "skipped" not in cell(found, method, "bolt")
        # What has nothing broken is the same figure.
        whole = cell(without, method, "bolt")
        assert cell(found, method, "bolt")["metrics"] == pytest.approx(whole["metrics"])
    print_summary(found)
    out, err = capsys.readouterr()
    assert f"{PARTIAL} scored without 1 of the images" in out
    assert broken in err


def test_it_is_marked_and_never_ranked_or_compared(
    bench: Bench, definition: Path, tmp_path: Path
) -> None:
    break_one(definition)
    bench("clip,musc,winclip", overrides=SKIP)
    store = ResultStore(tmp_path / "results")
    made = pages(store.root, published=True, significance=True)
    (page,) = (p for p in made if p.name.endswith(definition.stem))
    ranked = 0
    for table in page.tables:
        assert not table.name.startswith("significance") or all(
            entry["count"] == 1 for entry in table.data
        )
        for line in table.lines:
            whole = line.label == "bolt"
            spans = [s for c in line.cells for s in c]
            ranked += whole and any(s.rank for s in spans)
            if line.label in ("cloth", "mean of 2") and not table.name.startswith("significance"):
                assert not any(s.rank for s in spans)
                assert any(PARTIAL in s.text for s in spans)
            elif whole:
                assert not any(PARTIAL in s.text for s in spans)
    assert ranked
    assert any(note.startswith(f"{PARTIAL} scored without") for note in page.notes)
    (board,) = collect(store, 0)["boards"]
    assert board["means"]
    assert not any(mean["place"] for mean in board["means"])
    json.dumps(board)


def test_nothing_left_is_a_failure(bench: Bench, definition: Path) -> None:
    names = [f"cloth/test/{kind}/{i:03}.png" for kind in ("good", "spot") for i in range(4)]
    break_one(definition, *names)
    found = bench("clip", overrides=SKIP)
    assert [f["cell"]["category"] for f in found["failed"]] == ["cloth"]
    assert "cloth/test/" in found["failed"][0]["error"]


def test_a_marked_figure_does_not_compete() -> None:
    figures = [Figure(0.9, partial=True), Figure(0.8), Figure(0.7)]
    assert ranks(figures, [True] * 3) == [0, 1, 2]
    assert figures[0].text == f"90.0{PARTIAL}"


@pytest.mark.parametrize("name", ["not UTF-8", "terminal codes", "rich markup", "a formula"])
def test_a_file_of_any_name_costs_nothing(name: str, bench: Bench, definition: Path) -> None:
    folder = definition.parent / "things" / "cloth" / "test" / "good"
    (folder / "000.png").rename(folder / f"{TEXTS[name]}.png")
    found = bench("clip")
    assert found["failed"] == []
    assert cell(found, "clip", "cloth")["n_normal"] == 4

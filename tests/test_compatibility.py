"""What commit c8305d8 left on a user's disk is read, resumed and tabled by today's code.

The results folder in ``tests/fixtures/c8305d8`` was made by the code of that commit; its README
says how.  Every test works on a copy.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import zsad
from zsad.cli.main import main

FIXTURE = Path(__file__).resolve().parent / "fixtures" / "c8305d8"
TRAINING = (
    "faprompt.train.epochs=1",
    "faprompt.deep.depth=2",
    "faprompt.cap.n_prompts=2",
    "faprompt.dap.hidden=2",
)
ALL_CELLS = 12  # three methods, two categories, two seeds


@pytest.fixture
def stored(tmp_path: Path, texts_of_c8305d8: None) -> Path:
    """The folder, under the texts of that time: they are part of what a cell depends on."""
    return Path(shutil.copytree(FIXTURE / "stored", tmp_path / "results"))


def bench(results: Path, *overrides: str, **changed: Any) -> dict[str, Any]:
    """The request that filled the fixture, with what is ``changed``."""
    options: dict[str, Any] = {
        "datasets": str(FIXTURE / "pair.yaml"),
        "backbone": "zsad-tiny",
        "device": "cpu",
        "seeds": "0,1",
        "limit": 6,
        "results": results,
        "offline": True,
    }
    methods = changed.pop("methods", "winclip,alfa,faprompt")
    return zsad.bench(methods, **{**options, **changed}, overrides=[*TRAINING, *overrides])


def bench_one(results: Path, method: str, *overrides: str) -> dict[str, Any]:
    """The request of the one-category dataset."""
    return zsad.bench(
        method,
        str(FIXTURE / "one.yaml"),
        backbone="zsad-tiny",
        device="cpu",
        limit=1,
        results=results,
        offline=True,
        overrides=list(overrides),
    )


def contents(results: Path) -> dict[str, bytes]:
    """All that was computed: records, scores, checkpoints and example pictures."""
    return {
        path.relative_to(results).as_posix(): path.read_bytes()
        for part in ("cells", "scores", "checkpoints", "examples")
        for path in sorted((results / part).rglob("*"))
        if path.is_file()
    }


def figures(path: Path) -> dict[tuple[str, ...], dict[str, str]]:
    """The lines of a CSV table by page, table, row, method and metric."""
    names = ("page", "table", "row", "method", "metric")
    with path.open(encoding="utf-8", newline="") as file:
        return {tuple(line[n] for n in names): line for line in csv.DictReader(file)}


def test_the_fixture_stays_small() -> None:
    assert sum(p.stat().st_size for p in FIXTURE.rglob("*") if p.is_file()) <= 300_000


def test_the_same_request_computes_nothing(stored: Path) -> None:
    before = contents(stored)
    document = bench(stored)
    assert document["failed"] == []
    assert document["counters"].get("cells_run", 0) == 0
    assert document["counters"].get("images", 0) == 0
    assert document["counters"].get("image_forwards", 0) == 0
    assert len(document["cells"]) == ALL_CELLS
    assert contents(stored) == before  # no record, no fingerprint, no checkpoint has changed


def test_with_today_s_texts_alfa_is_computed_again_and_nothing_else(tmp_path: Path) -> None:
    results = Path(shutil.copytree(FIXTURE / "stored", tmp_path / "results"))
    plan = bench(results, dry_run=True)
    assert {cell["method"] for cell in plan["cells"] if not cell["stored"]} == {"alfa"}
    assert plan["to_run"] == 4


def test_the_cells_of_the_document_are_those_on_disk(stored: Path) -> None:
    for cell in bench(stored)["cells"]:
        names = (cell["method"], cell["dataset"], str(cell["seed"]), f"{cell['category']}.json")
        record = json.loads(stored.joinpath("cells", *names).read_text(encoding="utf-8"))
        assert record["metrics"].items() <= cell["metrics"].items()


def test_tables_hold_the_same_figures(
    stored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tables", "--results", str(stored), "--format", "csv"]) == 0
    assert "9 normal reference images are needed" in capsys.readouterr().out  # the failed cell
    for name in ("overview.csv", "generated-pair.csv"):
        then = figures(FIXTURE / "tables" / name)
        now = figures(stored / "tables" / "zsad-tiny" / name)
        assert len(then) > 20
        for key, line in then.items():
            assert key in now, key
            assert line.items() <= now[key].items(), key


def test_the_report_shows_the_same_figures(stored: Path) -> None:
    assert main(["report", "--results", str(stored)]) == 0
    page = (stored / "report" / "index.html").read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert found is not None
    data = json.loads(found.group(1))
    (board,) = data["boards"]
    shown = {(m["row"], m["method"], m["metric"]): m["value"] for m in board["means"]}
    for (_, _, row, method, metric), line in figures(FIXTURE / "tables" / "overview.csv").items():
        # the page leaves out what is undefined, and rounds as the tables do
        if line["value"] and (row, method, metric) in shown:
            assert shown[row, method, metric] == pytest.approx(float(line["value"]), abs=1e-3)
            shown.pop((row, method, metric))
    # What was set aside is a column of its own today.
    assert {method for _, method, _ in shown} == {"winclip [temperature=0.1]"}
    assert len(data["pictures"]) > 0  # those of the one example file that was kept


@pytest.mark.parametrize(
    ("changed", "again"),
    [
        ({"limit": 4}, ALL_CELLS),
        ({"seeds": "0,2"}, 6),
        ({"overrides": ["winclip.sigma=2"]}, 4),
        ({"overrides": ["alfa.context.top_m=4"]}, 4),
        ({"overrides": ["faprompt.post.sigma=4"]}, 4),
        ({"overrides": ["faprompt.train.lr=0.01"]}, 4),
        ({"overrides": ["metrics.fpr_limit=0.1"]}, ALL_CELLS),
        ({"overrides": ["data.mask_resize=nearest"]}, ALL_CELLS),
        ({"overrides": ["backbone.precision=bf16"]}, ALL_CELLS),
        ({"overrides": ["run.batch_size=2"]}, 0),  # changes no figure
        ({}, 0),
    ],
    ids=lambda value: str(value).replace(" ", ""),
)
def test_one_changed_value_is_computed_again(
    stored: Path, changed: dict[str, Any], again: int
) -> None:
    options = dict(changed)
    plan = bench(stored, *options.pop("overrides", ()), **options, dry_run=True)
    assert plan["to_run"] == again
    assert sum(not cell["stored"] for cell in plan["cells"]) == again


def test_what_only_inference_reads_trains_nothing_again(stored: Path) -> None:
    before = contents(stored)
    document = bench(stored, "faprompt.post.sigma=4", methods="faprompt", seeds="0")
    assert document["failed"] == []
    assert document["counters"]["cells_run"] == 2
    now = contents(stored)
    assert {n for n in now if n.startswith("checkpoints")} == {
        n for n in before if n.startswith("checkpoints")
    }
    old = "cells/faprompt/generated-pair/0/zipper"
    held = json.loads(before[f"{old}.json"])
    assert now[f"{old}@{held['fingerprint']}.json"] == before[f"{old}.json"]  # set aside, whole
    assert json.loads(now[f"{old}.json"])["fingerprint"] != held["fingerprint"]


def test_computed_again_the_figures_are_the_same(stored: Path) -> None:
    """The stored checkpoints give the stored figures: nothing is trained again.

    Tolerance: other processors and versions of torch round otherwise.
    """
    before = contents(stored)
    then = {(c["method"], c["category"], c["seed"]): c["metrics"] for c in bench(stored)["cells"]}
    document = bench(stored, fresh=True)
    assert document["failed"] == []
    assert document["counters"]["cells_run"] == ALL_CELLS
    for cell in document["cells"]:
        for name, value in then[cell["method"], cell["category"], cell["seed"]].items():
            assert cell["metrics"][name] == pytest.approx(value, abs=2e-3), (cell["method"], name)
    now = contents(stored)
    for name, content in before.items():
        if name.startswith("checkpoints"):
            assert now[name] == content


def test_a_cell_set_aside_is_found_again(stored: Path) -> None:
    folder = stored / "cells" / "winclip" / "generated-one" / "0"
    (aside,) = folder.glob("wood@*.json")
    wanted = json.loads(aside.read_text(encoding="utf-8"))
    document = bench_one(stored, "winclip", "winclip.temperature=0.1")
    assert document["counters"].get("images", 0) == 0
    (cell,) = document["cells"]
    assert cell["metrics"]["pixel_auroc"] == wanted["metrics"]["pixel_auroc"]
    assert cell["undefined"]["image_auroc"] == wanted["undefined"]["image_auroc"]
    newest = json.loads((folder / "wood.json").read_text(encoding="utf-8"))
    assert newest["fingerprint"] == wanted["fingerprint"]


def test_a_failed_cell_is_tried_again_and_says_the_same(stored: Path) -> None:
    path = stored / "failures" / "alfa" / "generated-one" / "0" / "wood.json"
    then = json.loads(path.read_text(encoding="utf-8"))
    document = bench_one(stored, "alfa", "alfa.shots=9")
    (failure,) = document["failed"]
    assert failure["error"] == then["error"]
    assert json.loads(path.read_text(encoding="utf-8"))["fingerprint"] == then["fingerprint"]

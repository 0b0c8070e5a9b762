"""Rows of a protocol with conditions of their own: what each runs, and what they share."""

from __future__ import annotations

import itertools
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

import zsad
from tests.runner.conftest import SIZE, write_dataset
from zsad import config as cfg
from zsad import registry
from zsad.backbones.specs import spec
from zsad.errors import RequestError
from zsad.results.published import Published
from zsad.results.store import ResultStore
from zsad.runner.given import auxiliary_name
from zsad.runner.request import Request, build_request

ROWS = """
title: mine
datasets: [headct]
methods: [clip, winclip, coop, patchcore]
auxiliary: {default: mvtec}
train_part: all
seeds: [0, 1]
settings: {backbone: {name: vit-l-14-336}}
overrides: {coop: {n_ctx: 2}}
rows:
  - {method: winclip, backbone: vit-b-16-plus-240, preset: released}
  - {label: small, method: winclip, backbone: vit-l-14-336, image_size: 224}
  - {method: coop, train_part: test, trained_on: visa, seeds: [5]}
  - {label: long, method: coop, overrides: {n_ctx: 8}}
  - {label: 1-shot, method: patchcore, seeds: [7], overrides: {shots: 1}}
"""


def asked(tmp_path: Path, **options: Any) -> Request:
    path = tmp_path / "mine.yaml"
    path.write_text(ROWS)
    return build_request(protocol=str(path), **options)


def test_a_row_has_conditions_of_its_own(tmp_path: Path) -> None:
    request = asked(tmp_path)
    columns = {c.label: c for c in request.columns}
    assert list(columns) == ["clip", "winclip", "winclip@small", "coop", "coop@long", *(
        ["patchcore@1-shot"]
    )]  # fmt: skip
    assert columns["winclip"].title == "WinCLIP"  # a row without a label is the method itself
    backbones = {n: request.settings_of(c).backbone for n, c in columns.items()}
    assert backbones["winclip"].name == "vit-b-16-plus-240"
    assert (backbones["winclip@small"].name, backbones["winclip@small"].image_size) == (
        ("vit-l-14-336", 224)
    )
    assert columns["winclip"].config.preset == "released"
    assert request.settings_of(columns["coop"]).data.train_part == "test"
    assert request.settings_of(columns["coop@long"]).data.train_part == "all"
    assert auxiliary_name(request, "headct", columns["coop"]) == "visa"
    assert auxiliary_name(request, "visa", columns["coop"]) == "mvtec"  # never the target
    assert auxiliary_name(request, "headct", columns["coop@long"]) == "mvtec"
    assert request.seeds_of(columns["coop"]) == (5,)
    assert request.seeds_of(columns["coop@long"]) == (0, 1)


def test_rows_of_one_backbone_are_one_part(tmp_path: Path) -> None:
    """One load of it, and, at one image size, one pass: a row of another size shares the load."""
    one, other = asked(tmp_path).parts()
    assert [c.label for c in one.columns] == [
        *("clip", "winclip@small", "coop", "coop@long", "patchcore@1-shot")
    ]
    assert (one.settings.backbone.name, one.settings.backbone.image_size) == ("vit-l-14-336", 0)
    assert [c.label for c in other.columns] == ["winclip"]
    assert other.settings.backbone.name == "vit-b-16-plus-240"
    assert len(asked(tmp_path, methods="clip,coop").parts()) == 1


def test_what_the_user_sets_comes_before_a_rows_conditions(tmp_path: Path) -> None:
    """Not before its switch, which is what the row is about."""
    request = asked(
        tmp_path,
        backbone="zsad-tiny",
        seeds="3",
        trained_on="btad",
        overrides=["winclip.preset=default", "coop.n_ctx=3", "data.train_part=all"],
    )
    columns = {c.label: c for c in request.columns}
    assert {request.settings_of(c).backbone.name for c in request.columns} == {"zsad-tiny"}
    assert request.settings_of(columns["winclip@small"]).backbone.image_size == 0
    assert columns["winclip"].config.preset == "default"
    assert (columns["coop"].config.n_ctx, columns["coop@long"].config.n_ctx) == (3, 8)
    assert request.settings_of(columns["coop"]).data.train_part == "all"
    assert {request.seeds_of(c) for c in request.columns} == {(3,)}
    assert auxiliary_name(request, "headct", columns["coop"]) == "btad"


def test_rows_are_chosen_by_their_labels(tmp_path: Path) -> None:
    def chosen(rows: str) -> list[str]:
        return [c.label for c in asked(tmp_path, rows=rows).columns]

    assert chosen("small,1-*") == ["winclip@small", "patchcore@1-shot"]
    assert chosen("WinCLIP,coop") == ["winclip", "coop"]  # without a label: by the method's name
    with pytest.raises(RequestError, match=r"unknown row 'smal' \(did you mean 'small'"):
        chosen("smal")


def test_one_weight_file_for_several_backbones_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"--weights clip.pt: the rows of this run have several"):
        asked(tmp_path, weights="clip.pt")
    asked(tmp_path, weights="clip.pt", methods="clip")
    asked(tmp_path, weights="random")


def test_a_run_of_two_sizes_trains_each_row_as_it_says(
    definition: Path, weights: Path, tmp_path: Path
) -> None:
    """Records hold each row's size, part and seed; the dry run says them before."""
    train = tmp_path / "train.yaml"
    root = write_dataset(tmp_path / "others", seed=9)
    train.write_text(definition.read_text().replace(definition.stem, "train"))
    train.write_text(train.read_text().replace(str(tmp_path / "things"), str(root)))
    protocol = tmp_path / "rows.yaml"
    protocol.write_text(
        f"{{title: rows, datasets: [{definition}], methods: [clip, coop], train_part: all, "
        f"settings: {{backbone: {{name: file}}}}, seeds: [0], rows: ["
        f"{{method: clip, backbone: file, image_size: {SIZE // 2}}}, "
        f"{{label: part, method: coop, train_part: test, seeds: [4]}}, "
        f"{{label: whole, method: coop}}]}}"
    )
    quick = ["coop.n_ctx=2", "coop.train.epochs=1", "coop.train.batch_size=8"]
    run: dict[str, Any] = {
        "protocol": str(protocol),
        "weights": weights,
        "results": tmp_path / "results",
        "device": "cpu",
        "trained_on": str(train),
        "overrides": [*quick, "coop.train.warmup_epochs=0"],
    }
    words = {r["method"]: r["words"] for r in zsad.bench(**run, dry_run=True)["rows"]}
    assert f"file at {SIZE // 2} px" in words["clip"]
    assert "(test part, 16 images)" in words["coop@part"]
    assert "(all part, 24 images)" in words["coop@whole"]
    document = zsad.bench(**run)
    assert not document["failed"]
    found = {(r.method, r.seed): r.info for r in ResultStore(tmp_path / "results").records()}
    assert set(found) == {("clip", 0), ("coop@part", 4), ("coop@whole", 0)}
    assert found["clip", 0]["image_size"] == SIZE // 2
    assert found["coop@part", 4]["trained_on"]["part"] == "test"
    assert found["coop@whole", 0]["trained_on"]["part"] == "all"
    assert document["counters"]["cells_run"] == 6
    (run_of,) = ResultStore(tmp_path / "results").manifest()["runs"]
    assert run_of["rows"]["coop@part"] == {"train_part": "test", "seeds": [4]}
    assert not zsad.bench(**run, dry_run=True)["to_run"]


PAPERS = ("FiLo", "FAPrompt", "ALFA", "KAnoCLIP")


def test_rows_that_a_paper_prints_with_equal_figures_are_one_experiment() -> None:
    """The last row of FiLo's Table 3 is the first of Table 4, FAPrompt's base is AnomalyCLIP."""
    printed: dict[tuple[str, str, str], dict[tuple[str, ...], float]] = defaultdict(dict)
    for r in Published.load().references:
        if r.paper in PAPERS and r.methods:
            row = r.paper, r.protocol, r.method
            printed[row][r.dataset, r.category, r.metric, str(r.shots)] = r.value
    ran: dict[tuple[str, str], tuple[Any, ...]] = {}
    for protocol in {protocol for _, protocol, _ in printed} & set(
        registry.yaml_names("protocols")
    ):
        request = build_request(protocol=protocol)
        for column in request.columns:
            settings = request.settings_of(column)
            size = settings.backbone.image_size or spec(settings.backbone.name).image_size
            config = {**cfg.to_dict(column.config), "preset": ""}
            part = settings.data.train_part * column.entry.trained
            ran[protocol, column.label] = (column.entry.name, config, settings.backbone.name,
                                           size, part)  # fmt: skip
    equal, apart = 0, []
    for (one, figures), (other, others) in itertools.combinations(printed.items(), 2):
        shared = figures.keys() & others.keys()
        if one[0] != other[0] or len(shared) < 2 or any(figures[k] != others[k] for k in shared):
            continue
        if one[1:] in ran and other[1:] in ran:  # few-shot rows of tables carry shots in names
            equal += 1
            if ran[one[1:]] != ran[other[1:]]:
                apart.append({one[2], other[2]})
    assert equal >= 8
    # Table 12 is "of FiLo", and its first row has the figures of AnomalyCLIP-: what is described.
    assert apart == [{"anomalyclip@no-learned-text-tokens", "filo@t12-coop-without-class-name"}]

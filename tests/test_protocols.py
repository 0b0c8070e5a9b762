"""Protocols: what the bundled ones say, and what is wrong with a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest

from zsad import config as cfg
from zsad import registry
from zsad.backbones.specs import spec
from zsad.data.catalog import GROUPS, group_members, load_spec, select_datasets
from zsad.errors import RequestError
from zsad.protocols import ProtocolRow, load_protocol

BUNDLED = registry.list_protocols()
PAPERS = ("faprompt", "filo", "kanoclip", "alfa", "alfa-few-shot")


def test_the_papers_protocols_are_there():
    assert {"default", *PAPERS} <= set(BUNDLED)


@pytest.mark.parametrize("name", BUNDLED)
def test_every_name_in_a_protocol_exists(name):
    protocol = load_protocol(name)
    datasets = select_datasets(protocol.datasets)
    methods = {e.name for e in registry.select_methods(protocol.methods)}
    assert {row.method for row in protocol.rows} <= methods
    for dataset in datasets:
        assert load_spec(protocol.auxiliary.of(dataset)).name != dataset
    for dataset, variant in protocol.settings["data"].get("variants", {}).items():
        assert load_spec(dataset).variant(variant)


@pytest.mark.parametrize("name", BUNDLED)
def test_every_override_fits_its_method(name):
    """Each row resolves against the method's schema; a wrong key would raise."""
    protocol = load_protocol(name)
    for row in protocol.rows:
        registry.method(row.method).resolve((name, row.layer))
    for method, values in protocol.overrides.items():
        registry.method(method).resolve((name, values))


def test_faprompt_is_the_whole_of_the_papers_tables():
    protocol = load_protocol("faprompt")
    assert select_datasets(protocol.datasets) == list(group_members("all"))
    assert len(select_datasets(protocol.datasets)) == 19
    assert protocol.auxiliary.of("visa") == "mvtec"
    assert protocol.auxiliary.of("mvtec") == "visa"
    assert protocol.settings["data"]["train_part"] == protocol.train_part == "all"
    assert protocol.settings["metrics"]["aupro_200"] is True


@pytest.mark.parametrize("name", ["default", "faprompt", "filo", "kanoclip", "alfa", "2026"])
def test_masks_and_metrics_are_written_down(name):
    """Not left to defaults: they decide whether figures can be compared.  The size is the
    backbone's own, so that a protocol can be run on another backbone."""
    settings = load_protocol(name).settings
    assert settings["data"]["mask_resize"] == "bilinear"
    assert settings["metrics"]["fpr_limit"] == 0.3
    if name != "default":
        assert spec(settings["backbone"]["name"]).image_size == (240 if name == "alfa" else 518)
        assert "image_size" not in settings["backbone"]


def test_rows_run_what_the_papers_ran():
    """WinCLIP on its own backbone, baselines on the part of their authors, printed presets."""

    def rows(name):
        return {row.stored: row for row in load_protocol(name).rows}

    for name in ("filo", "faprompt", "kanoclip"):
        assert rows(name)["winclip"].backbone == "vit-b-16-plus-240"
    taken_over = ("aprilgan", "coop", "cocoop", "anomalyclip")
    assert {rows("faprompt")[m].train_part for m in taken_over} == {"test"}
    assert rows("faprompt")["faprompt"].train_part == ""  # the protocol's: all
    assert rows("filo-ablation")["filo@t11-vit-b-at-240-px"].backbone == "vit-b-16-plus-240"
    with_adaptation = registry.method("anovl").resolve(
        ("row", rows("faprompt")["anovl@with-adaptation"].layer)
    )
    assert with_adaptation.adapter.enabled
    assert "anovl" in rows("faprompt")


@pytest.mark.parametrize("name", BUNDLED)
def test_protocols_of_papers_run_the_presets_that_are_printed(name):
    """By name, or because the default resolves to it; rows that name another one are about it."""
    protocol = load_protocol(name)
    if not protocol.paper:
        return
    named = {row.method for row in protocol.rows}
    rows = [*protocol.rows]
    rows += [
        ProtocolRow(method=e.name)
        for e in registry.select_methods(protocol.methods)
        if e.name not in named
    ]
    for row in rows:
        entry = registry.method(row.method)
        if "paper" not in entry.presets or "preset" in row.overrides:
            continue
        below = (name, protocol.overrides.get(row.method) or {})
        ran = entry.resolve(below, (name, row.layer))
        printed = entry.resolve((name, {**row.layer, "preset": "paper"}))
        assert {**cfg.to_dict(ran), "preset": ""} == {**cfg.to_dict(printed), "preset": ""}, row


def test_2026_runs_all_methods_on_industrial_and_medical_sets():
    protocol = load_protocol("2026")
    datasets = select_datasets(protocol.datasets)
    assert {load_spec(d).domain for d in datasets} == {"industrial", "medical"}
    assert len(datasets) == 21
    chosen = {e.name for e in registry.select_methods(protocol.methods)}
    assert chosen == {e.name for e in registry.select_methods("all")} >= {"adaclip", "aaclip"}
    assert {protocol.auxiliary.of(d) for d in datasets} == {"visa", "mvtec"}
    assert spec(protocol.settings["backbone"]["name"]).image_size == 518


def test_few_shot_has_five_seeds_and_three_sizes():
    protocol = load_protocol("alfa-few-shot")
    assert len(protocol.seeds) == 5
    shots: dict[str, list[int]] = {}
    for row in protocol.rows:
        shots.setdefault(row.method, []).append(row.overrides["shots"])
    assert set(shots) == {"alfa", "winclip", "patchcore"}
    assert all(s == [1, 2, 4] for s in shots.values())


def test_groups_have_the_sizes_of_the_papers():
    sizes = {group: len(group_members(group)) for group in GROUPS}
    assert sizes == {"all": 19, "extended": 22, "industrial": 9, "medical": 10, "more": 5}


def test_an_unknown_protocol_suggests_the_nearest():
    with pytest.raises(RequestError, match="did you mean 'faprompt'"):
        load_protocol("fapromt")


VALID = """
title: mine
datasets: [elpv]
methods: [winclip]
"""


def _file(tmp_path: Path, text: str) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return str(path)


def test_a_protocol_of_ones_own(tmp_path):
    protocol = load_protocol(_file(tmp_path, VALID))
    assert (protocol.name, protocol.seeds, protocol.train_part) == ("mine", (0,), "test")
    assert protocol.settings == {"data": {"train_part": "test"}}
    as_text = VALID.replace("[elpv]", "elpv,mvtec")
    assert load_protocol(_file(tmp_path, as_text)).datasets == ("elpv", "mvtec")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("sedes: [1]", "sedes.*did you mean 'seeds'"),
        ("settings: {metrics: {modus: exact}}", "settings.metrics.modus"),
        ("settings: {data: {train_part: all}}", "write train_part at the top"),
        ("train_part: half", "not one of: test, all"),
        ("overrides: {winclipp: {shots: 1}}", "did you mean 'winclip'"),
        ("rows: [{label: a, method: clip}]", "not in methods"),
        ("rows: [{label: a}]", "names its method"),
        ("rows: [{method: winclip, backbone: vit-b-61}]", "unknown backbone 'vit-b-61'"),
        ("rows: [{method: winclip, image_size: 240}]", "give pixels, and the row's backbone"),
        ("rows: [{method: winclip, train_part: half}]", "not one of: , test, all"),
        ("rows: [{method: winclip}, {method: winclip}]", "same label"),
        ("rows: [{label: a, method: winclip}, {label: A, method: winclip}]", "same label"),
    ],
)
def test_wrong_protocols_say_what_is_wrong(tmp_path, more, message):
    with pytest.raises(RequestError, match=message) as error:
        load_protocol(_file(tmp_path, VALID + more))
    assert "\n" not in str(error.value)
    assert "mine" in str(error.value)


@pytest.mark.parametrize(
    ("label", "slug"),
    [("base + CAP", "base-plus-cap"), ("1-shot", "1-shot"), ("T4: no HQ-Loc", "t4-no-hq-loc")],
)
def test_row_labels_become_file_names(label, slug):
    assert ProtocolRow(label, "m").slug == slug

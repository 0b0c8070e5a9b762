"""A column is a method and its configuration: nothing vanishes, nothing unlike is ranked."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from tests.tables.test_tables import md_rows, record
from zsad import config as cfg
from zsad import registry, tables
from zsad.config import digest
from zsad.protocols import load_protocol
from zsad.results.document import summary
from zsad.results.store import ResultStore
from zsad.tables.formats import FORMATS


def config(method: str, **overrides: Any) -> dict[str, Any]:
    """What a record of today holds of a method's config."""
    return cfg.identity(registry.methods()[method].resolve(("test", overrides)))


def winclip(auroc: float, category: str = "a", limit: int = 0, **overrides: Any) -> Any:
    held = config("winclip", **overrides)
    title = {"title": "WinCLIP", "preset": str(held["preset"]), "limit": limit}
    return record("winclip", category=category, auroc=auroc, config=held, **title)


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    return ResultStore(tmp_path)


def test_an_overridden_run_is_a_column_beside_the_default(store: ResultStore) -> None:
    """The finding: the second run took the column over, and the first one vanished."""
    store.put(winclip(0.9))
    store.put(winclip(0.6, scales=[2], temperature=1.0, sigma=3.0))  # sets the first one aside
    assert sum(cell.current for cell in store.cells()) == 1
    text = tables.render(store.root)
    heads = ["WinCLIP", "WinCLIP [scales=\\[2\\], sigma=3, +1]"]
    assert [h.replace("\\", "") for h in md_rows(text)["dataset (categories)"]] == [
        h.replace("\\", "") for h in heads
    ]
    assert md_rows(text)["mine (1)"] == ["(**90.0**, **25.0**)", "(<u>60.0</u>, **25.0**)"]
    assert "scales=[2], sigma=3, temperature=1." in text  # all keys, in a footnote
    assert "Left out" not in text


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_names_the_overridden_keys(store: ResultStore, name: str) -> None:
    store.put(winclip(0.9))
    store.put(winclip(0.6, temperature=0.5))
    (page,) = (p for p in tables.pages(store.root) if p.name.endswith("overview"))
    assert "temperature=0.5" in FORMATS[name](page)


def test_the_plain_name_stays_that_of_the_default(store: ResultStore) -> None:
    """Whoever reads the CSV by method gets the figures that were under that name before."""
    store.put(winclip(0.6, temperature=0.5))
    store.put(winclip(0.9))
    store.put(winclip(0.7, temperature=0.4))
    files = tables.write(store.root, ["csv"])
    overview = next(f for f in files if f.name == "overview.csv")
    with overview.open() as opened:
        rows = [r for r in csv.DictReader(opened) if r["metric"] == "image_auroc"]
    found = {r["method"]: (r["value"], r["configuration"]) for r in rows}
    assert found == {
        "winclip": ("90.0", ""),
        "winclip [temperature=0.4]": ("70.0", "temperature=0.4"),
        "winclip [temperature=0.5]": ("60.0", "temperature=0.5"),
    }


def test_one_overridden_run_alone_is_not_the_default(store: ResultStore) -> None:
    store.put(winclip(0.6, temperature=0.5))
    text = tables.render(store.root)
    assert md_rows(text)["dataset (categories)"] == ["WinCLIP [temperature=0.5]"]


def test_keys_beyond_the_shown_ones_still_tell_columns_apart(store: ResultStore) -> None:
    same = {"scales": [2], "include_image_scale": False}
    store.put(winclip(0.6, temperature=0.5, **same))
    store.put(winclip(0.7, temperature=0.4, **same))
    heads = md_rows(tables.render(store.root))["dataset (categories)"]
    assert all("temperature=" in head for head in heads)  # shown first: it is what differs
    assert len(set(heads)) == 2


def test_a_limited_run_is_a_column_and_is_not_ranked_with_a_whole_one(store: ResultStore) -> None:
    limited, whole, other = winclip(0.95, limit=2), winclip(0.6), record("clip", auroc=0.5)
    limited.n_normal, limited.n_anomalous = 1, 1
    for one in (limited, whole, other):
        store.put(one)
    rows = md_rows(tables.render(store.root))
    assert rows["dataset (categories)"] == ["CLIP", "WinCLIP", "WinCLIP [at most 2 images]"]
    assert rows["mine (1)"] == ["(<u>50.0</u>, **25.0**)", "(**60.0**, **25.0**)", "(95.0, 25.0)"]


def test_other_images_than_the_others_are_said(store: ResultStore) -> None:
    broken = record("winclip", auroc=0.95)
    broken.n_normal = 2  # one picture of three could not be read
    store.put(record("clip", auroc=0.5))
    store.put(broken)
    text = tables.render(store.root)
    assert md_rows(text)["mine (1)"] == ["(50.0, 25.0)", "(95.0, 25.0)"]
    assert "(mine, a: 7 behind CLIP; 6 behind WINCLIP) are not ranked together" in text


def test_files_that_changed_between_runs_are_two_rows(store: ResultStore) -> None:
    store.put(record("clip", auroc=0.5, dataset_fingerprint="aaaaaaaaaaaa"))
    store.put(record("winclip", auroc=0.9, dataset_fingerprint="bbbbbbbbbbbb"))
    store.put(record("alfa", dataset="two", auroc=0.3))
    text = tables.render(store.root)
    rows = {label.replace("\\", ""): cells for label, cells in md_rows(text).items()}
    assert rows["mine [files bbbbbbbb] (1)"][2] == "(90.0, 25.0)"
    assert rows["mine [files aaaaaaaa] (1)"][1] == "(50.0, 25.0)"
    assert "means count the newest" in text
    assert "mean of 2" in rows  # not three


@pytest.mark.parametrize(
    ("boxes", "bare"),
    [
        ({"source": "none", "reason": "the extra is missing"}, True),
        ({"source": "none", "reason": "switched off"}, True),
        ({"source": "detector", "answered": 0, "unanswered": 5}, True),
        ({"source": "detector", "answered": 5, "unanswered": 0}, False),
        ({"source": "detector"}, False),
        ({}, False),
    ],
)
def test_a_method_without_its_boxes_is_called_so(
    store: ResultStore, boxes: dict[str, Any], bare: bool
) -> None:
    held = config("filo")
    store.put(record("filo", boxes=boxes, title="FiLo", config=held))
    text = tables.render(store.root)
    assert md_rows(text)["dataset (categories)"] == ["FiLo (no boxes)" if bare else "FiLo"]
    assert ("Without the detector's boxes that the method asks for: FiLo." in text) == bare


def test_a_category_without_boxes_is_told_from_those_with_some(store: ResultStore) -> None:
    """A file of boxes that knows some of the pictures: the method was called FiLo all the same."""
    held = config("filo")
    for category, counts in (("a", (4, 0)), ("b", (1, 3)), ("c", (0, 4))):
        boxes = {"source": "file", **dict(zip(("answered", "unanswered"), counts))}
        one = record("filo", category=category, boxes=boxes, title="FiLo", config=held)
        store.put(one)
    text = tables.render(store.root)
    assert md_rows(text)["dataset (categories)"] == ["FiLo", "FiLo (no boxes)"]
    assert "- FiLo had no boxes on mine/b (3 of 4 images)." in text
    (row,) = summary(list(store.records()))
    assert row["title"] == "FiLo / FiLo (no boxes)"


def test_boxes_that_were_switched_off_are_missing_too(store: ResultStore) -> None:
    held = config("filo", grounding="none")
    store.put(record("filo", boxes={}, title="FiLo", config=held))
    heads = md_rows(tables.render(store.root))["dataset (categories)"]
    assert heads == ["FiLo (no boxes)"]


def test_only_a_row_that_wants_no_boxes_goes_unmarked(store: ResultStore) -> None:
    from zsad.protocols import load_protocol

    none = {"source": "none", "reason": "switched off"}
    for row in load_protocol("filo-ablation").rows:
        if row.slug in ("t4-boxes", "t4-no-hq-loc"):
            info = {"title": f"FiLo: {row.label}", "protocol": "filo-ablation", "boxes": none}
            held = config("filo", preset="paper", **row.layer)
            store.put(record(f"filo@{row.slug}", config=held, preset="paper", **info))
    (page,) = (p for p in tables.pages(store.root) if "ablation" in p.name)
    labels = [line.label for line in page.tables[0].lines]
    assert labels == ["FiLo: T4: no HQ-Loc", "FiLo: T4: boxes (no boxes)"]


def test_what_a_row_was_stored_of_under_another_preset_says_so(store: ResultStore) -> None:
    """FAPrompt's ablation runs the preset paper; what was stored before ran the default one."""
    for preset in ("default", "paper"):
        held = config("faprompt", preset=preset, cap={"n_prompts": 5})
        info = {"title": "FAPrompt: K = 5", "protocol": "faprompt-ablation", "preset": preset}
        store.put(record("faprompt@k-5", config=held, **info))
    (page,) = (p for p in tables.pages(store.root) if "ablation" in p.name)
    labels = [line.label for line in page.tables[0].lines]
    assert labels == ["FAPrompt: K = 5 (preset default)", "FAPrompt: K = 5"]


def test_another_training_set_is_another_column(store: ResultStore) -> None:
    for name, value in (("mvtec", 0.9), ("folder:own", 0.6)):
        trained = {"trained_on": {"dataset": name, "part": "test"}}
        store.put(record("filo", "visa", auroc=value, title="FiLo", **trained))
    heads = md_rows(tables.render(store.root))["dataset (categories)"]
    assert heads == ["FiLo", "FiLo [trained on folder:own]"]


def test_an_unknown_method_shows_only_what_tells_its_columns_apart(store: ResultStore) -> None:
    for width in (1, 2):
        store.put(record("elsewhere", auroc=width / 4, config={"width": width, "depth": 5}))
    heads = md_rows(tables.render(store.root))["dataset (categories)"]
    assert sorted(heads) == ["ELSEWHERE [width=1]", "ELSEWHERE [width=2]"]


def test_keys_that_change_no_figure_make_no_column(store: ResultStore) -> None:
    for fold in ("auto", "never"):
        store.put(record("filo", title="FiLo", config=config("filo", mmci={"fold": fold})))
    assert md_rows(tables.render(store.root))["dataset (categories)"] == ["FiLo"]


def test_a_setting_of_the_run_makes_a_column_and_the_default_stands_first(
    store: ResultStore,
) -> None:
    """`data.names` changes every prompt; it was told in no record, and the newest run stood for
    all.  What was run last is not what a method is by default."""
    store.put(winclip(0.9))
    store.put(renewed(winclip(0.6), names="released"))
    store.put(renewed(winclip(0.7), metrics={"fpr_limit": 0.1}))
    heads = md_rows(tables.render(store.root))["dataset (categories)"]
    assert heads[0] == "WinCLIP"
    assert sorted(heads[1:]) == ["WinCLIP [fpr_limit=0.1]", "WinCLIP [names=released]"]


def renewed(one: Any, **info: Any) -> Any:
    """The record of a run with other settings."""
    one.info |= info
    one.fingerprint = digest([one.fingerprint, sorted(map(str, info.items()))])
    return one


def test_what_is_said_of_a_folder_is_no_change_of_its_files(store: ResultStore) -> None:
    store.put(record("clip", auroc=0.5, dataset_fingerprint="aa"))
    said = {"class_name": "metal plate"}
    store.put(record("clip", auroc=0.9, dataset_fingerprint="bb", folder=said))
    rows = {k.replace("\\", ""): v for k, v in md_rows(tables.render(store.root)).items()}
    assert rows["mine [class_name=metal plate] (1)"] == ["(90.0, 25.0)"]
    assert rows["mine [as the folder says] (1)"] == ["(50.0, 25.0)"]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"mask_resize": "native"}, "against masks that were resized otherwise"),
        ({"metrics": {"fpr_limit": 0.1}}, "of AUPRO up to another false positive rate"),
    ],
)
def test_pixels_measured_by_two_rules_are_not_ranked_together(
    store: ResultStore, other: dict[str, Any], said: str
) -> None:
    values = {"image_auroc": 0.5, "image_ap": 0.5, "pixel_auroc": 0.8, "pixel_aupro": 0.7}
    usual = {"mask_resize": "bilinear"}
    store.put(renewed(record("clip", metrics=values), **usual))
    more = record("winclip", metrics={**values, "pixel_aupro": 0.9})
    store.put(renewed(more, **{**usual, **other}))
    (page,) = (p for p in tables.pages(store.root) if p.name.endswith("overview"))
    image, pixel = page.tables
    assert [s.rank for cell in image.lines[0].cells for s in cell if s.rank] == [1, 1, 1, 1]
    ranked = [s.rank for cell in pixel.lines[0].cells for s in cell if s.rank]
    assert ranked == ([] if "mask_resize" in other else [1, 1])  # AUROC knows no such rate
    assert any(said in note for note in page.notes)


USUAL = load_protocol("default").auxiliary.of("mine")


def trained(auroc: float, dataset: str = "mine", digest: str = "", **info: Any) -> Any:
    """A record of AnomalyCLIP; ``digest``: of the checkpoint that a user gave."""
    state: dict[str, Any] = {"dataset": USUAL, "part": "test", "checkpoint": "last.ckpt"}
    held = {"trained": True, "preset": "default", "config": config("anomalyclip"), **info}
    if not info.get("untrained"):
        made = {**state, "checkpoint": f"{'0' * 16}.safetensors"}  # by the run, for itself
        held["trained_on"] = {**state, "sha256": digest} if digest else made
    return record("anomalyclip", dataset, auroc=auroc, title="AnomalyCLIP", **held)


def test_two_checkpoints_of_one_file_name_are_two_columns(store: ResultStore) -> None:
    """Every training writes its own `last.ckpt`: the earlier one vanished."""
    store.put(trained(0.9, digest="aa" * 32))
    store.put(trained(0.6, digest="bb" * 32))
    text = tables.render(store.root)
    assert sorted(md_rows(text)["dataset (categories)"]) == [
        "AnomalyCLIP [checkpoint last.ckpt (aaaaaaaa)]",
        "AnomalyCLIP [checkpoint last.ckpt (bbbbbbbb)]",
    ]
    assert "[checkpoint last.ckpt (aaaaaaaa)]." in text


def test_a_given_checkpoint_is_told_by_dataset(store: ResultStore) -> None:
    store.put(trained(0.9, digest="aa" * 32))
    store.put(trained(0.6, "other", digest="bb" * 32))
    assert (
        f"AnomalyCLIP was trained on {USUAL} [checkpoint last.ckpt (aaaaaaaa)] (for mine); "
        f"{USUAL} [checkpoint last.ckpt (bbbbbbbb)] (for other)."
    ) in tables.render(store.root)


def test_what_is_not_trained_shares_no_column_with_what_is(store: ResultStore) -> None:
    """The finding: trained on one dataset, `--untrained` on another: one column, no sign."""
    store.put(trained(0.9))
    store.put(trained(0.6, "other", untrained=True))
    rows = md_rows(tables.render(store.root))
    assert rows["dataset (categories)"] == ["AnomalyCLIP", "AnomalyCLIP [not trained]†"]
    assert rows["other (1)"] == ["–", "(60.0, 25.0)"]
    assert rows["mean of 2"][0].endswith("[1 of 2]")


def test_settings_that_differ_between_datasets_are_told_by_dataset(store: ResultStore) -> None:
    store.put(record("clip", precision="fp32"))
    store.put(record("clip", "other", precision="int8", names="released"))
    text = tables.render(store.root)
    assert "- Precision fp32 on mine, precision int8 on other." in text
    assert "- Categories called by their folders on other, categories in spoken words on mine." in (
        text
    )


def test_how_a_folder_is_read_is_said_of_a_single_run_too(store: ResultStore) -> None:
    store.put(record("clip", folder={"class_name": "gear", "mask_threshold": 9}))
    store.put(record("clip", "sdd", "electrical_commutator", variant="whole"))
    text = tables.render(store.root)
    assert "- mine: read with class_name=gear, mask_threshold=9." in text
    assert "variant whole." in text


def test_methods_and_datasets_of_one_title_are_told_apart(store: ResultStore) -> None:
    """Somebody's own method may be titled CLIP, and a folder of theirs called MVTec AD."""
    store.put(record("clip", title="CLIP"))
    store.put(record("another", "MVTec AD", title="CLIP"))
    store.put(record("clip", "mvtec", "bottle", title="CLIP"))
    rows = md_rows(tables.render(store.root))
    assert rows["dataset (categories)"] == ["CLIP (another)", "CLIP (clip)"]
    assert {"MVTec AD (MVTec AD) (1)", "MVTec AD (mvtec) (1 of 15)"} <= rows.keys()


def test_the_csv_says_which_figures_lack_images(store: ResultStore) -> None:
    store.put(record("clip", skipped=["x.png"]))
    (page,) = (p for p in tables.pages(store.root) if p.name.endswith("overview"))
    found = list(csv.DictReader(FORMATS["csv"](page).splitlines()))
    assert {row["partial"] for row in found} == {"True"}

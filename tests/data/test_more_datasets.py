"""The datasets beyond the four papers: their layouts, and what is said of their figures."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import zsad
from tests.data.miniatures import write_miniature
from zsad.cli.bench import dataset_lines
from zsad.config import MetricSettings
from zsad.data.catalog import group_members, load_spec
from zsad.data.images import read_mask
from zsad.data.index import load_index
from zsad.errors import DataError, RequestError
from zsad.results.store import ResultStore
from zsad.runner.request import build_request
from zsad.tables import pages


def test_private_and_validation_parts_are_left_out_and_named(tmp_path: Path) -> None:
    write_miniature("mvtec_ad2", tmp_path)
    index = load_index("mvtec_ad2", tmp_path)
    assert index.notes == (
        "left out, no figure is made on them: validation, test_private, test_private_mixed",
    )
    assert index.counts("train") == (8, 0)
    assert not any("private" in s.uid or "validation" in s.uid for s in index.samples)


def test_all_masks_of_an_image_are_united(tmp_path: Path) -> None:
    """Known answer: the two masks of a logical anomaly are halves of one rectangle."""
    write_miniature("mvtec_loco", tmp_path)
    for sample in load_index("mvtec_loco", tmp_path).samples:
        if sample.defect != "logical_anomalies":
            continue
        assert len(sample.extra_masks) == 1
        whole = read_mask(sample)
        first = read_mask(replace(sample, extra_masks=()))
        assert 0 < first.sum() < whole.sum() == 10 * 8
        assert np.array_equal(whole[:, whole.any(0)].any(1), first.any(1))


def test_a_missing_folder_of_masks_is_refused(tmp_path: Path) -> None:
    folder = write_miniature("mvtec_loco", tmp_path).folder / "pushpins/ground_truth"
    (folder / "structural_anomalies/001").rename(folder / "structural_anomalies/007")
    wanted = r"1 of 2 anomalous images without a folder of masks .*\(first: 001\.png\) \(and 1 more"
    with pytest.raises(DataError, match=wanted):
        load_index("mvtec_loco", tmp_path)


def test_the_list_decides_what_a_view_is(tmp_path: Path) -> None:
    """A view of a defective object that shows nothing is normal; single views are a variant."""
    write_miniature("real_iad", tmp_path)
    index = load_index("real_iad", tmp_path)
    assert {s.label for s in index.samples if "/NG/" in s.uid} == {0, 1}
    assert load_index("real_iad", tmp_path, "single-view").counts() == (30, 30)
    assert index.notes == ("images of realiad_1024, lists of realiad_jsons",)


@pytest.mark.parametrize("place", ["splits", "realiad_jsons"])
def test_lists_are_found_where_other_programs_put_them(tmp_path: Path, place: str) -> None:
    home = write_miniature("real_iad", tmp_path).folder
    before = load_index("real_iad", tmp_path, "single-view")
    (home / "realiad_jsons_sv").rename(tmp_path / "aside")
    (home / place).mkdir(exist_ok=True)
    (tmp_path / "aside").rename(home / place / "realiad_jsons_sv")
    index = load_index("real_iad", tmp_path, "single-view")
    assert index.fingerprint == before.fingerprint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"mask_path": None},
            r"usb\.json, test entry 1: anomaly_class is HS, but there is no mask",
        ),
        ({"anomaly_class": "OK"}, r"test entry 1: anomaly_class is OK, but there is a mask_path"),
        ({"image_path": "../x.jpg"}, r"test entry 1: path '\.\./x\.jpg' leads out of the category"),
        ({"image_path": "x.jpg"}, r"1 of \d+ files missing \(first: realiad_1024/usb/x\.jpg\)"),
    ],
)
def test_a_list_that_contradicts_itself_is_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = write_miniature("real_iad", tmp_path).folder / "realiad_jsons/usb.json"
    content = json.loads(path.read_text())
    content["test"][1].update(change)
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        load_index("real_iad", tmp_path)


def test_one_marked_pixel_makes_an_image_defective(tmp_path: Path) -> None:
    """Masks are looked at in full size, so the smallest defect counts; copies are left out."""
    from tests.data.miniatures import save

    folder = write_miniature("ksdd2", tmp_path).folder
    mask = np.zeros((64, 24), dtype=np.uint8)
    mask[63, 0] = 1
    save(folder / "test" / "20000_GT.png", mask)
    index = load_index("ksdd2", tmp_path)
    assert index.counts() == (2, 2)
    assert index.counts("train") == (3, 1)
    assert index.notes == (
        "2 files with other names than numbers left out (first: train/10000 (copy).png)",
    )
    (folder / "test" / "20001_GT.png").unlink()
    with pytest.raises(DataError, match=r"test/20001\.png: its 20001_GT is missing"):
        load_index("ksdd2", tmp_path)


# ------------------------------------------------------------------------- rules of the figures
def test_a_datasets_own_limit_yields_to_a_users() -> None:
    spec, plain = load_spec("mvtec_ad2"), MetricSettings()
    assert spec.metric_settings(plain, "schema").fpr_limit == 0.05
    assert spec.metric_settings(plain, "protocol default").fpr_limit == 0.05
    assert spec.metric_settings(plain, "my.yaml") == plain
    assert load_spec("mvtec").metric_settings(plain, "schema") is plain
    with pytest.raises(ValueError, match=r"fpr_limit=0 must be above 0"):
        replace(spec, fpr_limit=0)


@pytest.mark.parametrize(("word", "limit"), [([], 0.05), (["metrics.fpr_limit=0.3"], 0.3)])
def test_a_request_knows_the_limit_of_each_dataset(word: list[str], limit: float) -> None:
    request = build_request(methods="clip", datasets="mvtec,mvtec_ad2", overrides=word)
    assert request.metrics_of(load_spec("mvtec_ad2")).fpr_limit == limit
    assert request.metrics_of(load_spec("mvtec")).fpr_limit == 0.3


class Ran(NamedTuple):
    document: dict[str, Any]
    results: Path


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """CLIP and WinCLIP on the miniatures of all (two categories each) and of BTAD."""
    data, results = (tmp_path_factory.mktemp(n) for n in ("data", "results"))
    for name in ("btad", *group_members("more")):
        write_miniature(name, data)
    for path in sorted((data / "Real-IAD" / "realiad_jsons").iterdir())[2:]:
        path.unlink()
    for folder in ("mvtec_ad_2", "mvtec_loco_anomaly_detection"):
        for path in sorted((data / folder).iterdir())[2:]:
            shutil.rmtree(path)
    document = zsad.bench(
        "clip,winclip",
        "btad,more",
        backbone="zsad-tiny",
        data_root=data,
        results=results,
        device="cpu",
        limit=2,
        overrides=["backbone.image_size=64"],
    )
    return Ran(document, results)


@pytest.mark.slow
def test_they_run(ran: Ran) -> None:
    assert not ran.document["failed"]
    assert len(ran.document["cells"]) == 2 * (3 + 2 + 2 + 2 + 1 + 1)
    for cell in ran.document["cells"]:
        assert cell["metrics"]["image_auroc"] is not None
        assert cell["metrics"]["pixel_aupro"] is not None


@pytest.mark.slow
def test_an_aupro_to_other_limits_is_in_no_mean_and_named(ran: Ran) -> None:
    """MVTec AD 2 goes to 0.05: it has a row, and no mean over datasets counts it."""
    for record in ResultStore(ran.results).records():
        limit = 0.05 if record.dataset == "mvtec_ad2" else 0.3
        assert record.info["metrics"]["fpr_limit"] == limit
    (page,) = [p for p in pages(ran.results) if p.name.endswith("overview")]
    assert {h for table in page.tables for h in table.heads} == {"CLIP", "WinCLIP"}
    rows = [d for table in page.tables for d in table.data if d["metric"] == "pixel_aupro"]
    found = {d["row"]: d for d in rows if d["method"] == "clip"}
    assert found["mvtec_ad2"]["value"] is not None
    assert (found["mean of 6"]["count"], found["mean of 6"]["of"]) == (5, 6)
    others = [found[n]["value"] for n in found if "mean" not in n and n != "mvtec_ad2"]
    assert found["mean of 6"]["value"] == pytest.approx(sum(others) / 5, abs=1e-3)
    aurocs = [d for t in page.tables for d in t.data if d["metric"] == "pixel_auroc"]
    assert {d["count"] for d in aurocs if d["row"] == "mean of 6"} == {6}
    said = "\n".join(page.notes)
    assert "rate of 0.3, and of 0.05 of MVTec AD 2: no mean over datasets mixes them" in said
    assert "MVTec LOCO AD: pixel AUPRO is the plain one" in said
    assert "saturated PRO (sPRO), is not computed" in said


@pytest.mark.slow
def test_the_console_says_it_too(ran: Ran) -> None:
    lines = dataset_lines(ran.document["cells"])
    assert "mvtec_ad2: AUPRO up to a false positive rate of 0.05, as its publisher's." in lines
    assert any(line.startswith("mvtec_loco: pixel AUPRO is the plain one") for line in lines)
    assert not any(line.startswith("btad: ") for line in lines)


def test_a_definition_with_a_wrong_limit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "title: Mine\ncategories: {a: {prompt: a}}\ndefault_variant: v\nfpr_limit: 5\n"
        "variants: {v: {title: v, layouts: [{indexer: mvtec_like}]}}\n"
    )
    with pytest.raises(RequestError, match=r"fpr_limit=5\.0 must be above 0 .*mine\.yaml"):
        load_spec(str(path))

"""Published numbers: values known from the papers, names, and what counts as a match."""

from __future__ import annotations

import itertools
from collections import Counter
from functools import cache

import pytest

from zsad import registry
from zsad.data.catalog import load_spec, select_datasets
from zsad.errors import DataError
from zsad.metrics import spec as metric_spec
from zsad.protocols import load_protocol
from zsad.results.group_means import GROUPS, members
from zsad.results.published import MEAN, Published, read_table


@pytest.fixture(scope="module")
def published() -> Published:
    return Published.load()


PAPERS = {"FAPrompt": 1874, "FiLo": 500, "ALFA": 249, "KAnoCLIP": 167}
# Other papers' tables, and results that authors and others published with code.
FURTHER = {
    "FiLo's released log": 203, "AnomalyCLIP's released log": 116,
    "Crane": 525, "GlocalCLIP": 300, "AnomalyCLIP": 284, "PL-SCEA": 248, "MuSc's README": 231,
    "PSMP-CLIP": 226, "MoECLIP": 126, "WinCLIP": 116, "UniADet": 88, "MuSc": 61, "SOWA": 60,
    "SGNet": 54, "AdaptCLIP": 47, "DLVP-CLIP": 35, "AA-CLIP": 26, "MVFA": 26, "MVFA's README": 26,
    "AnomalyVFM": 20, "PA-CLIP": 14, "SSVP": 8, "AdaptCLIP's released log": 70,
    "AdaptCLIP-Zero's released log": 1344, "AA-CLIP's released log": 128,
    "WinCLIP by AnomalyCLIP's authors": 1015, "WinCLIP by a third party": 116,
    "AnomalyVFM's released log, ViT-L/14-336 at 672 px": 1888,
    **{f"AnomalyVFM's released log, {b}": 768
       for b in ("DINOv2 at 672 px", "DINOv3 at 768 px", "RADIO at 768 px", "SigLIP2 at 768 px")},
}  # fmt: skip


def test_every_printed_number_is_there(published):
    found = Counter(r.paper for r in published.references)
    assert sum(PAPERS.values()) == 2790
    assert {name: found[name] for name in PAPERS} == PAPERS
    assert all(r.kind == "paper" for r in published.references if r.paper in PAPERS)
    variants = {name for name in found if name.startswith("MuSc's README, ")}
    assert [found[name] for name in variants] == [21] * 16  # backbones and sizes
    assert {name: found[name] for name in found.keys() - variants} == {**PAPERS, **FURTHER}
    assert all(0 <= r.value <= 100 for r in published.references)


@pytest.mark.parametrize(
    ("method", "dataset", "category", "metric", "paper", "value"),
    [
        ("clip", "mvtec", MEAN, "image_auroc", "FAPrompt", 74.1),
        ("clip@clip-ac", "mvtec", MEAN, "image_ap", "FAPrompt", 86.4),
        ("faprompt", "mvtec", MEAN, "image_auroc", "FAPrompt", 91.9),
        ("faprompt", "mvtec", MEAN, "image_ap", "FAPrompt", 95.7),
    ],
)
def test_known_values(published, method, dataset, category, metric, paper, value):
    found = published.lookup(method, dataset, category, metric, paper=paper)
    assert [r.value for r in found][:1] == [value]
    assert found[0].source == "FAPrompt, Table 1"


def test_the_first_row_of_faprompts_ablation_is_anomalyclip(published):
    """Its Table 4 names it "AnomalyCLIP (base)", and its per-dataset figures are Table 1's."""
    rows = [r for r in published.references if r.name == "AnomalyCLIP (base)"]
    assert rows
    assert {r.methods for r in rows} == {("anomalyclip@anomalyclip",)}
    labels = {(row.method, row.label) for row in load_protocol("faprompt-ablation").rows}
    assert ("anomalyclip", "AnomalyCLIP") in labels


def test_values_agree_with_the_reference_list(published, shared_dir):
    import csv

    with (shared_dir / "spec" / "reference_results.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    theirs = Counter(
        (r["paper"], int(r["table"]), r["method"], r["dataset"], float(r["value"])) for r in rows
    )
    ours = Counter(
        (r.paper, r.table, r.name, r.dataset, r.value)
        for r in published.references
        if r.paper in PAPERS
    )
    assert ours == theirs
    remarks = {r.note for r in published.references if r.note and r.paper in PAPERS}
    assert remarks.isdisjoint(r["note"] for r in rows)  # remarks are in our own words


def key_of(reference):
    """A figure by what all lists call alike."""
    wanted = metric_spec.METRICS[reference.metric]
    category = "all" if reference.category == MEAN else reference.category
    where = reference.name, reference.dataset, category, wanted.level
    return (*where, reference.shots or 0, reference.value)


def test_other_papers_and_logs_are_reachable(published, shared_dir):
    """All figures of the further lists but those of metrics that are not hosted."""
    import csv

    ours = {(*key_of(r)[:4], r.metric, *key_of(r)[4:]) for r in published.references}
    missing = Counter()
    for name in ("published_more", "released_logs"):
        with (shared_dir / "spec" / f"{name}.csv").open(encoding="utf-8") as file:
            for r in csv.DictReader(file):
                level, metric = r.get("level"), r["metric"]
                if level is None:
                    level, _, metric = metric.partition("_")
                if level == "sample":  # of several views of one object
                    continue
                category = "all" if r["category"] in ("all", "mean") else r["category"]
                where = r["method"], r.get("dataset") or r["target_dataset"], category, level
                shots = int(r["shots"]) if r["shots"] != "full" else 0
                method = "MVFA-AD" if where[0] == "MVFA" else where[0]
                ap = metric_spec.of_printed(level, metric)
                if (method, *where[1:], ap, shots, float(r["value"])) not in ours:
                    missing[name, r["method"], r["dataset" if "dataset" in r else "kind"]] += 1
    assert missing == {}


def test_categories_and_datasets_are_known(published):
    for reference in published.references:
        if reference.dataset in published.not_run["datasets"] or reference.dataset in GROUPS:
            continue
        spec = load_spec(reference.dataset)
        assert reference.category == MEAN or reference.category in spec.categories


def test_names_lead_to_methods_and_rows_that_exist(published):
    known = set(registry.methods())
    for label in {m for r in published.references for m in r.methods}:
        name, _, slug = label.partition("@")
        assert name in known, label
        if slug:
            rows = {r.slug for p in registry.list_protocols() for r in load_protocol(p).rows}
            assert slug in rows or slug.endswith("-shot"), label


def test_every_printed_number_is_reachable_by_a_run_or_explained(published):
    """No exemption for rows of ablations: a protocol computes it, or a reason is listed."""
    for reference in published.references:
        reason = (
            published.why_not(reference)
            or published.not_hosted.get(reference.name)
            or published.not_run["protocols"].get(reference.protocol)
        )
        if not reference.methods:
            assert reason, reference
        elif not reason:
            assert _runs(reference), reference


@cache
def _rows(protocol: str) -> set[str]:
    found = load_protocol(protocol)
    plain = {e.name for e in registry.select_methods(found.methods)}
    return plain | {row.stored for row in found.rows}


def _runs(reference) -> bool:
    """Whether a protocol runs the row on the dataset, and computes the printed metric."""
    found = load_protocol(reference.protocol)
    label = set(reference.methods) & _rows(reference.protocol)
    wanted = metric_spec.METRICS[reference.compare_with]
    computed = not wanted.optional or found.settings.get("metrics", {}).get(wanted.flag)
    if reference.protocol == "alfa-ablation":  # its Table 3 repeats two rows of Table 1
        label |= set(reference.methods) & _rows("alfa")
    behind = members(reference.dataset, reference.protocol) or (reference.dataset,)
    return bool(label) and set(behind) <= set(select_datasets(found.datasets)) and computed


def test_reasons_are_of_figures_that_exist(published):
    listed = published.not_run
    assert set(listed["datasets"]) <= {r.dataset for r in published.references}
    assert set(listed["protocols"]) <= {r.protocol for r in published.references}
    for protocol, rows in listed["rows"].items():
        named = [r for r in published.references if r.protocol == protocol]
        known = {r.name for r in named} | {f"{r.name} ({r.shots}-shot)" for r in named}
        assert set(rows) <= known


def test_papers_that_disagree_are_named(published):
    found = published.disagreements("winclip", "visa", "mean", "pixel_auroc")
    assert all(len(sources) for sources in found.values())
    one = published.lookup("winclip", "visa", MEAN, "pixel_auroc")
    values = {r.value for r in one if r.kind == "paper" and "ablation" not in r.protocol}
    assert set(found) == (values if len(values) > 1 else set())


def test_papers_that_disagree_are_named_wherever_they_do(published, shared_dir):
    """Every figure of a hosted method that papers print two points apart or more."""
    import csv

    with (shared_dir / "spec" / "published_disagreements.csv").open(encoding="utf-8") as file:
        rows = [r for r in csv.DictReader(file) if r["shots"] == "0"]
    labels = {"CLIP": "clip", "CoOp": "coop", "AnomalyCLIP": "anomalyclip", "WinCLIP": "winclip",
              "APRIL-GAN": "aprilgan"}  # fmt: skip
    for r in rows:
        printed = [v for v in r["values"].split("; ") if "secondary" not in v]
        if r["method"] not in labels or len(printed) < 2:
            continue
        metric = metric_spec.of_printed(r["level"], r["metric"])
        found = published.disagreements(labels[r["method"]], r["dataset"], MEAN, metric)
        assert {round(float(v.partition(":")[0]), 1) for v in printed} <= set(found), r


def test_aupro_is_compared_with_the_approximation(published):
    exact = published.lookup("faprompt", "visa", MEAN, "pixel_aupro")
    assert exact == published.lookup("faprompt", "visa", MEAN, "pixel_aupro_200")
    assert exact[0].compare_with == "pixel_aupro_200"
    same = {"protocol": "faprompt", "backbone": "vit-l-14-336", "trained_on": "mvtec"}
    assert exact[0].differences(same, "pixel_aupro_200") == []
    assert len(exact[0].differences(same, "pixel_aupro")) == 1


def test_differences_name_what_differs(published):
    reference = published.lookup("faprompt", "mvtec", MEAN, "image_auroc")[0]
    equal = {"protocol": "faprompt", "backbone": "vit-l-14-336", "trained_on": {"dataset": "visa"}}
    assert reference.differences(equal, "image_auroc") == []
    other = {**equal, "backbone": "zsad-tiny", "trained_on": "synthetic", "limit": 4}
    text = "; ".join(reference.differences(other, "image_auroc"))
    assert "backbone zsad-tiny, not vit-l-14-336" in text
    assert "trained on synthetic, not visa" in text
    assert "only 4 images" in text


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"image_size": 336}, "image size 336, not 518"),
        ({"trained_on": {"dataset": "mvtec", "part": "test"}}, "trained on part test, not all"),
        ({"trained_on": {"dataset": "", "part": "nothing"}}, None),
        ({"trained_on": {}}, None),
        ({"variant": "whole"}, "variant whole, not thirds"),
        ({"variant": "prepared"}, None),
        ({"protocol": "default"}, None),  # conditions count, not the name under which they were run
        ({"mask_resize": "nearest"}, "masks resized nearest, not bilinear"),
        ({"untrained": True}, "not trained"),
    ],
)
def test_each_condition_is_compared(published, change, reason):
    """FAPrompt's Table 1: 518 pixels, both parts of MVTec AD, SDD in thirds."""
    reference = published.lookup("faprompt", "sdd", MEAN, "image_auroc", paper="FAPrompt")[0]
    same = {
        "protocol": "faprompt",
        "backbone": "vit-l-14-336",
        "image_size": 518,
        "trained_on": {"dataset": "mvtec", "part": "all"},
        "variant": "thirds",
    }
    found = reference.differences({**same, **change}, "image_auroc")
    assert found == ([] if reason is None else [reason])


def test_the_part_of_another_protocol_is_its_own(published):
    """KAnoCLIP trains on the test part, and its SDD is the shared-drive preparation."""
    reference = published.lookup("kanoclip", "sdd", MEAN, "image_auroc", paper="KAnoCLIP")[0]
    info = {"trained_on": {"dataset": "mvtec", "part": "all"}, "variant": "thirds"}
    assert reference.differences(info) == [
        "trained on part all, not test",
        "variant thirds, not shared-drive",
        "texts of gpt-3.5 and llama 3 are not at hand",
    ]


def test_the_nearest_conditions_are_set_beside_a_record(published):
    for protocol, paper in (("filo", "FiLo"), ("faprompt", "FAPrompt"), ("kanoclip", "KAnoCLIP")):
        best = published.best("winclip", "visa", MEAN, "image_auroc", {"protocol": protocol})
        assert best is not None
        assert best.paper == paper
    assert published.best("winclip", "no such set", MEAN, "image_auroc", {}) is None


def test_shots_have_labels_of_their_own(published):
    one = published.lookup("alfa@1-shot", "mvtec", MEAN, "image_auroc", protocol="alfa-few-shot")
    four = published.lookup("alfa@4-shot", "mvtec", MEAN, "image_auroc", protocol="alfa-few-shot")
    assert (one[0].shots, four[0].shots) == (1, 4)
    assert one[0].std is not None
    zero = published.lookup("alfa", "mvtec", MEAN, "image_auroc")
    assert all(not r.shots for r in zero)


def test_known_slips_are_noted(published):
    noted = [r for r in published.references if "slip" in r.note]
    assert {(r.table, r.name) for r in noted} >= {(3, "AnomalyCLIP")}
    tile = published.lookup("faprompt", "mvtec", "tile", "image_auroc")
    assert "83 anomalous tiles" in tile[0].note


def test_a_broken_table_names_file_and_line():
    head = "paper,table,protocol,method,dataset,category,level,metric,value,std,shots,note,"
    head += "kind,backbone,image_size,trained_on,train_part,boxes,prompts,features\n"
    with pytest.raises(DataError, match=r"mine\.csv, line 2"):
        list(
            read_table(
                head + "P,1,p,CLIP,mvtec,all,image,auroc,many,,,,paper,,,,,,,\n", "mine.csv", {}
            )
        )
    with pytest.raises(DataError, match=r"mine\.csv, line 1"):
        list(read_table("a,b\n", "mine.csv", {}))


def test_means_of_groups_are_those_of_the_printed_datasets(published):
    """FAPrompt's Table 3 is the mean of its Tables 1 and 2 without MVTec AD."""
    metrics = ("image_auroc", "image_ap", "pixel_auroc", "pixel_aupro")
    for name, metric in itertools.product(GROUPS, metrics):
        level = metric.partition("_")[0]
        values = [
            published.lookup("faprompt", dataset, MEAN, metric, paper="FAPrompt")[0].value
            for dataset in members(name, "faprompt", level)
        ]
        (printed,) = {
            r.value for r in published.lookup("faprompt", name, MEAN, metric, paper="FAPrompt")
        }
        assert sum(values) / len(values) == pytest.approx(printed, abs=0.11), (name, metric)
    assert members("industrial_mean", "no-such-protocol") == ()


def test_full_shot_figures_stand_beside_a_full_shot_run_with_what_differs(published):
    found = published.lookup("patchcore@full-shot", "mvtec", metric="image_auroc")
    assert {(r.paper, r.value, r.protocol) for r in found} == {
        ("FAPrompt", 99.0, "full-shot"),
        ("ALFA", 99.6, "alfa-paradigms"),
    }
    printed = next(r for r in found if r.paper == "FAPrompt")
    said = printed.differences({"backbone": "vit-l-14-336"})
    assert "features of CLIP, not of wide-resnet-50" in said
    said = printed.differences({"backbone": "dinov2-vit-s-14"})
    assert "features of DINOv2 ViT-S/14, not of wide-resnet-50" in said

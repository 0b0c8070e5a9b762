"""Published numbers, intervals and tests in tables: known answers."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zsad import tables
from zsad.metrics.intervals import confidence_interval
from zsad.metrics.pixel_table import PixelTable
from zsad.metrics.statistics import bootstrap_ci
from zsad.protocols import load_protocol
from zsad.registry import list_protocols
from zsad.results import pixels
from zsad.results.aggregate import Figure
from zsad.results.published import Published
from zsad.results.records import CellRecord
from zsad.results.store import ResultStore, key_of
from zsad.tables.comparison import difference, label_of
from zsad.tables.results_matrix import boards
from zsad.tables.statistics import compare, stouffer


def put(store: ResultStore, method: str, scores: np.ndarray | None = None, **info: Any) -> None:
    labels = np.repeat([0, 1], 20)
    value = 0.918 if scores is None else bootstrap_ci(scores, labels).value
    record = CellRecord(
        method,
        "mvtec",
        "bottle",
        0,
        f"{method}{sorted(info)}",
        {"image_auroc": value},
        {},
        20,
        20,
        {},
        {"backbone": "vit-l-14-336", "title": method, "group": "baselines", **info},
    )
    table = None
    if scores is not None:
        uids = [f"{i:03d}" for i in range(40)]
        defects = [""] * 40
        columns = {"uid": uids, "label": labels, "defect": defects, "score": scores, "path": uids}
        table = columns
    store.put(record, table)


def rows_of(store: ResultStore, page: str, table: str, **asked: bool) -> list[dict[str, str]]:
    files = tables.write(store.root, ["csv"], **asked)
    path = next(f for f in files if f.name == f"{page}.csv")
    with path.open() as opened:
        return [r for r in csv.DictReader(opened) if r["table"] == table]


def test_the_published_figure_stands_beside_with_its_difference(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    put(store, "winclip", protocol="faprompt")
    rows = rows_of(store, "mvtec", "published-image", published=True)
    found = {(r["row"], r["metric"]): r for r in rows}
    # FAPrompt, table 1 prints 91.8 for WinCLIP on MVTec AD.
    mean = found["mean of 1 of 15", "image_auroc"]
    assert (mean["published"], mean["difference"], mean["value"]) == ("91.8", "0.0", "91.8")
    assert "published only" in tables.render(store.root, published="all").lower()
    assert "published only" not in tables.render(store.root, published=True).lower()
    assert "published only" not in tables.render(store.root).lower()
    assert rows_of(store, "mvtec", "published-image") == []


@pytest.mark.parametrize(
    ("info", "degree", "point"),
    [
        ({"limit": 16}, "no", "only 16 images per category"),
        ({"backbone": "zsad-tiny"}, "no", "backbone zsad-tiny"),
        ({"untrained": True}, "no", "not trained"),
    ],
)
def test_differing_protocols_are_marked(
    tmp_path: Path, info: dict[str, Any], degree: str, point: str
) -> None:
    store = ResultStore(tmp_path)
    put(store, "winclip", **{"protocol": "faprompt", **info})
    rows = rows_of(store, "overview", "published-image", published=True)
    row = next(r for r in rows if r["metric"] == "image_auroc")
    assert row["protocol"] == degree
    assert point in row["differs"]
    text = tables.render(store.root, published=True)
    assert "≠" in text
    assert point in text


def test_labels_of_presets_and_shots() -> None:
    def label(method: str, **info: Any) -> str:
        return label_of(CellRecord(method, "d", "c", 0, "", {}, {}, 1, 1, {}, info))

    assert label("clip", preset="clip-ac") == "clip@clip-ac"
    assert label("filo", preset="released") == "filo"
    assert label("winclip", shots=2) == "winclip@2-shot"
    assert label("winclip@2-shot", shots=2) == "winclip@2-shot"


def test_the_difference_is_that_of_printed_values() -> None:
    class Printed:
        value = 91.8

    assert difference(Figure(0.92149), Printed()) == 0.3  # type: ignore[arg-type]
    assert difference(Figure(None), Printed()) is None  # type: ignore[arg-type]


def scored(store: ResultStore) -> None:
    noise = np.random.default_rng(3)
    labels = np.repeat([0.0, 1.0], 20)
    put(store, "perfect", labels + noise.uniform(0, 0.5, 40))
    put(store, "good", labels + noise.normal(0, 0.4, 40))
    put(store, "chance", noise.uniform(0, 1, 40))


def test_intervals_contain_the_value_and_repeat(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    scored(store)
    rows = rows_of(store, "mvtec", "ci", ci=True)
    assert len(rows) == 6
    for row in rows:
        assert float(row["low"]) <= float(row["value"]) <= float(row["high"])
    perfect = next(r for r in rows if r["method"] == "perfect")
    assert (perfect["value"], perfect["high"]) == ("100.0", "100.0")
    assert 80 < float(perfect["low"]) < 95  # twenty images of a label do not prove perfection
    assert rows == rows_of(store, "mvtec", "ci", ci=True)


def test_a_mean_interval_says_how_many_categories_it_is_of(tmp_path: Path) -> None:
    """The finding: "mean of 2" over the one category that has both labels."""
    from tests.tables.test_tables import record

    store = ResultStore(tmp_path)
    for category, labels in (("a", [0] * 5 + [1] * 5), ("b", [0] * 10)):
        uids = list("abcdefghij")
        columns = {"uid": uids, "label": labels, "defect": [""] * 10, "path": uids}
        cell = record(category=category, auroc=0.5 if 1 in labels else None)
        cell.n_normal, cell.n_anomalous = labels.count(0), labels.count(1)
        store.put(cell, {**columns, "score": range(10)})
    (page,) = (p for p in tables.pages(store.root, ci=True) if p.name.endswith("/mine"))
    table = next(t for t in page.tables if t.name == "ci")
    mean = table.lines[-1]
    assert mean.label == "mean of 2"
    assert mean.cells[0][0].text.endswith(" [1 of 2]")
    assert (table.data[-1]["count"], table.data[-1]["of"]) == (1, 2)


def test_scores_of_other_images_than_the_record_counts_are_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that was copied beside a record of other images gave an interval of its own."""
    from tests.tables.test_tables import record

    store = ResultStore(tmp_path)
    uids = list("abcdef")
    columns = {"uid": uids, "label": [0, 1] * 3, "defect": [""] * 6, "path": uids}
    store.put(record(), {**columns, "score": range(6)})  # 3 and 4 images, says the record
    (page,) = (p for p in tables.pages(store.root, ci=True) if p.name.endswith("/mine"))
    assert not [t for t in page.tables if t.name == "ci"]
    assert "of other images than its record; run the cell again" in caplog.text


def test_fewer_seeds_than_others_are_named(tmp_path: Path) -> None:
    """A figure of one seed stood under "over the seeds 0, 1, 2"."""
    from tests.tables.test_tables import record

    store = ResultStore(tmp_path)
    for seed in range(3):
        store.put(record("winclip", seed=seed, shots=1, title="WinCLIP"))
    store.put(record("winclip", shots=2, title="WinCLIP"))
    store.put(record("clip", title="CLIP"))  # has no seed
    said = "Mean ± standard deviation over the seeds 0, 1, 2; over fewer: WinCLIP, 2-shot (seed 0)."
    for name in ("overview", "few-shot"):
        (page,) = (p for p in tables.pages(store.root) if p.name.endswith(f"/{name}"))
        assert said in page.notes


def test_four_images_of_a_label_are_too_few(tmp_path: Path) -> None:
    """The finding: "100.0 [100.0, 100.0]" from two images of each label."""
    from tests.tables.test_tables import record

    store = ResultStore(tmp_path)
    uids, labels = list("abcdefghi"), [0] * 4 + [1] * 5
    columns = {"uid": uids, "label": labels, "defect": [""] * 9, "score": range(9), "path": uids}
    cell = record(auroc=1.0)
    cell.n_normal, cell.n_anomalous = 4, 5
    store.put(cell, columns)
    (page,) = (p for p in tables.pages(store.root, ci=True) if p.name.endswith("/mine"))
    table = next(t for t in page.tables if t.name == "ci")
    assert [line.cells[0][0].text for line in table.lines] == ["too few", "too few"]


def test_pairs_are_tested_with_holms_correction(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    scored(store)
    board = boards(store.cells())[0]
    found = {
        (t.first.label, t.second.label): t
        for t in compare(store, board, board.rows[0], "image_auroc")
    }
    assert len(found) == 3
    p = sorted(t.p_value for t in found.values())
    adjusted = sorted(t.adjusted for t in found.values())
    steps = np.minimum(1, np.maximum.accumulate([3 * p[0], 2 * p[1], p[2]]))
    assert adjusted == pytest.approx(steps)
    test = found["chance", "perfect"]
    assert test.difference < 0
    assert test.adjusted < 0.05
    assert "p (Holm)" in tables.render(store.root, significance=True)


def test_stouffer_known_answers() -> None:
    assert stouffer([(0.1, 0.05)]) == pytest.approx(0.05)
    assert stouffer([(0.1, 0.05), (-0.1, 0.05)]) == pytest.approx(1.0)
    # Two tests at z = 1.96 each: z = 2.7718, p = 0.005574.
    assert stouffer([(0.1, 0.05), (0.1, 0.05)]) == pytest.approx(0.005574, abs=1e-5)


def test_shots_stand_as_rows_with_the_deviation_over_seeds(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    for shots, values in ((1, (0.80, 0.90)), (4, (0.95, 0.95))):
        for seed, value in enumerate(values):
            info = {"backbone": "vit-b-16-plus-240", "title": "WinCLIP", "shots": shots}
            info |= {"limit": 9, "banner": "bundled demonstration backbone"}
            store.put(
                CellRecord(
                    "winclip", "mvtec", "bottle", seed, f"{shots}{seed}",
                    {"image_auroc": value}, {}, 1, 1, {}, info,
                )
            )  # fmt: skip
    page = next(p for p in tables.pages(store.root, published=True) if p.name.endswith("few-shot"))
    (table,) = page.tables
    lines = {
        (line.label, line.cells[0][0].text): [s.text for cell in line.cells[1:] for s in cell]
        for line in table.lines
    }
    assert list(lines) == [
        ("1-shot", "WinCLIP"),
        ("1-shot", "WinCLIP (published)"),
        ("4-shot", "WinCLIP"),
        ("4-shot", "WinCLIP (published)"),
    ]
    assert (table.corner, table.heads) == ("setup", ("method", "AUROC", "AP", "F1-max"))
    assert table.groups == (("", 1), ("MVTec AD (1 of 15)", 3))
    assert lines["1-shot", "WinCLIP"][0] == "85.0 ± 7.1"
    assert lines["4-shot", "WinCLIP"][0] == "95.0"
    assert lines["1-shot", "WinCLIP (published)"][0] == "93.1 ± 2.0≠"  # ALFA, table 4
    (said,) = (n for n in page.notes if n.startswith("≠ WinCLIP, 1-shot, printed in ALFA, Table 4"))
    assert "only 9 images per category" in said
    assert "2 seeds, not 5" in said
    assert "1 of 15 categories" in said
    assert [line.rule for line in table.lines] == [False, False, True, False]
    assert "At most 9 images per category." in page.notes
    assert page.notes[0] == "Bundled demonstration backbone."


def test_systems_that_are_not_hosted_are_listed_with_the_reason(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    put(store, "winclip", title="WinCLIP")
    hosted_nowhere = Published.load().not_hosted
    assert {"AnomalyGPT", "SAA+", "RD4AD", "UniAD", "PaDiM", "JNLD", "Trans-MM"} <= {
        *hosted_nowhere
    }
    for asked in (False, True):
        found = next(p for p in tables.pages(store.root, asked) if p.name.endswith("overview"))
        assert "published-only" not in [t.name for t in found.tables]
        assert not any("AnomalyGPT" in note for note in found.notes)
    page = next(p for p in tables.pages(store.root, "all") if p.name.endswith("overview"))
    table = next(t for t in page.tables if t.name == "published-only")
    listed = {line.label.split(", ")[0]: line for line in table.lines}
    assert set(listed) == set(hosted_nowhere)
    for name, reason in hosted_nowhere.items():
        assert reason in listed[name].cells[-1][0].text
    shots = [line.label for line in table.lines if line.label.startswith("PL-SCEA, ")]
    assert shots == [f"PL-SCEA, {n}-shot, MVTec AD" for n in (1, 2, 4, 8)]
    figures = [cell[0].text for cell in listed["AnomalyGPT"].cells[:-1]]
    assert any(f != "–" for f in figures)


def test_figures_that_no_run_can_be_set_beside_are_counted_with_the_reason(tmp_path: Path) -> None:
    """They were nowhere: no run has their dataset, and no line was made without a run."""
    store = ResultStore(tmp_path)
    put(store, "winclip", title="WinCLIP")
    page = next(p for p in tables.pages(store.root, "all") if p.name.endswith("overview"))
    table = next(t for t in page.tables if t.name == "published-not-run")
    listed = {line.label: [cell[0].text for cell in line.cells] for line in table.lines}
    published = Published.load()
    alone = [r for r in published.references if r.dataset == "rsdd" and r.methods]
    assert listed["rsdd"] == [str(len(alone)), "MoECLIP", published.not_run["datasets"]["rsdd"]]
    assert listed["ALFA with GPT-3"][:2] == ["3", "ALFA"]  # a row that has no method here
    for asked in (False, True):
        found = next(p for p in tables.pages(store.root, asked) if p.name.endswith("overview"))
        assert "published-not-run" not in [t.name for t in found.tables]


def test_papers_that_print_other_values_are_named(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    put(store, "maskclip", title="MaskCLIP")
    put(store, "clip@clip-ac", title="CLIP-AC")
    text = tables.render(store.root, published=True)
    assert "Papers disagree on image AP of CLIP-AC on MVTec AD: 89.5 (ALFA Table 1); 86.4" in text
    assert "Papers disagree" not in tables.render(store.root)


def test_ablation_rows_stand_in_the_protocols_order(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    slugs = {"base-plus-dap": "base + DAP", "base": "base", "base-plus-cap": "base + CAP"}
    for slug, label in slugs.items():
        title = f"FAPrompt: {label}"
        put(store, f"faprompt@{slug}", title=title, protocol="faprompt-ablation")
    found = next(p for p in tables.pages(store.root) if "ablation" in p.name)
    labels = [line.label for line in found.tables[0].lines]
    assert labels == ["FAPrompt: base", "FAPrompt: base + CAP", "FAPrompt: base + DAP"]
    # Nothing else was measured: there is nothing to compare, and the ablation alone is printed.
    assert [p.name for p in tables.pages(store.root)] == [found.name]
    assert "Ablation faprompt-ablation" in tables.render(store.root)


def test_ablation_rows_are_no_columns_of_a_comparison(tmp_path: Path) -> None:
    """CLIP-AC is a row, too, but of a protocol that compares methods."""
    store = ResultStore(tmp_path)
    put(store, "clip@clip", protocol="faprompt")
    put(store, "clip@clip-ac", protocol="faprompt")
    put(store, "winclip", protocol="faprompt")
    put(store, "faprompt@base", protocol="faprompt-ablation")
    put(store, "alfa@mine", protocol="no-such-protocol")
    found = {p.name.split("/")[1]: p for p in tables.pages(store.root)}
    assert list(found) == ["overview", "mvtec", "ablation-faprompt-ablation"]
    for name in ("overview", "mvtec"):
        assert found[name].tables[0].heads == ("alfa@mine", "clip@clip", "clip@clip-ac", "winclip")
    (line,) = found["ablation-faprompt-ablation"].tables[0].lines
    assert line.label == "faprompt@base"


def test_every_ablation_of_one_method_is_marked_as_one() -> None:
    for name in list_protocols():
        protocol = load_protocol(name)
        assert protocol.ablation == name.endswith("-ablation"), name


def test_average_precision_has_tables_of_its_own(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    scored(store)
    rows = rows_of(store, "mvtec", "ci-image_ap", ci=True)
    labels = np.repeat([0, 1], 20)
    board = boards(store.cells())[0]
    for row in rows:
        assert row["metric"] == "image_ap"
        record = next(r for r in store.records() if r.method == row["method"])
        scores = store.scores(key_of(record))["score"]
        expected = confidence_interval(scores, labels, "image_ap")
        found = [float(row[k]) for k in ("value", "low", "high")]
        assert found == pytest.approx(
            [100 * v for v in (expected.value, expected.low, expected.high)], abs=1e-3
        )
    assert {
        r["metric"] for r in rows_of(store, "mvtec", "significance-image_ap", significance=True)
    } == {"image_ap"}
    auroc, ap = (compare(store, board, board.rows[0], m) for m in ("image_auroc", "image_ap"))
    assert [t.difference for t in auroc] != [t.difference for t in ap]
    text = tables.render(store.root, ci=True, significance=True)
    assert "image AP with 95 % intervals" in text
    assert "paired tests of image AP" in text
    assert text.count("Intervals: 95 %") == 1


def test_pixel_metrics_have_intervals_where_records_hold_the_pixels(tmp_path: Path) -> None:
    """One method with them, one stored without: "not computed" is said, and nothing is tested."""
    store = ResultStore(tmp_path)
    random = np.random.default_rng(0)
    labels = [0, 1] * 6
    table = PixelTable(
        random.integers(1, 9, (12, 5)),
        random.integers(1, 9, (12, 5)) * np.array(labels)[:, None],
        np.array(labels)[:, None] * np.array([0.4, 0.3, 0.1, 0.1, 0.1]),
        np.array(labels),
    )
    scores = {
        "uid": [f"{i}" for i in range(12)],
        "label": labels,
        "defect": [""] * 12,
        "score": list(random.random(12)),
        "path": [f"{i}" for i in range(12)],
    }
    for method, more in (("clip", {}), ("winclip", pixels.columns(table)), ("alfa", {})):
        info = {"title": method.upper(), "backbone": "b", "group": "baselines"}
        values = {"image_auroc": 0.5, "pixel_auroc": None if method == "alfa" else 0.6}
        record = CellRecord(method, "mine", "a", 0, method, values, {}, 6, 6, {}, info)
        store.put(record, {**scores, **more})
    page = next(p for p in tables.pages(store.root, ci=True) if p.name.endswith("/mine"))
    found = next(t for t in page.tables if t.name == "ci-pixel_auroc")
    cells = {h: c[0].text for h, c in zip(found.heads, found.lines[0].cells)}
    assert cells["CLIP"] == "not computed"
    assert cells["ALFA"] == "–"
    value, low, high = map(float, re.findall(r"[\d.]+", cells["WINCLIP"]))
    assert 0 <= low < value == 60.0 < high <= 100
    assert [c[0].text for c in found.lines[1].cells][1] == "not computed"  # of the mean, too
    store.put(
        CellRecord("alfa", "mine", "a", 0, "x", {"pixel_auroc": 0.5}, {}, 6, 6, {}, info),
        {**scores, **pixels.columns(table)},
    )
    page = next(p for p in tables.pages(store.root, significance=True) if p.name.endswith("/mine"))
    (line,) = next(t for t in page.tables if t.name == "significance-pixel_auroc").lines
    assert "WINCLIP" in line.label
    assert [c[0].text for c in line.cells] == ["+0.0", "1.000", "1.000", "1"]  # equal maps
    info["mask_resize"] = "native"  # other masks: no test of one against the other
    store.put(
        CellRecord("alfa", "mine", "a", 0, "x", {"pixel_auroc": 0.5}, {}, 6, 6, {}, info),
        {**scores, **pixels.columns(table)},
    )
    page = next(p for p in tables.pages(store.root, significance=True) if p.name.endswith("/mine"))
    assert "significance-pixel_auroc" not in [t.name for t in page.tables]

"""The report in a real headless Chromium: drawn, usable, readable on a phone, and silent."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import pytest
from sklearn.metrics import roc_auc_score

from tests.report.browser import Browser
from tests.report.conftest import EVIL, jpeg, put
from zsad import report
from zsad.results import gallery
from zsad.results.store import ResultStore
from zsad.types import Sample

PHONE = 390  # CSS pixels
# The widest thing that sticks out of the window and cannot be scrolled by itself.
STICKS_OUT = """
[...document.body.querySelectorAll("*")].filter((n) => {
  const box = n.getBoundingClientRect();
  return box.width && box.right > innerWidth + 1 && !n.closest(".wide, pre");
}).map((n) => n.outerHTML.slice(0, 80))
"""
WIDTHS = "[document.documentElement.scrollWidth, innerWidth]"


@pytest.fixture
def opened(browser: Browser, request: pytest.FixtureRequest) -> Browser:
    """The browser with the report of the store that the test takes."""
    name = "sweep" if "sweep" in request.fixturenames else "store"
    store: ResultStore = request.getfixturevalue(name)
    browser.errors.clear()
    browser.requests.clear()
    browser.open(report.write(store.root))
    return browser


def column(browser: Browser, table: str, number: int) -> list[str]:
    """The texts of one column of a table's body."""
    rows = f"[...document.querySelectorAll('{table} tbody tr')]"
    found: list[str] = browser.value(f"{rows}.map((r) => r.cells[{number}].textContent)")
    return found


def choose(browser: Browser, name: str, value: str) -> None:
    """Choose in a list as a reader does."""
    browser.value(
        f"(() => {{ const s = document.getElementById('{name}'); s.value = '{value}';"
        f" s.dispatchEvent(new Event('change')) }})()"
    )


def count(browser: Browser, selector: str) -> int:
    """How many elements match."""
    return int(browser.value(f"document.querySelectorAll('{selector}').length"))


def test_it_draws_without_errors_and_asks_for_nothing(opened: Browser, sweep: ResultStore) -> None:
    assert opened.errors == []
    outside = [r for r in opened.requests if not r.startswith("data:")]
    assert outside == [(sweep.root / "report" / "index.html").resolve().as_uri()]
    assert count(opened, "#bars rect") == 9  # 3 categories of mvtec by 3 methods
    assert count(opened, "#lines path.curve") == 6  # 2 curves by 3 methods
    assert count(opened, "#histograms .bar.normal") == 6  # two bins of three scores by 3 methods
    assert count(opened, "#examples .card") == 12
    loaded = "[...document.images].every((i) => i.complete && i.naturalWidth > 0)"
    assert opened.value(loaded) is True


def test_the_network_is_out_of_reach(opened: Browser, store: ResultStore) -> None:
    blocked = opened.value("fetch('http://127.0.0.1:9/').then(() => 'fetched', () => 'blocked')")
    assert blocked == "blocked"
    assert any("Content Security Policy" in e for e in opened.errors)


def test_hostile_texts_are_shown_and_never_run(opened: Browser, store: ResultStore) -> None:
    choose(opened, "category", "plain")
    opened.value(f"document.getElementById('category').value = {EVIL!r}")
    opened.value("document.getElementById('category').dispatchEvent(new Event('change'))")
    assert opened.value("window.hacked === undefined") is True
    assert EVIL in opened.value("document.querySelector('#examples').textContent")
    assert count(opened, "img[src=x]") == 0
    assert opened.errors == []


def test_headings_sort_and_turn_round(opened: Browser, sweep: ResultStore) -> None:
    assert opened.value("document.querySelector('#ranking select').value") == "mean of 2"
    assert column(opened, "#ranking", 0) == ["CLIP", "WINCLIP", "ALFA"]  # by image AUROC
    scores = [float(t) for t in column(opened, "#ranking", 1)]
    assert scores == sorted(scores, reverse=True)
    head = "document.querySelectorAll('#ranking th button')"
    opened.value(f"{head}[1].click()")
    assert [float(t) for t in column(opened, "#ranking", 1)] == sorted(scores)
    opened.value(f"{head}[0].click()")
    assert column(opened, "#ranking", 0) == ["ALFA", "CLIP", "WINCLIP"]
    assert opened.value(f"{head}[0].parentNode.getAttribute('aria-sort')") == "ascending"
    # The paper's tables sort as well; their means stay below.
    table = "#overview details table"
    opened.value(f"document.querySelectorAll('{table} th button')[2].click()")
    first = opened.value(
        f"[...document.querySelector('{table}').tBodies[0].rows].map((r) => r.cells[0].textContent)"
    )
    assert first == ["BrainMRI (1)", "MVTec AD (3 of 15)", "mean of 2"]


def test_measured_stands_beside_published(opened: Browser, sweep: ResultStore) -> None:
    rows = list(zip(*(column(opened, "#against", i) for i in range(6))))
    # Means over 3 of 15 categories are no match for printed ones.
    assert ("MVTec AD", "CLIP", "55.0", "74.1", "-19.1", "no") in rows
    assert ("MVTec AD", "ALFA", "75.0", "93.2", "-18.2", "no") in rows
    assert {row[0] for row in rows} == {"MVTec AD"}
    all_datasets = "document.querySelectorAll('#against select')[1]"
    opened.value(f"{all_datasets}.value = '*'; {all_datasets}.dispatchEvent(new Event('change'))")
    assert {"MVTec AD", "BrainMRI"} == set(column(opened, "#against", 0))
    why = column(opened, "#against", 6)
    assert any("FAPrompt, Table 1" in text for text in why)


def test_choices_change_what_is_drawn(opened: Browser, sweep: ResultStore) -> None:
    assert opened.value("document.querySelector('.where').textContent") == "MVTec AD, carpet"
    opened.value("document.querySelectorAll('#bars .pick')[2].dispatchEvent(new Event('click'))")
    assert "metal_nut" in opened.value("document.querySelector('.where').textContent")
    choose(opened, "dataset", "brainmri")
    assert opened.value("document.querySelector('.where').textContent") == "BrainMRI, brain"
    choose(opened, "metric", "pixel_auroc")
    said = opened.value("document.querySelector('#bars').textContent")
    assert said == "pixel AUROC is not defined here: the images have no masks."
    hidden = "document.getElementById('seed').parentNode.hidden"
    assert opened.value(hidden) is True  # there is one seed


def test_ablations_are_ranked_and_drawn_apart(browser: Browser, tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    for method, value in (("clip", 0.7), ("faprompt@base", 0.6), ("faprompt@full", 0.8)):
        protocol = "faprompt-ablation" if "@" in method else "default"
        put(store, method, "plain", value, protocol=protocol)
    browser.open(report.write(store.root))
    tables = "[...document.querySelectorAll('#ranking tbody')].map((t) => t.rows.length)"
    assert browser.value(tables) == [1, 2]
    assert count(browser, "#bars rect") == 1
    choose(browser, "columns", "true")
    assert count(browser, "#bars rect") == 2


def test_seeds_have_a_mean_and_its_deviation(browser: Browser, tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    for seed, value in ((0, 0.6), (1, 0.8)):
        put(store, "clip", "plain", value, seed=seed)
    browser.open(report.write(store.root))
    assert column(browser, "#ranking", 1) == ["70.0 ± 14.1"]  # sample deviation
    assert browser.value("document.getElementById('seed').options.length") == 2


def test_what_was_not_computed_is_told_apart(browser: Browser, tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    for method, value in (("clip", 0.9), ("winclip", 0.8), ("alfa", None)):
        put(store, method, "plain", value)
    for cell in list(store.cells()):
        if cell.record.method == "clip":  # as a version without the metric would have stored it
            del cell.record.metrics["image_auroc"]
            store.put(cell.record)
    browser.open(report.write(store.root))
    shown = dict(zip(column(browser, "#ranking", 0), column(browser, "#ranking", 1)))
    assert shown == {"WINCLIP": "80.0", "ALFA": "–", "CLIP": "not computed"}
    bars = browser.value("[...document.querySelectorAll('#bars text')].map((t) => t.textContent)")
    assert {"not computed", "80.0", "–"} <= set(bars)
    choose(browser, "metric", "pixel_ap")
    assert "pixel AP is not defined here" in browser.value(
        "document.getElementById('bars').textContent"
    )
    assert browser.errors == []


def test_heat_map_and_outline_lie_on_the_picture(opened: Browser, sweep: ResultStore) -> None:
    boxes: list[dict[str, Any]] = opened.value(
        "[...document.querySelector('.stack').children]"
        ".map((n) => n.getBoundingClientRect().toJSON())"
    )
    picture, heat, lines = boxes
    for side in ("left", "top", "right", "bottom"):
        assert heat[side] == pytest.approx(picture[side], abs=0.5)
        assert lines[side] == pytest.approx(picture[side], abs=0.5)
    truth = opened.value("document.querySelector('.stack .truth').getBoundingClientRect().toJSON()")
    scale = picture["width"] / 224
    assert truth["left"] - picture["left"] == pytest.approx(60 * scale, abs=1.5)
    assert truth["top"] - picture["top"] == pytest.approx(40 * scale, abs=1.5)
    assert truth["width"] == pytest.approx(40 * scale, abs=2)
    fade = "document.getElementById('fade')"
    opened.value(f"{fade}.value = 0; {fade}.dispatchEvent(new Event('input'))")
    assert opened.value("getComputedStyle(document.querySelector('.heat')).opacity") == "0"


# ------------------------------------------------------------------------ picture by picture
@pytest.fixture
def compared(browser: Browser, tmp_path: Path) -> Browser:
    """Three methods that disagree on five pictures of one category, with maps of all of them."""
    store = ResultStore(tmp_path / "results")
    scores = {
        "clip": [0.1, 0.2, 0.3, 0.25, 0.9],
        "winclip": [5.0, 1.0, 2.0, 3.0, 4.0],
        "alfa": [0.5, 0.5, 0.5, 0.5, 0.5],
    }
    for name, values in scores.items():
        put(store, name, EVIL, 0.9, scores=values, defects=["", "", "", EVIL, "dent"])
    samples = []
    for uid in "abcde":
        (tmp_path / f"{uid}.jpg").write_bytes(jpeg(90 + 20 * "abcde".index(uid)))
        samples.append(Sample(str(tmp_path / f"{uid}.jpg"), 0, EVIL, uid=uid))
    gallery.keep(store.root, "folder", EVIL, "data", samples)
    browser.errors.clear()
    browser.open(report.write(store.root))
    return browser


def allow(browser: Browser, share: int) -> None:
    browser.value(
        f"(() => {{ const n = document.getElementById('allowed'); n.value = {share};"
        f" n.dispatchEvent(new Event('input')) }})()"
    )


def test_false_alarms_and_misses_are_counted_as_the_slider_moves(compared: Browser) -> None:
    labels = [0, 0, 0, 1, 1]
    for share in (0, 34, 50):
        allow(compared, share)
        found = compared.value(
            "zsadReport.compared().map((c) => [c.scores, zsadReport.limitOf(c).value,"
            " zsadReport.counts(c)])"
        )
        assert len(found) == 3
        for scores, limit, counts in found:
            over = [score > limit for score in scores]
            alarms = sum(o for o, label in zip(over, labels) if not label)
            assert alarms <= share / 100 * 3
            assert counts["falseAlarms"] == alarms
            assert counts["missed"] == 2 - sum(o for o, label in zip(over, labels) if label)
            assert sum(counts.values()) == 5
    rows = (
        "[...document.querySelectorAll('#confusion tbody tr')].map((r) => r.cells[2].textContent)"
    )
    assert compared.value(rows) == ["0 of 3", "1 of 3", "1 of 3"]  # ALFA, CLIP, WinCLIP at 50 %


def test_a_threshold_of_ones_own_goes_before_the_slider(compared: Browser) -> None:
    box = "document.querySelectorAll('#confusion input')[0]"
    compared.value(f"{box}.value = '0.5'; {box}.dispatchEvent(new Event('change'))")
    row = "[...document.querySelectorAll('#confusion tbody tr')[0].cells].map((c) => c.textContent)"
    assert compared.value(row)[2:] == ["3 of 3", "0 of 2", "2", "0", "2 of 5"]
    compared.value("document.getElementById('back').click()")
    assert compared.value(row)[2:] == ["0 of 3", "2 of 2", "0", "3", "3 of 5"]


def test_pictures_are_filtered(compared: Browser) -> None:
    allow(compared, 0)
    shown = "[...document.querySelectorAll('#gallery .file')].map((n) => n.textContent).join('')"
    assert compared.value(shown) == "abcde"
    for kind, by, expected in (
        ("missed", "clip", "d"),
        ("missed", "*", "de"),
        ("alarm", "*", ""),
        ("apart", "*", "e"),
        ("normal", "*", "abc"),
    ):
        choose(compared, "kind", kind)
        choose(compared, "by", by)
        assert compared.value(shown) == expected, kind
    choose(compared, "kind", "all")
    choose(compared, "type", "dent")
    assert compared.value(shown) == "e"
    assert compared.value("document.getElementById('shown-said').textContent") == (
        "1 of 5 pictures."
    )


def test_figures_by_type_are_those_of_the_tables(compared: Browser) -> None:
    types = [EVIL, "dent"]
    found = compared.value(
        f"zsadReport.compared().map((c) => [c.scores, {types!r}.map((t) =>"
        f" zsadReport.partedBy(c, t))])"
    )
    for scores, figures in found:
        for value, figure in zip(scores[3:], figures):
            expected = roc_auc_score([0, 0, 0, 1], [*scores[:3], value])
            assert figure == pytest.approx(expected)


@pytest.mark.parametrize("width", [1200, PHONE])
def test_one_picture_by_every_method(compared: Browser, width: int) -> None:
    compared.send(
        "Emulation.setDeviceMetricsOverride",
        width=width,
        height=800,
        deviceScaleFactor=1,
        mobile=width == PHONE,
    )
    compared.value("document.querySelectorAll('#gallery button')[1].click()")
    compared.until("document.querySelectorAll('#side canvas').length === 3")
    assert count(compared, "#side figure") == 4
    tops = "[...document.querySelectorAll('#side figure')].map((f) => f.offsetTop)"
    assert len(set(compared.value(tops))) < 4  # at least two beside each other
    name = "document.getElementById('side-name').textContent"
    assert compared.value(name) == "b: normal"
    key = "document.getElementById('side').dispatchEvent(new KeyboardEvent('keydown', {key: '%s'}))"
    compared.value(key % "ArrowRight")
    compared.value(key % "ArrowRight")
    compared.until(f"{name}.startsWith('d: anomalous')")
    assert EVIL in compared.value(name)
    before = compared.value("document.querySelector('#side figure').clientWidth")
    compared.value(key % "-")
    compared.until(f"document.querySelector('#side figure').clientWidth < {before}")
    compared.value("document.getElementById('side-close').click()")
    compared.until("document.activeElement.textContent.endsWith('d')")
    assert compared.value(STICKS_OUT) == []
    assert compared.value("window.hacked") is None
    assert compared.errors == []


def test_the_keyboard_alone_is_enough(compared: Browser) -> None:
    compared.tab_to("#ranking th button")
    sort = "document.activeElement.closest('th').getAttribute('aria-sort')"
    found = []
    for _ in range(2):
        compared.press("Enter")
        found.append((compared.value(sort), column(compared, "#ranking", 0)))
    assert {way for way, _ in found} == {"ascending", "descending"}
    assert found[0][1] == found[1][1][::-1]
    compared.tab_to("#allowed")
    said = "document.getElementById('allowed-said').textContent"
    before = compared.value(said)
    compared.press("ArrowRight")
    assert compared.value(said) != before
    compared.tab_to("#gallery button")
    compared.press("Enter")
    name = "document.getElementById('side-name').textContent"
    compared.until(f"{name}.startsWith('a: normal')")
    compared.press("ArrowRight")
    compared.until(f"{name}.startsWith('b: normal')")
    compared.press("Escape")
    compared.until("!document.getElementById('side').open")
    compared.until("document.activeElement.textContent.endsWith('b')")
    assert compared.errors == []


def test_what_is_compared_is_saved_without_formulas(compared: Browser) -> None:
    compared.value("zsadReport.compared()[0].scores[0] = '=1+1'")
    text = compared.value("zsadReport.comparedCsv()")
    lines = list(csv.reader(text.splitlines()))
    assert lines[0][:5] == ["dataset", "category", "picture", "anomalous", "type"]
    assert len(lines) == 6
    assert all(line[1] == EVIL for line in lines[1:])
    assert lines[1][5] == "'=1+1"


def test_accuracy_stands_against_time(compared: Browser) -> None:
    points = compared.value("zsadReport.costs(document.getElementById('metric').value)")
    assert [p["ms"] for p in points] == [400.0] * 3  # 2 seconds for 5 images
    assert count(compared, "#points path") == 3


OVER = """[...document.querySelectorAll('#points text.NAME')].filter((one, i, all) => {
  const a = one.getBoundingClientRect();
  return all.slice(i + 1).some((other) => {
    const b = other.getBoundingClientRect();
    const apart = a.left > b.right - 1 || b.left > a.right - 1;
    return !apart && a.top < b.bottom - 3 && b.top < a.bottom - 3;
  });
}).length"""


@pytest.mark.parametrize("width", [1200, 390])
def test_nothing_that_is_written_beside_times_lies_on_another(
    browser: Browser, sweep: ResultStore, width: int
) -> None:
    """Three methods of one time, and figures close to each other."""
    browser.open(report.write(sweep.root), width, 900)
    assert count(browser, "#points text.name") == 3
    assert 1 <= count(browser, "#points text.tick") <= 6
    for kind in ("name", "tick", "level"):
        assert browser.value(OVER.replace("NAME", kind)) == 0
    assert browser.value("zsadReport.ticks(0.3, 2.1)") == [2, 5, 10, 20, 50, 100]
    assert browser.value("zsadReport.ticks(1.9, 2.2)") == [80, 85, 90, 95, 100, 150]
    assert browser.value("zsadReport.levels(78.75, 92.7)") == [80, 82, 84, 86, 88, 90, 92]
    assert browser.value("zsadReport.levels(0, 100)") == [0, 20, 40, 60, 80, 100]
    assert browser.value("zsadReport.levels(97.3, 99.9)") == [97.5, 98, 98.5, 99, 99.5]
    assert browser.value("zsadReport.ticks(-1, 4)") == [0.1, 1, 10, 100, 1000, 10000]


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1200, PHONE])
def test_axe_finds_nothing_serious(
    width: int, dark: bool, browser: Browser, sweep: ResultStore
) -> None:
    """Runs where ``ZSAD_AXE`` names the ``axe.min.js`` of npm's axe-core."""
    script = os.environ.get("ZSAD_AXE")
    if not script:
        pytest.skip("ZSAD_AXE names no axe.min.js (npm pack axe-core)")
    browser.open(report.write(sweep.root), width, 900, dark)
    browser.value(f"{Path(script).read_text(encoding='utf-8')};0")
    for press in ("0", "document.querySelector('#gallery button').click()"):
        browser.value(press)
        found = browser.value(
            "axe.run().then((r) => r.violations.filter((v) => ['serious', 'critical']"
            ".includes(v.impact)).map((v) => [v.id, v.nodes[0].html]))"
        )
        assert found == []


def test_a_reason_shows_its_place(opened: Browser, sweep: ResultStore) -> None:
    reason = "document.querySelector('.card .placed')"
    opened.value(f"{reason}.dispatchEvent(new Event('mouseenter'))")
    assert count(opened, ".region") == 1
    box = opened.value("document.querySelector('.region').getAttribute('x')")
    assert float(box) == 0.25 * 224
    opened.value(f"{reason}.dispatchEvent(new Event('mouseleave'))")
    assert count(opened, ".region") == 0


@pytest.mark.parametrize("width", [320, PHONE, 768])
def test_a_phone_needs_no_sideways_scrolling(
    browser: Browser, store: ResultStore, width: int
) -> None:
    """With a category name of many signs and undefined figures."""
    browser.open(report.write(store.root), width, 844)
    for part in ("category", "dataset"):
        value = browser.value(f"document.getElementById('{part}').value")
        choose(browser, part, value.replace("\\", "\\\\").replace("'", "\\'"))
    scroll, inner = browser.value(WIDTHS)
    assert inner == width
    assert scroll <= width, browser.value(STICKS_OUT)
    assert browser.value(STICKS_OUT) == []
    size = float(browser.value("parseFloat(getComputedStyle(document.body).fontSize)"))
    assert size >= 14  # readable without zooming


def test_what_the_report_says_lies_in_landmarks(opened: Browser) -> None:
    outside = "[...document.body.children].map((n) => n.localName).filter((n) => n !== 'script')"
    assert opened.value(outside) == ["header", "main", "footer"]


def test_night_colours_keep_the_contrast(browser: Browser, sweep: ResultStore) -> None:
    page = report.write(sweep.root)
    for dark in (False, True):
        browser.open(page, dark=dark)
        text, ground = (
            [
                int(v)
                for v in browser.value(f"getComputedStyle(document.body).{name}")[4:-1].split(",")
            ]
            for name in ("color", "backgroundColor")
        )
        assert contrast(text, ground) > 7
        assert (sum(ground) < sum(text)) == dark


def contrast(one: list[int], other: list[int]) -> float:
    """The contrast ratio of WCAG 2."""
    lights = sorted(
        sum(
            part * (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4)
            for part, c in zip((0.2126, 0.7152, 0.0722), (v / 255 for v in colour))
        )
        for colour in (one, other)
    )
    return (lights[1] + 0.05) / (lights[0] + 0.05)

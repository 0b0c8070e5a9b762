"""The page of own pictures: complete, small, true to the predictions, and usable in a browser."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from tests.report import browser as chromium
from zsad.data.own_outputs import is_own_output
from zsad.errors import DataError, RequestError
from zsad.inference import outputs
from zsad.inference.page import MOST_BYTES, PredictionPage
from zsad.inference.pictures import Photo, failed
from zsad.inference.prediction import Prediction
from zsad.page import embedded
from zsad.runtime.thresholds import Thresholds
from zsad.types import Explanation

EVIL = "<img src=x onerror=window.hacked=1>"
LIMITS = Thresholds(0.5, 0.6)


def predictions(folder: Path, count: int = 5) -> list[tuple[Prediction, Photo]]:
    """Noisy pictures with a bright spot in the map of every second one, and one that is broken."""
    rng = np.random.default_rng(5)
    found = []
    for i in range(count):
        name = f"{EVIL if i == 1 else 'part'}-{i}"
        path = folder / f"{name}.png"
        Image.fromarray(rng.integers(0, 255, (90, 120, 3), dtype=np.uint8)).save(path)
        values = (rng.random((16, 16)) * 0.5).astype(np.float32)
        if i % 2:
            values[4:9, 5:11] = 0.6 + 0.07 * i
        one = Prediction(
            (i + 1) / (count + 1),
            values,
            [Explanation(f"{EVIL} a scratch", 0.4)],
            path=str(path),
            thresholds=LIMITS,
            size=(90, 120),
            made_by={"method": "winclip", "class_name": EVIL, "mark": "random weights"},
        )
        found.append((one, Photo(path, Path(name))))
    broken = folder / "broken.png"
    return [*found, (failed(str(broken), f"{EVIL} is no picture"), Photo(broken, Path("broken")))]


def write(tmp_path: Path, one_file: bool = False, count: int = 5) -> list[Prediction]:
    (tmp_path / "in").mkdir()
    found = predictions(tmp_path / "in", count)
    with outputs.Writer(tmp_path / "out", ("page", "csv"), one_file=one_file) as writer:
        for prediction, photo in found:
            writer.put(prediction, photo)
    return [prediction for prediction, _ in found]


def data_of(page: Path) -> dict[str, Any]:
    text = page.read_text(encoding="utf-8")
    (found,) = re.findall(r'<script id="data" type="application/json">(.*?)</script>', text, re.S)
    return dict(json.loads(found))


@pytest.mark.parametrize("one_file", [False, True])
def test_it_says_what_the_predictions_say(one_file: bool, tmp_path: Path) -> None:
    found = write(tmp_path, one_file)
    data = data_of(tmp_path / "out" / "index.html")
    for entry, prediction in zip(data["pictures"], found):
        assert entry["path"] == prediction.path
        if prediction.error:
            assert entry["error"] == prediction.error
            continue
        findings, mask = prediction.findings, prediction.mask
        assert findings is not None
        assert mask is not None
        assert entry["score"] == prediction.image_score
        assert (entry["peak"] >= LIMITS.pixel) == mask.any()
        assert entry["regions"] == len(findings.regions)
        assert entry["share"] == pytest.approx(findings.share)
    assert data["made_by"]["mark"] == "random weights"
    files = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.*")}
    if one_file:
        assert files == {"index.html", "results.csv"}
        assert all(e["photo"].startswith("data:image/webp") for e in data["pictures"][:-1])
    else:
        assert {"thumbs/part-0.thumb.webp", "thumbs/part-0.layer.webp"} <= files
        assert "thumbs/part-0.detail.js" in files


def test_small_pictures_are_small_and_their_own(tmp_path: Path) -> None:
    write(tmp_path)
    thumbs = tmp_path / "out" / "thumbs"
    small = sorted(thumbs.glob("*.webp"))
    assert small
    for path in small:
        assert path.stat().st_size <= MOST_BYTES + 2000  # with what made it
        assert is_own_output(path)
    with Image.open(thumbs / "part-0.layer.webp") as layer:
        assert layer.mode == "RGBA"


def test_a_link_in_the_output_folder_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thumbs").symlink_to(tmp_path / "elsewhere")
    ((prediction, photo), *_) = predictions(tmp_path / "in", 1)
    writer = outputs.Writer(tmp_path / "out", ("page",))
    with pytest.raises(DataError, match="a link leads out of"):
        writer.put(prediction, photo)
    assert not list((tmp_path / "elsewhere").iterdir())


def test_nothing_is_written_without_a_picture(tmp_path: Path) -> None:
    assert PredictionPage(tmp_path, lambda path, content: str(path)).close() is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({}, "needs --out DIR"),
        ({"out": "found", "save": "heat,json"}, "'page' among the kinds"),
    ],
)
def test_one_file_that_cannot_be_meant(words: dict[str, str], said: str, tmp_path: Path) -> None:
    import zsad

    path = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(path)
    if "out" in words:
        words = {**words, "out": str(tmp_path / "found")}
    with pytest.raises(RequestError, match=said):
        next(iter(zsad.predict("clip", path, "nut", one_file=True, **words)))  # type: ignore[arg-type]


# ------------------------------------------------------------------------- in a browser
def typed(browser: chromium.Browser, name: str, value: object) -> None:
    browser.value(
        f"(() => {{ const n = document.getElementById('{name}'); n.value = '{value}';"
        f" n.dispatchEvent(new Event('input')) }})()"
    )


@pytest.mark.parametrize("one_file", [False, True])
def test_it_decides_anew_as_predict_does(
    one_file: bool, browser: chromium.Browser, tmp_path: Path
) -> None:
    found = [p for p in write(tmp_path, one_file, count=8) if not p.error]
    browser.errors.clear()
    browser.open(tmp_path / "out" / "index.html")
    for image in (0.0, found[3].image_score, 0.51, 2.0):
        for pixel in (0.2, 0.6, 0.74, 0.95):
            typed(browser, "image-number", image)
            typed(browser, "pixel-number", pixel)
            said = decided(browser)
            changed = 0
            for prediction in found:
                prediction.thresholds = LIMITS
                was = prediction.anomalous
                prediction.set_by_hand(image, pixel)
                mask = prediction.mask
                assert mask is not None
                verdict = "anomalous" if prediction.anomalous else "normal"
                assert said[prediction.path] == [verdict, bool(mask.any())]
                changed += prediction.anomalous != was
            assert f"({changed} changed)" in browser.value(
                "document.getElementById('counts').textContent.split(';')[1]"
            )
    assert browser.errors == []


def decided(browser: chromium.Browser) -> dict[str, list[Any]]:
    """Verdict and mark of every picture, by its path."""
    found: dict[str, list[Any]] = browser.value(
        "Object.fromEntries(zsadPage.pictures.filter((p) => !p.error).map((p) =>"
        " [p.path, [zsadPage.verdict(p), zsadPage.isMarked(p)]]))"
    )
    return found


def test_the_number_that_is_shown_decides_as_the_threshold_does(
    browser: chromium.Browser, tmp_path: Path
) -> None:
    """A calibrated threshold has 17 digits, and a slider stops anywhere."""
    (tmp_path / "in").mkdir()
    pairs = predictions(tmp_path / "in", 8)[:-1]
    limits = Thresholds(0.44444999999999996, 0.6, rule="calibrated", normal_pictures=4)
    close = (0.4444499999, 0.44445, 0.4444, 0.9672297835123457, 0.9672297, 0.2, 0.96723, 0.3)
    with outputs.Writer(tmp_path / "out", ("page",)) as writer:
        for (prediction, photo), score in zip(pairs, close):
            prediction.image_score, prediction.thresholds = score, limits
            writer.put(prediction, photo)
    found = [prediction for prediction, _ in pairs]
    by_run = {p.path: "anomalous" if p.anomalous else "normal" for p in found}
    browser.open(tmp_path / "out" / "index.html")
    shown = "document.getElementById('%s-number').value"
    text = browser.value(shown % "image")
    assert text == "0.44445"  # 0.444 and 0.4444 would call others anomalous
    assert {p.path: "anomalous" if p.image_score >= float(text) else "normal" for p in found} == (
        by_run
    )
    for part in (0.01, 0.3217, 0.4449123, 0.967229783, 1 / 3):
        for kind in ("image", "pixel"):
            where = f"document.getElementById('{kind}-slider')"
            browser.value(
                f"{where}.value = +{where}.min + {part} * ({where}.max - {where}.min);"
                f" {where}.dispatchEvent(new Event('input'))"
            )
        image, pixel = (browser.value(shown % kind) for kind in ("image", "pixel"))
        assert max(len(image), len(pixel)) <= 12
        said = decided(browser)
        for prediction in found:
            prediction.set_by_hand(float(image), float(pixel))
            mask = prediction.mask
            assert mask is not None
            verdict = "anomalous" if prediction.anomalous else "normal"
            assert said[prediction.path] == [verdict, bool(mask.any())]


def test_a_score_and_its_threshold_are_told_apart(
    browser: chromium.Browser, tmp_path: Path
) -> None:
    write(tmp_path, count=2)
    browser.open(tmp_path / "out" / "index.html")
    score = browser.value("zsadPage.pictures[0].score")  # 1/3
    typed(browser, "image-number", 0.33334)
    browser.value("document.querySelectorAll('.card button')[1].click()")
    assert "Score0.33333, anomalous from 0.33334" in browser.value(
        "document.getElementById('about').textContent"
    )
    assert score == pytest.approx(1 / 3)


@pytest.mark.parametrize("width", [1200, 390])
def test_a_reader_finds_the_worst_picture_and_where(
    width: int, browser: chromium.Browser, tmp_path: Path
) -> None:
    write(tmp_path)
    browser.errors.clear()
    browser.requests.clear()
    browser.open(tmp_path / "out" / "index.html", width=width)
    names = browser.value("[...document.querySelectorAll('.card .name')].map((n) => n.textContent)")
    assert names == ["part-4", "part-3", "part-2", f"{EVIL}-1", "part-0", "broken"]
    browser.value("document.querySelectorAll('.card button')[1].click()")
    browser.value("new Promise((done) => setTimeout(done, 300))")
    assert (
        browser.value("document.querySelectorAll('#canvas polygon').length") == 2
    )  # dark rim, white
    about = browser.value("document.getElementById('about').textContent")
    assert "anomalous" in about
    assert "a scratch" in about
    keys = (
        "document.getElementById('viewer').dispatchEvent(new KeyboardEvent('keydown', {key: '%s'}))"
    )
    browser.value(keys % "ArrowRight")
    assert browser.value("document.getElementById('viewer-name').textContent") == "part-2"
    before = browser.value("document.getElementById('canvas').clientWidth")
    browser.value(keys % "+")
    assert browser.value("document.getElementById('canvas').clientWidth") > before
    browser.value("document.getElementById('close').click()")
    typed(browser, "search", "3")
    assert browser.value("document.querySelectorAll('.card').length") == 1
    assert browser.value("[document.documentElement.scrollWidth, innerWidth]") == [width, width]
    assert browser.value("window.hacked") is None
    assert browser.errors == []
    assert all(r.startswith(("file:", "data:")) for r in browser.requests)


@pytest.mark.parametrize("width", [1200, 390])
def test_the_keyboard_alone_is_enough(
    width: int, browser: chromium.Browser, tmp_path: Path
) -> None:
    write(tmp_path)
    browser.open(tmp_path / "out" / "index.html", width=width)
    shown = "document.getElementById('image-number').value"
    browser.tab_to("#image-slider")
    before = browser.value(shown)
    browser.press("ArrowRight")
    assert float(browser.value(shown)) > float(before)
    assert browser.tab_to(".card button").startswith("part-4")
    browser.press("Enter")
    name = "document.getElementById('viewer-name').textContent"
    assert browser.value(name) == "part-4"
    browser.press("ArrowRight")
    assert browser.value(name) == "part-3"
    browser.tab_to("#about a")  # the file
    browser.press("Escape")
    browser.until("!document.getElementById('viewer').open")
    browser.until("document.activeElement.textContent.startsWith('part-3')")  # where it ended


def with_pictures(folder: Path, number: int) -> Path:
    """A page of the entries of a few pictures many times over, under names and scores of their
    own."""
    source = folder / "out" / "index.html"
    text = source.read_text(encoding="utf-8")
    data = data_of(source)
    few = [p for p in data["pictures"] if "error" not in p]
    many = [
        {**few[i % len(few)], "name": f"part-{i}", "path": f"p/{i}.png", "score": i / number}
        for i in range(number)
    ]
    begin = text.index('<script id="data"')
    end = text.index("</script>", begin)
    head = '<script id="data" type="application/json">'
    page = source.with_name(f"{number}.html")
    whole = text[:begin] + head + embedded({**data, "pictures": many}) + text[end:]
    page.write_text(whole, encoding="utf-8")
    return page


class Work(NamedTuple):
    """What a browser does to show a page, counted."""

    cards: int  # that are laid out; the others are passed over until they come near
    layouts: int  # one after the other, since the page was asked for
    elements: int
    steps: int  # calls of functions and turns of loops of the page's script


def work_to_open(browser: chromium.Browser, page: Path) -> Work:
    browser.send("Performance.enable")
    browser.send("Profiler.enable")
    browser.send("Profiler.startPreciseCoverage", callCount=True, detailed=True)
    browser.open(page)
    browser.until("document.querySelectorAll('.card').length")
    browser.value("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    metrics = browser.send("Performance.getMetrics")["metrics"]
    scripts = browser.send("Profiler.takePreciseCoverage")["result"]
    browser.send("Profiler.disable")
    shown = "[...document.querySelectorAll('.card button')].filter((b) => b.checkVisibility(%s))"
    return Work(
        browser.value(f"{shown}.length" % "{ contentVisibilityAuto: true }"),
        next(int(m["value"]) for m in metrics if m["name"] == "LayoutCount"),
        browser.value("document.querySelectorAll('*').length"),
        sum(r["count"] for s in scripts for f in s["functions"] for r in f["ranges"]),
    )


def test_opening_ten_times_the_pictures_takes_ten_times_the_work(
    browser: chromium.Browser, tmp_path: Path
) -> None:
    """Thousands of pictures open at once: what is laid out does not grow with their number, and the
    script looks at each a few times, not at each beside every other."""
    write(tmp_path)
    few = work_to_open(browser, with_pictures(tmp_path, 200))
    many = work_to_open(browser, with_pictures(tmp_path, 2000))
    assert few.cards == many.cards < 100
    assert many.layouts < few.layouts + 50
    assert many.elements < 10 * 2000
    assert many.steps < 20 * few.steps  # sorting takes n log n


def test_thousands_of_pictures_open_and_scroll(browser: chromium.Browser, tmp_path: Path) -> None:
    write(tmp_path)
    browser.open(with_pictures(tmp_path, number := 5000))
    assert browser.value("document.querySelectorAll('.card').length") == number
    top = browser.value("scrollTo(0, 1e9); scrollY")
    assert top > number  # a row of six is some 270 pixels
    seen = "[...document.querySelectorAll('.card .name')].at(-1).getBoundingClientRect().top"
    browser.until(f"(scrollTo(0, 1e9), {seen} < innerHeight)")
    typed(browser, "search", f"part-{number - 1}")
    assert browser.value("document.querySelectorAll('.card').length") == 1


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1200, 390])
def test_axe_finds_nothing_serious(
    width: int, dark: bool, browser: chromium.Browser, tmp_path: Path
) -> None:
    """Runs where ``ZSAD_AXE`` names the ``axe.min.js`` of npm's axe-core."""
    script = os.environ.get("ZSAD_AXE")
    if not script:
        pytest.skip("ZSAD_AXE names no axe.min.js (npm pack axe-core)")
    write(tmp_path)
    browser.open(tmp_path / "out" / "index.html", width, 900, dark)
    browser.value(f"{Path(script).read_text(encoding='utf-8')};0")
    for press in ("0", "document.querySelector('.card button').click()"):
        browser.value(press)
        browser.value("new Promise((done) => setTimeout(done, 300))")
        found = browser.value(
            "axe.run().then((r) => r.violations.filter((v) => ['serious', 'critical']"
            ".includes(v.impact)).map((v) => [v.id, v.nodes[0].html]))"
        )
        assert found == []


def test_a_table_copied_from_the_page_holds_no_formula(
    browser: chromium.Browser, tmp_path: Path
) -> None:
    write(tmp_path)
    browser.open(tmp_path / "out" / "index.html")
    browser.value("zsadPage.pictures[0].path = '=1+1'; zsadPage.pictures[1].path = 'a,\"b'")
    text = browser.value("zsadPage.csv()")
    assert "'=1+1" in text
    assert '"a,""b"' in text

"""The page of own pictures: complete, small, true to the predictions, and usable in a browser."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

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
            said = browser.value(
                "Object.fromEntries(zsadPage.pictures.filter((p) => !p.error).map((p) =>"
                " [p.path, [zsadPage.verdict(p), zsadPage.isMarked(p)]]))"
            )
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

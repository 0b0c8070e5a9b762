"""The certificate's page in a browser, as its readers see it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.report import browser as chromium
from zsad.certificate import figures, page
from zsad.certificate.official import OfficialFile
from zsad.certificate.recipe import Slip
from zsad.certificate.running import Certificate
from zsad.checkpoints.released import content_of
from zsad.results.published import MEAN


def certificate(folder: Path, unlike: tuple[str, ...] = ()) -> Certificate:
    """Two targets with long names of categories, one of which does not agree."""
    path = folder / "a_checkpoint_with_a_long_name.pth"
    path.write_bytes(b"tensors")
    lines = [
        figures.Line(target, category, metric, 88.7, 91.5, measured)
        for target in ("mvtec", "visa")
        for metric in ("image_auroc", "pixel_aupro")
        for category, measured in (("metal_nut", 88.7), ("toothbrush", 100.0), (MEAN, 94.35))
    ]
    verdict = figures.verdict(lines, 0.1, "the authors' released log")
    slip = Slip("position filter", "position embeddings are enlarged otherwise", {"a": 1})
    worth = figures.Worth(slip.name, "visa", {"image_auroc": (88.7, 88.0)})
    official = OfficialFile("checkpoint for visa", path, content_of(path), "FiLo a.pth", "mvtec")
    return Certificate(
        "A method: reproduction of the released figures",
        verdict,
        {"mvtec": verdict, "visa": verdict},
        tuple(lines),
        (worth,),
        (slip,),
        (official,),
        unlike,
        ("Set by the caller: a=b.",),
        {"SHA-256 of the weights": "0" * 64, "command": f"zsad reproduce filo {'x' * 90}"},
    )


@pytest.mark.parametrize("width", [390, 1280])
def test_every_column_of_figures_is_seen(
    width: int, browser: chromium.Browser, tmp_path: Path
) -> None:
    made = page.write(certificate(tmp_path), tmp_path / "out")
    browser.open(made.written["html"], width)
    assert browser.errors == []
    assert browser.value("document.documentElement.scrollWidth") <= width
    tables = "[...document.querySelectorAll('.figures .wide')]"
    assert browser.value(f"{tables}.length") == 4
    assert browser.value(f"{tables}.every(t => t.scrollWidth <= t.clientWidth)")
    assert browser.value("getComputedStyle(document.querySelector('.caution')).display") == "none"


def test_the_log_is_that_of_the_targets() -> None:
    logs = [figures.sources("filo", "FiLo's released log", of) for of in (["visa"], ["mvtec"])]
    assert ["visa_log" in s for s in logs] == [True, False]
    assert ["mvtec_log" in s for s in logs] == [False, True]
    assert figures.sources("filo", "", ["visa"]) == ""


def test_a_verdict_that_says_nothing_says_so_beside_it(tmp_path: Path) -> None:
    made = page.write(certificate(tmp_path, ("At most 2 images per category.",)), tmp_path / "out")
    assert f"{page.CAUTION}" in page.shown(made)
    for kind in ("html", "tex"):
        text = made.written[kind].read_text(encoding="utf-8")
        assert "This is not the authors" in text
        assert "At most 2 images per category" in text
        assert content_of(made.files[0].path).sha256 in text


def test_what_was_not_measured_is_said_beside_the_verdict() -> None:
    """ "1 of 1 category within 0.1" after a download that broke off."""
    from tests.results.test_conditions import on

    leather = on("leather", 4, 11)
    assert figures.lacking({("mvtec", "leather"): leather}, {"mvtec": 15}) == [
        "mvtec: 1 of 15 categories measured; verdicts are of these alone.",
        "mvtec: only 4 of 32 normal and 11 of 92 anomalous images.",
    ]
    whole = on("leather", 32, 92)
    assert figures.lacking({("mvtec", "leather"): whole}, {"mvtec": 1}) == []
    whole.info["skipped"] = ["x.png"]
    (said,) = figures.lacking({("mvtec", "leather"): whole}, {"mvtec": 1})
    assert said == "mvtec: scored without images that cannot be read."

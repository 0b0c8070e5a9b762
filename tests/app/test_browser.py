"""The app as a person uses it, in a real Chromium, at desktop and phone size."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from tests.app.conftest import EVIL, Running, picture
from tests.app.driving import READY, SHOWN, score, typed
from tests.report.browser import Browser


@pytest.mark.parametrize("width", [1200, 390])
def test_a_person_finds_what_is_wrong(
    width: int, app: Running, browser: Browser, tmp_path: Path
) -> None:
    browser.errors.clear()
    browser.requests.clear()
    browser.open(f"{app.address}/", width=width)
    browser.until(READY)
    assert browser.value("document.querySelectorAll('#grid, #choose')[0].offsetParent") is None
    parts = [picture(tmp_path / name, i) for i, name in enumerate(("a.png", f"{EVIL}.png"))]
    score(browser)  # without a picture
    typed(browser, "class-name", f"nut {EVIL}")
    score(browser)
    browser.until("!document.getElementById('wrong').hidden")
    assert "no pictures yet" in browser.value("document.getElementById('wrong').textContent")
    browser.upload("#pictures", *parts)
    browser.upload("#good", *[picture(tmp_path / f"good{i}.png", i + 9) for i in range(2)])
    browser.until("document.getElementById('good-part').open")
    score(browser)
    browser.until(SHOWN)
    browser.until(READY)
    assert browser.value("document.getElementById('class-name').value") == f"nut {EVIL}"
    assert browser.value("document.querySelectorAll('.card').length") == 2
    assert browser.value("document.getElementById('like-part').hidden") is False
    browser.value("document.querySelector('.card button').click()")
    browser.until("document.querySelector('#about .verdict') !== null")
    browser.until("[...document.querySelectorAll('#canvas img')].every((i) => i.naturalWidth > 0)")
    browser.value("document.getElementById('close').click()")
    assert browser.value("[document.documentElement.scrollWidth, innerWidth]") == [width, width]
    assert browser.value("window.hacked") is None
    assert browser.errors == []
    foreign = [r for r in browser.requests if not r.startswith((app.address, "data:", "blob:"))]
    assert foreign == []


def test_the_keyboard_alone_is_enough(app: Running, browser: Browser, tmp_path: Path) -> None:
    browser.open(f"{app.address}/")
    browser.until(READY)
    browser.upload("#pictures", picture(tmp_path / "a.png"))  # the dialog is the system's own
    browser.tab_to("#class-name")
    browser.send("Input.insertText", text="nut")
    browser.press("Enter")
    browser.until(SHOWN)
    browser.until(READY)
    assert "a.png" in browser.tab_to(".card button")
    browser.press("Enter")
    browser.until("document.querySelector('#about .verdict') !== null")
    browser.press("Escape")
    browser.until("!document.getElementById('viewer').open")
    assert browser.errors == []


def test_pictures_are_dropped_and_pasted(app: Running, browser: Browser, tmp_path: Path) -> None:
    browser.open(f"{app.address}/")
    browser.until(READY)
    raw = base64.b64encode(picture(tmp_path / "a.png").read_bytes()).decode()
    transfer = (
        f"const held = new DataTransfer(); held.items.add(new File([Uint8Array.from(atob('{raw}'),"
        f" (c) => c.charCodeAt(0))], {EVIL!r}));"
    )
    said = "document.getElementById('pictures-said').textContent"
    browser.value(
        f"{{ {transfer} document.body.dispatchEvent(new ClipboardEvent('paste',"
        f" {{ clipboardData: held, bubbles: true }})) }}"
    )
    assert browser.value(said).startswith(EVIL)
    for place, box in (("document.body", "pictures-said"), ("#good-drop", "good-said")):
        node = place if place == "document.body" else f"document.querySelector('{place}')"
        browser.value(
            f"{{ {transfer} {node}.dispatchEvent(new DragEvent('drop',"
            f" {{ dataTransfer: held, bubbles: true, cancelable: true }})) }}"
        )
        assert browser.value(f"document.getElementById('{box}').textContent").startswith(EVIL)
    typed(browser, "class-name", "nut")
    score(browser)
    browser.until(SHOWN)
    assert browser.value("document.querySelector('.card .name').textContent").startswith("<img")
    assert browser.value("window.hacked") is None


def test_what_went_wrong_is_said(app: Running, browser: Browser, tmp_path: Path) -> None:
    broken = tmp_path / f"{EVIL}.png"
    broken.write_bytes(b"nothing")
    browser.open(f"{app.address}/")
    browser.until(READY)
    browser.upload("#pictures", broken)
    typed(browser, "class-name", "nut")
    score(browser)
    browser.until("!document.getElementById('wrong').hidden")
    text = browser.value("document.getElementById('wrong').textContent")
    assert text == f"{EVIL}.png: not an image of a known format (it is text: 'nothing')"
    assert browser.value("window.hacked") is None


def test_methods_without_a_state_cannot_be_chosen(app: Running, browser: Browser) -> None:
    browser.open(f"{app.address}/")
    browser.until(READY)
    typed(browser, "backbone", "vit-l-14-336")
    options = "[...document.getElementById('method').options]"
    off = f"{options}.filter((o) => o.disabled).map((o) => o.value)"
    assert "faprompt" in browser.value(off)
    assert "winclip" not in browser.value(off)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1200, 390])
def test_axe_finds_nothing_serious(
    width: int, dark: bool, app: Running, browser: Browser, tmp_path: Path
) -> None:
    """Runs where ``ZSAD_AXE`` names the ``axe.min.js`` of npm's axe-core."""
    script = os.environ.get("ZSAD_AXE")
    if not script:
        pytest.skip("ZSAD_AXE names no axe.min.js (npm pack axe-core)")
    browser.open(f"{app.address}/", width, 900, dark)
    browser.until(READY)
    for turn in range(2):
        browser.value(f"{Path(script).read_text(encoding='utf-8')};0")
        found = browser.value(
            "axe.run().then((r) => r.violations.filter((v) => ['serious', 'critical']"
            ".includes(v.impact)).map((v) => [v.id, v.nodes[0].html]))"
        )
        assert found == []
        if not turn:
            browser.upload("#pictures", picture(tmp_path / "a.png"))
            typed(browser, "class-name", "nut")
            score(browser)
            browser.until(SHOWN)

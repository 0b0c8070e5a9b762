"""What single prompts find: strips of maps, their page, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize

import zsad
from tests.inference.test_page import EVIL
from tests.report import browser as chromium
from zsad.data.own_outputs import is_own_output
from zsad.errors import RequestError
from zsad.inference import outputs, prompts_page
from zsad.inference.pictures import Photo
from zsad.inference.prediction import Prediction
from zsad.inference.prompts_page import SIDE, strip
from zsad.types import PromptView

MADE_BY = {"method": "faprompt", "class_name": EVIL, "mark": "random weights"}


def view(prompts: int, seed: int = 0, kept: int | None = None, maps: bool = True) -> PromptView:
    """One normal prompt and some abnormal ones, each of which finds another cell of four."""
    draw = torch.Generator().manual_seed(seed)
    planes = torch.zeros(prompts, 2, 2)
    for i in range(prompts):
        planes[i].view(-1)[i % 4] = 1.0
    return PromptView(
        [f"{EVIL} {i}" for i in range(prompts + 1)],
        torch.arange(prompts + 1) > 0,
        normalize(torch.randn(prompts + 1, 8, generator=draw), dim=-1),
        normalize(torch.randn(8, generator=draw), dim=-1),
        torch.arange(prompts + 1) < (prompts + 1 if kept is None else kept),
        planes if maps else None,
    )


def write(folder: Path, views: list[PromptView]) -> Path:
    with outputs.Writer(folder / "out", ("prompts",)) as writer:
        for i, one in enumerate(views):
            path = folder / ("good" if i % 2 else "bad") / f"{i}.png"
            path.parent.mkdir(exist_ok=True)
            Image.new("RGB", (40, 20), (90, 90, 90)).save(path)
            found = Prediction(0.5, np.zeros((4, 4), np.float32), path=str(path), size=(20, 40))
            found.made_by, found.prompts = dict(MADE_BY), one
            writer.put(found, Photo(path, Path(path.parent.name, str(i))))
    return folder / "out"


def test_every_prompt_has_its_own_map_in_the_strip() -> None:
    picture = Image.new("RGB", (400, 200), (90, 90, 90))
    drawn = np.asarray(strip(picture, view(7))).astype(int)
    assert drawn.shape == (2 * SIDE // 2, 6 * SIDE, 3)  # the picture and seven maps, six in a row
    rows, columns = range(0, SIDE, SIDE // 2), range(0, 6 * SIDE, SIDE)
    tiles = [drawn[r : r + SIDE // 2, c : c + SIDE] for r in rows for c in columns]
    for i, tile in enumerate(tiles[1:8]):
        hot = np.abs(tile - 90).sum(-1) > 60
        cells = [part for half in np.split(hot, 2) for part in np.split(half, 2, axis=1)]
        assert int(np.argmax([part.mean() for part in cells])) == i % 4, i
    assert np.abs(tiles[0][30:] - 90).max() <= 1  # the picture itself


def test_the_page_holds_all_pictures_and_says_what_it_is(tmp_path: Path) -> None:
    out = write(tmp_path, [view(3)] * 4)
    text = (out / "prompts.html").read_text(encoding="utf-8")
    assert "1 normal prompt and 3 abnormal prompts on 4 pictures." in text
    assert "random weights" in text
    assert "These are principal components" in text
    assert EVIL not in text
    assert len(re.findall('<img src="(?:good|bad)/[0-3].prompts.webp"', text)) == 4
    assert "normal by its folder" in text
    maps, space = text.split("<figure>")[1:3]
    assert maps.count("<circle") == 3 * 4 + 3 + 2  # points; keys of prompts and of folders
    assert "After the method" not in space  # all prompts counted
    (one,) = out.glob("bad/0.*")
    assert is_own_output(one)


def test_what_a_method_dropped_is_seen_picture_by_picture(tmp_path: Path) -> None:
    out = write(tmp_path, [view(3, kept=2, maps=False), view(3, kept=4, maps=False)])
    text = (out / "prompts.html").read_text(encoding="utf-8")
    assert text.count("After the method&#x27;s choice") == 2  # of one picture: title and caption
    assert "1 of 1 normal and 1 of 3 abnormal prompts; the others are grey" in text
    assert "The method makes no map of a single prompt." in text
    assert [p.name for p in out.iterdir()] == ["prompts.html"]


def test_a_long_list_is_cut_and_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts_page, "MOST", 2)
    out = write(tmp_path, [view(2, maps=False)] * 3)
    text = (out / "prompts.html").read_text(encoding="utf-8")
    assert "on 3 pictures. The views and the list hold the first 2." in text


def test_a_method_without_prompts_to_show_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(path)
    with pytest.raises(RequestError, match=r"'winclip' shows no single prompts.*alfa, faprompt"):
        next(iter(zsad.predict("winclip", path, "nut", save="prompts", out=tmp_path / "o")))


def test_predict_draws_the_prompts_of_a_method(tmp_path: Path) -> None:
    """From pictures to files, with the state that comes along."""
    path = tmp_path / "a.png"
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    options = {"backbone": "zsad-tiny", "device": "cpu", "save": "prompts", "out": tmp_path / "o"}
    (found,) = zsad.predict("faprompt", path, "nut", **options)  # type: ignore[arg-type]
    assert found.prompts is not None
    assert found.prompts.maps is not None
    assert found.prompts.maps.shape == (10, 14, 14)
    assert len(found.prompts.maps.flatten(1).unique(dim=0)) > 1  # not ten times the same
    assert found.files == {"prompts": str(tmp_path / "o" / "a.prompts.webp")}
    with Image.open(found.files["prompts"]) as made:
        assert made.width == 6 * SIDE


@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_it(width: int, browser: chromium.Browser, tmp_path: Path) -> None:
    out = write(tmp_path, [view(3, kept=3)] * 2)
    browser.open(out / "prompts.html", width)
    assert browser.errors == []
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value("[...document.images].every(i => i.naturalWidth > 0)")
    assert browser.value("document.querySelectorAll('figure > svg').length") == 4
    assert browser.value("window.hacked === undefined")

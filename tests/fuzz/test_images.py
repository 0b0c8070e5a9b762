"""Every image is loaded right, or refused in one line that names it; none takes long."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from tests.fault.place import Place
from tests.fault.process import zsad
from tests.fuzz.limits import seconds
from tests.fuzz.pictures import Case, cases
from zsad.data.images import image_size, mask_values, read_image
from zsad.errors import DataError

pytestmark = pytest.mark.fault

LIMIT = 20.0  # seconds for one file; a hang is minutes


@pytest.fixture(scope="module")
def pictures() -> list[Case]:
    return cases()


@pytest.fixture(scope="module")
def folder(pictures: list[Case], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    for case in pictures:
        (root / case.name).write_bytes(case.content)
    return root


def verdict(path: Path, case: Case) -> str:
    """What is wrong with how a file is treated; "" where it is treated right."""
    try:
        with seconds(LIMIT, case.name):
            pixels = np.asarray(read_image(path)).astype(int)
            height_width = image_size(path)
    except DataError as error:
        text = str(error)
        if str(path) not in text or "\n" in text or len(text) > len(str(path)) + 300:
            return f"{case.name}: refused in other words than one line that names it: {text!r}"
        sound = not isinstance(case.expected, str)
        return f"{case.name}: is sound, refused: {text}" if sound else ""
    except Exception as error:
        return f"{case.name}: {type(error).__name__}: {error}"
    if isinstance(case.expected, str):
        return f"{case.name}: was loaded" if case.expected == "refused" else ""
    if pixels.shape != case.expected.shape or height_width != case.expected.shape[:2]:
        return f"{case.name}: shape {pixels.shape}, size {height_width}"
    off = np.abs(pixels - case.expected.astype(int)).max()
    return f"{case.name}: pixels off by {off}" if off > case.tolerance else ""


@pytest.mark.filterwarnings("ignore")
def test_every_image_is_loaded_right_or_refused_by_name(pictures: list[Case], folder: Path) -> None:
    assert len(pictures) >= 200
    problems = [text for case in pictures if (text := verdict(folder / case.name, case))]
    assert problems == [], "\n".join(problems)


@pytest.mark.filterwarnings("ignore")
def test_every_mask_is_read_or_refused_by_name(pictures: list[Case], folder: Path) -> None:
    problems = []
    for case in pictures:
        path = folder / case.name
        try:
            with seconds(LIMIT, case.name):
                values = mask_values(path)
            if values.dtype != np.uint8 or values.ndim != 2:
                problems.append(f"{case.name}: {values.dtype} {values.shape}")
        except DataError as error:
            if str(path) not in str(error) or "\n" in str(error):
                problems.append(f"{case.name}: {error}")
        except Exception as error:
            problems.append(f"{case.name}: {type(error).__name__}: {error}")
    assert problems == [], "\n".join(problems)


def test_no_picture_starts_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow hands PostScript to Ghostscript, whatever the file is called."""
    program = tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho 10.0\ntouch {tmp_path / 'was-run'}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    picture = tmp_path / "postscript.png"
    head = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
    picture.write_text(f"{head}showpage\n%%EOF\n")
    with pytest.raises(DataError, match=r"postscript\.png: not an image of a known format"):
        read_image(picture)
    with pytest.raises(DataError, match=r"postscript\.png"):
        image_size(picture)
    assert not (tmp_path / "was-run").exists()
    with Image.open(picture) as image, contextlib.suppress(OSError):
        image.load()
    assert (tmp_path / "was-run").exists()  # so it would have gone


def test_predict_answers_for_each_of_them(
    pictures: list[Case], folder: Path, recipe: object, tmp_path: Path
) -> None:
    """One JSON line each: a score, or an error that names the file; exit code 3."""
    place = Place.make(tmp_path / "place", recipe, count=1)  # type: ignore[arg-type]
    done = zsad(
        *("predict", "--method", "clip", "--class-name", "thing", str(folder)),
        *("--backbone", "file", "--weights", str(place.root / "clip.pt"), "--device", "cpu"),
    )
    assert done.code == 3
    lines = {Path(line["path"]).name: line for line in map(json.loads, done.out.splitlines())}
    taken = {c.name: c for c in pictures if c.name in lines}
    assert len(taken) >= 200
    for name, case in taken.items():
        line = lines[name]
        if not isinstance(case.expected, str):
            assert np.isfinite(line["image_score"]), name
        elif case.expected == "refused":
            assert name in line["error"]
        else:
            assert "error" in line or np.isfinite(line["image_score"]), name

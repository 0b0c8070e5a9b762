"""Reference pictures: found by name, counted, refused where a method cannot use them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from zsad.errors import DataError, RequestError
from zsad.inference.references import digest, found, warn_of_twins, with_shots


@pytest.fixture
def good(tmp_path: Path) -> Path:
    for i in range(3):
        Image.fromarray(np.full((8, 9, 3), 40 * i, np.uint8)).save(tmp_path / f"{i}.png")
    return tmp_path


def test_folders_patterns_and_files_each_picture_once(good: Path) -> None:
    (good / "notes.txt").write_text("x")
    assert [p.name for p in found([good])] == ["0.png", "1.png", "2.png"]
    assert [p.name for p in found([str(good / "2.png"), good])] == ["2.png", "0.png", "1.png"]
    assert [p.name for p in found(str(good / "[01].png"))] == ["0.png", "1.png"]
    arrays = [np.zeros((4, 4, 3), np.uint8)]
    assert found(arrays)[0] is arrays[0]
    with pytest.raises(DataError, match="no such file"):
        found([good / "absent"])


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (None, {"shots": 3}),
        (["winclip.temperature=1.0"], {"winclip": {"temperature": 1.0}, "shots": 3}),
        (["winclip.shots=2"], {"winclip": {"shots": 2}}),
        ({"shots": 1}, {"shots": 1}),
    ],
)
def test_their_number_sets_the_shots_unless_given(overrides: Any, expected: Any) -> None:
    assert with_shots("winclip", overrides, 3) == expected
    assert with_shots("winclip", overrides, 0) is overrides


@pytest.mark.parametrize("method", ["clip", "musc", "filo", "faprompt"])
def test_a_method_that_compares_with_none_refuses_them(method: str) -> None:
    with pytest.raises(
        RequestError, match=r"leave them out, or choose one of .*patchcore.*winclip"
    ):
        with_shots(method, None, 2)
    with pytest.raises(RequestError, match="shots=0 uses no reference pictures, and 2"):
        with_shots("winclip", ["winclip.shots=0"], 2)


def test_a_digest_is_of_the_pixels(good: Path) -> None:
    files = sorted(good.glob("*.png"))
    assert digest(files) == digest([Image.open(p) for p in files])
    assert digest(files) != digest(files[::-1])


def test_pictures_that_serve_twice_are_named(good: Path, caplog: pytest.LogCaptureFixture) -> None:
    warn_of_twins([good / "0.png"], [good / "1.png"], "--calibrate")
    assert not caplog.messages
    again = [good / ".." / good.name / "0.png", good / "1.png"]
    warn_of_twins([good / "0.png"], again, "--calibrate")
    assert "1 picture of --calibrate among the references, too" in caplog.text
    # a copy under another name is the same picture
    (good / "copy.png").write_bytes((good / "0.png").read_bytes())
    warn_of_twins([good / "0.png"], [good / "copy.png", good / "absent.png"])
    assert "1 picture to score among the references" in caplog.text


@pytest.mark.parametrize("said", ["--reference", "--calibrate"])
def test_a_folder_with_defects_is_not_taken_for_normal(
    tmp_path: Path, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("test/good/0.png", "test/hole/0.png", "parts/normal/0.png", "parts/odd/0.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 9, 3), 40, np.uint8)).save(path)
    for top, first in (("test", "hole/0.png"), ("parts", "odd/0.png")):
        with pytest.raises(RequestError, match=rf"{said} .*1 picture, first: {first}.; give the"):
            found(tmp_path / top, said)
    with pytest.raises(RequestError, match=r"first: test/hole/0.png"):
        found(tmp_path, said)
    assert [p.parent.name for p in found(tmp_path / "test" / "good", said)] == ["good"]
    assert [p.parent.name for p in found(tmp_path / "parts" / "odd", said)] == ["odd"]
    assert not caplog.messages
    (tmp_path / "parts" / "odd").rename(tmp_path / "NG")
    assert [p.parent.name for p in found(tmp_path / "NG", said)] == ["NG"]
    assert "is called as a folder of defects" in caplog.text

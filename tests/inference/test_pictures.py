"""Finding pictures: words, folders, patterns; where what is written about them goes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zsad.errors import DataError, RequestError
from zsad.inference import pictures


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``photos/`` with pictures at two levels, and other files."""
    for name in ("photos/b.png", "photos/a.JPG", "photos/day/a.png", "photos/notes.txt", "c.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 3)).save(path, "PNG")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shown(found: list[pictures.Photo]) -> list[tuple[str, str]]:
    return [(p.path.as_posix(), p.stem.as_posix()) for p in found]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["c.png"], [("c.png", "c")]),
        (["photos"], [("photos/a.JPG", "a"), ("photos/b.png", "b"), ("photos/day/a.png", "day/a")]),
        (["photos/*.png"], [("photos/b.png", "b")]),
        (
            ["photos/**/*.png"],
            [("photos/b.png", "b"), ("photos/day/a.png", "day/a")],
        ),
        # Of several folders, the part that they do not share is kept.
        (
            ["photos/day", "c.png"],
            [("photos/day/a.png", "photos/day/a"), ("c.png", "c")],
        ),
        # Twice the same picture is one.
        (["c.png", "./c.png", "*.png"], [("c.png", "c")]),
        # Files of any ending where they are named.
        (["photos/notes.txt"], [("photos/notes.txt", "notes")]),
    ],
)
def test_words_become_pictures(
    words: list[str], expected: list[tuple[str, str]], place: Path
) -> None:
    assert shown(pictures.find(words)) == expected


def test_names_that_differ_in_their_ending_keep_it(place: Path) -> None:
    Image.new("RGB", (4, 3)).save(place / "photos" / "b.bmp")
    stems = [p.stem.as_posix() for p in pictures.find(["photos"])]
    assert stems == ["a", "b.bmp", "b.png", "day/a"]


def test_what_was_written_is_no_input(place: Path) -> None:
    before = shown(pictures.find(["photos"]))
    (place / "photos" / "found").mkdir()
    Image.new("RGB", (4, 3)).save(place / "photos" / "found" / "b.heat.png")
    assert shown(pictures.find(["photos"], out="photos/found")) == before
    assert len(pictures.find(["photos"], out="other")) == len(before) + 1
    assert shown(pictures.find(["photos"], out=".")) == shown(pictures.find(["photos"]))
    with pytest.raises(RequestError, match="--out photos: is the folder of the pictures"):
        pictures.find(["photos"], out="photos")
    assert shown(pictures.find(["c.png"], out=".")) == [("c.png", "c")]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("absent.png", "absent.png: no such file or folder"),
        ("empty", "empty: no pictures there"),
        ("photos/*.gif", r"photos/\*.gif: no file matches"),
    ],
)
def test_a_word_without_a_picture_is_refused(word: str, message: str, place: Path) -> None:
    with pytest.raises(DataError, match=message):
        pictures.find([word])


def test_what_a_folder_holds_besides_is_told_in_one_line(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = shown(pictures.find(["photos"]))
    assert [r.getMessage() for r in caplog.records] == [
        "passed over a file that is not a picture: photos/notes.txt; give a file by its name "
        "to have it read"
    ]
    caplog.clear()
    for name in ("a.heic", "._a.jpg", ".cache/a.png", "new\nline", "found/a.map.npy"):
        path = place / "photos" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"-")
    # Neither what is named besides nor what an earlier run wrote is passed over.
    again = shown(pictures.find(["photos", "photos/notes.txt", "photos"], out="photos/found"))
    assert again == [*found, ("photos/notes.txt", "notes")]
    (line,) = (r.getMessage() for r in caplog.records)
    assert "\n" not in line
    assert line.startswith(
        "passed over 4 files that are not pictures: photos/._a.jpg, photos/.cache/a.png, "
        "photos/a.heic and 1 more;"
    )
    caplog.clear()
    pictures.find(["c.png", "photos/*.png"])
    assert caplog.records == []


def test_a_list_may_name_what_is_missing(place: Path) -> None:
    assert shown(pictures.find([], listed=["c.png", "absent.png"])) == [
        ("c.png", "c"),
        ("absent.png", "absent"),
    ]
    assert pictures.find([], listed=["empty"]) == []


def test_reading_ahead_keeps_order_and_errors(place: Path) -> None:
    (place / "broken.png").write_bytes(b"no picture")
    items = ["c.png", "broken.png", np.zeros((5, 6, 3), np.uint8), Path("photos/b.png")]
    batches = list(pictures.read_ahead(items, keep_errors=True, size=3))
    assert [b.rows for b in batches] == [[0, 2], [3]]
    assert [b.sizes for b in batches] == [[(3, 4), (5, 6)], [(3, 4)]]
    assert list(batches[0].errors) == [1]
    assert "broken.png" in batches[0].errors[1].error
    with pytest.raises(DataError, match=r"broken\.png"):
        list(pictures.read_ahead(items))
    assert list(pictures.read_ahead([])) == []


def test_arrays_of_another_kind_are_refused() -> None:
    with pytest.raises(RequestError, match="must be uint8"):
        pictures.open_picture(np.zeros((4, 4)))
    with pytest.raises(RequestError, match="cannot read a picture from a int"):
        pictures.open_picture(3)

"""Finding pictures: words, folders, patterns; where what is written about them goes."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.hostile import NAMES, is_plain
from zsad.data.images import READERS, register_reader
from zsad.errors import DataError, RequestError
from zsad.inference import outputs, pictures


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
    for name in ("a.cr2", "._a.jpg", ".cache/a.png", "new\nline", "found/a.map.npy"):
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
        "photos/a.cr2 and 1 more;"
    )
    caplog.clear()
    pictures.find(["c.png", "photos/*.png"])
    assert caplog.records == []


# ------------------------------------------------------------------ where files are written
@pytest.mark.parametrize(
    ("inside", "expected"),
    [
        (["a.png", "b/a.png"], ["a", "b/a"]),
        (["nut.png", "nut.jpg"], ["nut.png", "nut.jpg"]),
        # What keeps its ending beside a namesake may meet a third one.
        (["nut.png", "nut.jpg", "nut.png.gif"], ["nut.png", "nut.jpg", "nut.png.gif"]),
        (["calibration.png", "b/calibration.png"], ["calibration.png", "b/calibration"]),
        (["Calibration.PNG"], ["Calibration.PNG"]),
        ([".png"], [".png"]),
        # The heat map of one is the name of another's folder.
        (["a.png", "a.heat.webp/b.png"], ["a.png", "a.heat.webp/b"]),
    ],
)
def test_pictures_have_files_of_their_own(inside: list[str], expected: list[str]) -> None:
    assert [s.as_posix() for s in pictures.stems([Path(p) for p in inside])] == expected


@pytest.mark.parametrize(
    "inside",
    [
        ["calibration", "calibration.png", "CALIBRATION.jpg"],
        ["A.png", "a.png", "a.PNG"],
        ["e\u0301.png", "\u00e9.png"],  # one name, composed and decomposed
        ["a\x1b.png", "a%1B.png", "a\x1b.jpg"],
        ["\udce9.png", "%E9.png"],
        ["图" * 82 + ".png", "图" * 83 + ".png", "图" * 82 + ".jpg"],
        ["x.1" + "y" * 240 + ".png", "x.1" + "y" * 239 + ".png"],
        ["a.png", "a.png.png", "a.png.png.png", "a", "A"],
        ["a.png", "a.json/b.png", "a.png.json/c.png"],
        [name + ending for name in NAMES.values() for ending in (".png", ".PNG", "")],
    ],
)
def test_no_two_pictures_share_a_file(inside: list[str]) -> None:
    found = pictures.stems([Path(name) for name in inside])
    for made in (found, pictures.stems([Path(name) for name in inside[::-1]])[::-1]):
        files = [
            unicodedata.normalize("NFKC", f"{stem.as_posix()}.{ending}").casefold()
            for stem in made
            for ending in pictures.OUTPUTS
        ]
        assert len(set(files)) == len(pictures.OUTPUTS) * len(inside)
        assert "calibration.json" not in files
        folders = {parent for file in files for parent in Path(file).parents}
        assert folders.isdisjoint(map(Path, files))
        for stem in made:
            assert not stem.is_absolute()
            assert ".." not in stem.parts
            assert is_plain(stem.as_posix())
            assert len(os.fsencode(stem.name)) <= 230


def test_an_output_is_never_an_input(place: Path) -> None:
    for name in ("c.heat.webp", "c.png"):
        Image.new("RGB", (4, 3)).save(place / name)
    found = pictures.find(["c.png", "c.heat.webp"], out=place)
    assert shown(found) == [("c.png", "c.png"), ("c.heat.webp", "c.heat")]


@pytest.mark.parametrize(
    "words",
    [
        ["photos/day/a.png", "photos/day/../../c.png"],
        ["photos/day/a.png", "photos/day/../../../{place}/c.png"],
        ["photos/day/../day/./a.png", "c.png"],
        ["photos/day", "photos/day/../../photos/day/../../c.png"],
    ],
)
def test_files_stay_below_the_output_folder(words: list[str], place: Path) -> None:
    words = [word.format(place=place.name) for word in words]
    assert sorted(s for _, s in shown(pictures.find(words, out="x/y"))) == ["c", "photos/day/a"]
    assert sorted(s for _, s in shown(pictures.find([], "x/y", words))) == ["c", "photos/day/a"]


def test_one_picture_by_several_words_is_one(place: Path) -> None:
    (place / "link").symlink_to(place / "photos" / "day")
    words = ["photos/b.png", "photos/day/../b.png", "link/../b.png"]
    assert len(pictures.find(words)) == 1


@pytest.mark.parametrize(
    "line", ["a\0b.png", "x" * 300, "y/" * 3000 + "z", "\udce9.png", "c.png/d"]
)
def test_an_odd_line_of_a_list_costs_itself(line: str, place: Path) -> None:
    found = pictures.find([], "out", ["c.png", line])
    assert [p.path.as_posix() for p in found] == ["c.png", Path(line).as_posix()]
    batch = next(pictures.read_ahead([p.path for p in found], keep_errors=True))
    assert batch.rows == [0]
    assert batch.errors[1].error
    assert is_plain(batch.errors[1].error)


def test_an_address_in_a_list_is_called_one(place: Path) -> None:
    found = pictures.find([], "out", ["c.png", "https://host/a.png"])
    batch = next(pictures.read_ahead([p.path for p in found], keep_errors=True))
    assert batch.rows == [0]
    assert "an address; save the picture" in batch.errors[1].error


@pytest.mark.parametrize(
    "error",
    [RuntimeError("Failed to decode"), TypeError("'<' of tuple"), AssertionError(), MemoryError(),
     ZeroDivisionError("x"), RecursionError("deep"), SystemExit(3), StopIteration(), Warning("w")],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_whatever_a_decoder_raises_costs_its_picture(error: BaseException, place: Path) -> None:
    def fail(uri: str) -> Image.Image:
        raise error

    register_reader("raises", fail)
    try:
        items = ["c.png", "raises://x", "photos/b.png"]
        (batch,) = pictures.read_ahead(items, keep_errors=True)
        assert batch.rows == [0, 2]
        assert "\n" not in batch.errors[1].error
        with pytest.raises((DataError, SystemExit)):
            list(pictures.read_ahead(items))
    finally:
        del READERS["raises"]


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
    with pytest.raises(RequestError, match="cannot read a picture from 'int'"):
        pictures.open_picture(3)


def test_large_pictures_are_decoded_few_at_a_time(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches by pixels: a bound of 100 takes eight of 12 pixels, one of 120 alone, and none is
    decoded ahead that does not fit beside the last batch."""
    Image.new("RGB", (12, 10)).save(place / "large.png")
    monkeypatch.setenv("ZSAD_MAX_BATCH_PIXELS", "100")
    items = [*["c.png"] * 10, "large.png", "c.png", "large.png", "absent.png"]
    opened: list[str] = []
    reading = pictures.open_picture

    def counted(item: str, stored: bool) -> Image.Image:
        opened.append(item)
        return reading(item, stored)

    monkeypatch.setattr(pictures, "open_picture", counted)
    rows: list[list[int]] = []
    for batch in pictures.read_ahead(items, keep_errors=True):
        rows.append([*batch.rows, *batch.errors])
        held = opened[rows[-1][0] :]  # of this batch, and of the one that is decoded ahead
        assert sum(120 if item == "large.png" else 12 for item in held) <= 120
    assert rows == [list(range(8)), [8, 9], [10], [11], [12], [13]]
    assert sorted(opened) == sorted(items)


def test_no_folder_of_pictures_is_called_as_a_file_of_all() -> None:
    """``results.csv/a.png``: a folder of that name would stand where the table belongs."""
    inside = [
        Path("Results.CSV/a.png"),
        Path("calibration.json/a.png"),
        Path("b/results.csv/a.png"),
    ]
    assert [s.as_posix() for s in pictures.stems(inside)] == [
        "Results%2ECSV/a",
        "calibration%2Ejson/a",
        "b/results.csv/a",
    ]
    assert outputs.TABLE in pictures.FILES_OF_ALL

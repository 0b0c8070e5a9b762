"""Scores and maps in files: what is written is read again, and what cannot be meant is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from zsad.errors import DataError
from zsad.exchange.maps import MapWriter, Names, filed, pack, plain, read
from zsad.io import foreign
from zsad.types import Sample

IDS = ("cap/test/good/000.png", "cap/test/crack/000.png", "cap/test/crack/001.png")


def sample(uid: str) -> Sample:
    return Sample(uid, 0, "cap", uid=uid)


SAMPLES = [sample(uid) for uid in IDS]


def written(root: Path) -> dict[str, np.ndarray]:
    writer, planes = MapWriter(root), {}
    for i, uid in enumerate(IDS):
        planes[uid] = np.full((4, 6), i + 1, np.float32) / 3
        writer.add(uid, i / 7, planes[uid])
    assert writer.close() == len(IDS)
    return planes


@pytest.mark.parametrize("form", ["folder", "archive"])
def test_what_is_written_is_read_again(form: str, tmp_path: Path) -> None:
    planes = written(tmp_path / "maps")
    source = tmp_path / "maps"
    if form == "archive":
        source = tmp_path / "maps.npz"
        pack(tmp_path / "maps", source, SAMPLES)
    found = read(source, SAMPLES)
    assert found.scores == {uid: i / 7 for i, uid in enumerate(IDS)}
    assert not found.strangers
    for uid, plane in planes.items():
        np.testing.assert_array_equal(found.maps[uid].read(), plane)


def test_the_tree_is_the_one_of_mvtecs_evaluation(tmp_path: Path) -> None:
    written(tmp_path)
    assert (tmp_path / "cap" / "test" / "crack" / "001.tiff").is_file()


def test_images_that_differ_in_their_ending_alone_stay_apart(tmp_path: Path) -> None:
    pair = [sample("a/0.png"), sample("a/0.jpg"), sample("a/1.jpg")]
    for order in (pair, pair[::-1]):
        root = tmp_path / order[0].uid.replace("/", "-")
        writer = MapWriter(root)
        for s in [*order, *order]:  # a head may begin a category anew
            writer.add(s.uid, len(s.uid), np.full((2, 2), ord(s.uid[2]) + ord(s.uid[-1])))
        writer.close()
        found = read(root, pair)
        assert set(found.maps) == set(found.scores) == {s.uid for s in pair}
        for s in pair:
            assert found.maps[s.uid].read().max() == ord(s.uid[2]) + ord(s.uid[-1])
        assert not found.strangers


def test_a_name_without_its_ending_means_nothing_where_two_images_share_it() -> None:
    names = Names([sample("a/0.png"), sample("a/0.jpg"), sample("a/1.jpg")])
    assert names.of("a/0") is None
    assert names.of("a/1") == names.of("a\\1") == names.of("./a/1.jpg") == "a/1.jpg"


@given(st.text(min_size=1, max_size=40))
def test_an_id_as_a_file_stays_in_its_folder(uid: str) -> None:
    path = Path("root") / filed(uid)
    assert ".." not in path.parts
    assert not Path(filed(uid)).is_absolute()


def test_a_table_of_scores_alone(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("\ufeffimage;anomaly_score\n" + "".join(f"{u};0.5\n" for u in IDS))
    found = read(path, SAMPLES)
    assert set(found.scores) == set(IDS)
    assert not found.maps


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            "id,score\ncap/test/good/000.png,nan\ncap/test/crack/001,1\ncap/test/crack/000,inf\n",
            "2 scores are not finite numbers: cap/test/good/000.png (line 2: 'nan'), "
            "cap/test/crack/000.png (line 4: 'inf'); give",
        ),
        ("id,score\ncap/test/good/000.png,1e400\n", "(line 2: '1e400')"),
        ("id,score\ncap/test/good/000.png,high\n", "a score is not a finite number: cap/test/good"),
        ("id,score\ncap/test/good/000.png,1\ncap/test/good/000,1\n", "several scores"),
        ("name,value\nx,1\n", "needs the columns id and score; it has name, value"),
        ("id,score\nelsewhere/0.png,1\n", "an id looks like cap/test/good/000.png"),
    ],
)
def test_scores_that_cannot_be_meant(rows: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text(rows)
    with pytest.raises(DataError) as caught:
        read(path, SAMPLES)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_maps_that_cannot_be_meant(tmp_path: Path) -> None:
    written(tmp_path)
    np.save(tmp_path / "cap" / "test" / "crack" / "001.npy", np.zeros((4, 6)))
    with pytest.raises(DataError, match=r"several maps of one image: cap/test/crack/001\.png"):
        read(tmp_path, SAMPLES)
    (tmp_path / "cap" / "test" / "crack" / "001.npy").unlink()
    bad = tmp_path / "cap" / "test" / "good" / "000.tiff"
    bad.write_bytes(b"<!doctype html><p>not found")
    with pytest.raises(DataError, match="an HTML or XML page"):
        read(tmp_path, SAMPLES)
    tifffile.imwrite(bad, np.zeros((4, 6, 3), np.float32))
    with pytest.raises(DataError, match="not a map of numbers"):
        read(tmp_path, SAMPLES)
    tifffile.imwrite(bad, np.full((4, 6), np.nan, np.float32))
    with pytest.raises(DataError, match="NaN or infinity"):
        read(tmp_path, SAMPLES).maps[IDS[0]].read()


def test_an_archive_is_never_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "maps.npz"
    np.savez(path, ids=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match=r"not a readable \.npz of numbers and text"):
        read(path, SAMPLES)
    np.savez(path, ids=np.array(IDS), maps=np.zeros((2, 4, 4)))
    with pytest.raises(DataError, match="2 'maps' do not fit 3 'ids'"):
        read(path, SAMPLES)


def test_names_that_belong_to_no_image_are_told(tmp_path: Path) -> None:
    written(tmp_path)
    tifffile.imwrite(tmp_path / "cap" / "extra.tiff", np.zeros((4, 6), np.float32))
    assert read(tmp_path, SAMPLES).strangers == ["cap/extra"]


def test_the_file_that_is_proposed_means_one_image(tmp_path: Path) -> None:
    """``a.tiff`` is none of the two's, ``a.jpg.tiff`` is."""
    tifffile.imwrite(tmp_path / "a.tiff", np.zeros((4, 6), np.float32))
    with pytest.raises(DataError, match=r"it holds a; an id .* file like a\.jpg\.tiff"):
        read(tmp_path, [sample("a.jpg"), sample("a.png")])


def test_sides_of_one_are_dropped() -> None:
    assert plain((1, 4, 6)) == plain((4, 6, 1)) == plain((4, 6)) == (4, 6)
    assert plain((1, 6)) == (1, 6)
    with pytest.raises(ValueError, match="height and width"):
        plain((2, 4, 6))


def test_an_archive_that_unpacks_to_far_more_than_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "maps.npz"
    np.savez_compressed(path, ids=np.array([IDS[0]]), maps=np.zeros((1, 600, 600), np.float32))
    assert len(read(path, SAMPLES).maps) == 1
    monkeypatch.setattr(foreign, "RATIO_FROM", 100_000)
    with pytest.raises(DataError, match=r"maps.npz: .* bytes that unpack to 1,44") as error:
        read(path, SAMPLES)
    assert "ZSAD_MAX_ARCHIVE_RATIO raises the limit" in str(error.value)

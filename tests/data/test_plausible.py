"""Values that cannot be meant are named, in a check and where they are read."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from zsad.cli.main import main
from zsad.config import FolderSettings
from zsad.data import catalog, plausible
from zsad.data.catalog import select_datasets
from zsad.data.check import check
from zsad.data.images import read_image, read_mask
from zsad.data.index import load_index
from zsad.errors import DataError


@pytest.fixture(autouse=True)
def _said_anew() -> Iterator[None]:
    plausible.forget()
    with catalog.own_forgotten():
        yield


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three normal and three anomalous pictures with sound masks."""
    home = tmp_path / "part"
    draw = np.random.default_rng(0)
    for i in range(3):
        for kind in ("normal", "anomalous"):
            save(draw.integers(60, 120, (64, 64), np.uint8), home / kind / f"{kind[0]}{i}.png")
        save(truth(i), home / "masks" / f"a{i}.png")
    return home


def save(pixels: np.ndarray, path: Path, **options: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def truth(i: int) -> np.ndarray:
    mask = np.zeros((64, 64), np.uint8)
    mask[20 + i : 30 + i, 8:40] = 255
    return mask


def warnings(home: Path, settings: FolderSettings | None = None) -> str:
    (name,) = select_datasets(f"folder:{home}", settings)
    return "\n".join(f.text for f in check(name).findings if f.severity == "warning")


def test_sound_values_are_not_named(folder: Path) -> None:
    assert warnings(folder) == ""


@pytest.mark.parametrize("kind", ["inverted", "palette", "paint"])
def test_masks_that_mark_nearly_everything(
    folder: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    for i in range(3):
        path, mask = folder / "masks" / f"a{i}.png", truth(i)
        if kind == "inverted":
            save(255 - mask, path)
        elif kind == "palette":
            image = Image.fromarray((mask > 0).astype(np.uint8), "P")
            image.putpalette([255, 255, 255, 40, 0, 0])
            image.save(path)
        else:
            red = np.full((64, 64, 3), 255, np.uint8)
            red[mask > 0] = (255, 0, 0)
            save(red, path)
    assert "3 of 3 masks mark more than half of their picture" in warnings(folder)
    words = ["bench", "--methods", "clip", "--datasets", f"folder:{folder}", "--device", "cpu"]
    words += ["--backbone", "zsad-tiny", "--results", str(folder.parent / "r")]
    with caplog.at_level(logging.WARNING):
        assert main(words) == 0
    assert "3 of 3 masks mark more than half" in caplog.text


@pytest.mark.parametrize("quality", [30, 75, 95])
@pytest.mark.parametrize("named", [".jpg", ".png"])
def test_lossy_masks_keep_their_area(folder: Path, quality: int, named: str) -> None:
    for i in range(3):
        (folder / "masks" / f"a{i}.png").unlink()
        Image.fromarray(truth(i)).save(
            folder / "masks" / f"a{i}{named}", format="JPEG", quality=quality
        )
    index = load_index(select_datasets(f"folder:{folder}")[0])
    for sample in index.samples:
        if sample.mask:
            assert sample.mask_threshold == 127
            area = int((truth(int(Path(sample.image).stem[1:])) > 0).sum())
            assert abs(int(read_mask(sample).sum()) - area) <= 0.05 * area
    zero = load_index(select_datasets(f"folder:{folder}", FolderSettings(mask_threshold=0))[0])
    assert {s.mask_threshold for s in zero.samples} == {0}
    assert zero.fingerprint != index.fingerprint


def test_soft_masks_are_named_and_classes_are_not(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for i in range(3):
        soft = Image.fromarray(truth(i)).filter(ImageFilter.GaussianBlur(3))
        soft.save(folder / "masks" / f"a{i}.png")
    assert "3 masks have a soft edge" in warnings(folder)
    assert "soft" not in warnings(folder, FolderSettings(mask_threshold=127))
    with caplog.at_level(logging.WARNING):
        for sample in load_index(select_datasets(f"folder:{folder}")[0]).samples:
            read_mask(sample)
    assert caplog.text.count("its edge is soft") <= 1
    for i in range(3):
        save(truth(i) // 255 * (i + 1), folder / "masks" / f"a{i}.png")
    assert warnings(folder) == ""


def test_empty_masks_and_marked_normal_pictures(folder: Path) -> None:
    save(np.zeros((64, 64), np.uint8), folder / "masks" / "a1.png")
    save(truth(0), folder / "masks" / "n0.png")
    text = warnings(folder)
    assert "1 anomalous image has an empty mask (first: anomalous/a1.png)" in text
    assert "1 mask of a normal picture marks something (first: that of normal/n0.png)" in text


@pytest.mark.parametrize("bits", [10, 12])
def test_deep_pictures_that_use_a_part_of_their_range(
    folder: Path, bits: int, caplog: pytest.LogCaptureFixture
) -> None:
    eight = np.random.default_rng(1).integers(60, 255, (64, 64), np.uint8)
    deep = eight.astype(np.uint16) << (bits - 8)
    path = folder / "normal" / "n0.png"
    save(deep, path)
    with caplog.at_level(logging.WARNING):
        assert np.asarray(read_image(path)).max() < 17
        read_image(path)
    assert caplog.text.count(f"data.folder.bits={bits}") == 1
    assert f"data.folder.bits={bits}" in warnings(folder)
    right = np.asarray(read_image(path, bits=bits))[..., 0]
    assert np.abs(right.astype(int) - eight).max() <= 1
    assert "black" not in warnings(folder, FolderSettings(bits=bits))


def test_one_divisor_for_all(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Two exposures of one camera in 32-bit files."""
    for name, high in (("bright", 4000), ("dark", 200)):
        save(np.linspace(0, high, 64, dtype=np.int32).reshape(8, 8), tmp_path / f"{name}.tif")
    with caplog.at_level(logging.WARNING):
        guessed = [np.asarray(read_image(tmp_path / f"{n}.tif")).max() for n in ("bright", "dark")]
    assert "others of its folder by" in caplog.text
    assert guessed[1] > guessed[0]  # what the warning is about
    same = [
        np.asarray(read_image(tmp_path / f"{n}.tif", bits=12)).max() for n in ("bright", "dark")
    ]
    assert same == [249, 12]
    with pytest.raises(DataError, match="more than 8 bits hold"):
        read_image(tmp_path / "bright.tif", bits=8)


def test_pictures_of_32_bits_of_a_dataset_have_one_divisor(folder: Path) -> None:
    for name, high in (("n0", 40000), ("n1", 200)):
        (folder / "normal" / f"{name}.png").unlink()
        values = np.linspace(0, high, 64 * 64, dtype=np.int32).reshape(64, 64)
        save(values, folder / "normal" / f"{name}.tif")
    found = load_index(select_datasets(f"folder:{folder}")[0])
    assert {s.uid: s.bits for s in found.samples if s.bits} == {
        "normal/n0.tif": 16,
        "normal/n1.tif": 16,
    }
    assert any("normal/n1.tif alone would be divided by 255" in note for note in found.notes)
    with catalog.own_forgotten():
        said = load_index(select_datasets(f"folder:{folder}", FolderSettings(bits=17))[0])
    assert {s.bits for s in said.samples} == {17}
    assert said.fingerprint != found.fingerprint
    (folder / "normal" / "n1.tif").unlink()  # one alone, or all alike: nothing is changed
    with catalog.own_forgotten():
        alone = load_index(select_datasets(f"folder:{folder}")[0])
    assert {s.bits for s in alone.samples} == {0}
    assert not any("32-bit" in note for note in alone.notes)


def test_bits_that_change_nothing_are_said(folder: Path) -> None:
    assert "bits=12 changes nothing" in warnings(folder, FolderSettings(bits=12))


@pytest.mark.parametrize("name", ["a.gif", "b.png", "c.webp", "d.tif"])
def test_further_pictures_of_a_file_are_named(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = (Image.fromarray(np.full((8, 8, 3), v, np.uint8)) for v in (40, 90))
    first.save(tmp_path / name, save_all=True, append_images=[second])
    read_image(tmp_path / name)
    assert "holds several pictures (frames or pages), and the first one alone" in caplog.text


def test_previews_are_no_further_pictures(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = Image.fromarray(np.full((8, 8, 3), 40, np.uint8))
    first.save(tmp_path / "a.tif", save_all=True, append_images=[first.resize((4, 4))])
    first.save(tmp_path / "b.mpo", save_all=True, append_images=[first])
    first.save(tmp_path / "c.png")
    for name in ("a.tif", "b.mpo", "c.png"):
        read_image(tmp_path / name)
    assert not caplog.messages


@pytest.mark.parametrize(("high", "named"), [(4095, True), (60000, False), (1, False)])
def test_counts_of_a_camera_as_fractions(
    tmp_path: Path, high: float, named: bool, caplog: pytest.LogCaptureFixture
) -> None:
    values = np.linspace(0, high, 64, dtype=np.float32).reshape(8, 8)
    Image.fromarray(values).save(tmp_path / "x.tif")
    read_image(tmp_path / "x.tif")
    assert ("nearly black" in caplog.text) is named

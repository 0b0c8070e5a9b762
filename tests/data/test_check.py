"""``data check``: sound miniatures pass but for their counts, and each fault is one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from tests.data.miniatures import write_miniature
from zsad.data.check import CheckReport, check
from zsad.data.definition import CategorySpec, DatasetSpec, Layout, VariantSpec
from zsad.errors import DataError


def _own(root: Path, test: tuple[int, int] | None = None) -> DatasetSpec:
    layout = Layout("folder", looks="normal/ and anomalous/")
    return DatasetSpec(
        name="own",
        title="own",
        categories={"thing": CategorySpec("thing", test=test)},
        variants={"default": VariantSpec("as it lies", (layout,), test=test)},
        default_variant="default",
        root=str(root),
    )


def _picture(path: Path, seed: int, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (8, 8, 3)).astype(np.uint8)
    Image.fromarray(noise).convert(mode).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two normal and two anomalous pictures with masks."""
    root = tmp_path / "own"
    for i in range(2):
        _picture(root / "normal" / f"{i}.png", i)
        _picture(root / "anomalous" / f"{i}.png", 10 + i)
        mask = np.zeros((8, 8), np.uint8)
        mask[2:4, 2:5] = 255
        (root / "masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(root / "masks" / f"{i}_mask.png")
    return root


def _texts(report: CheckReport, severity: str) -> str:
    return "\n".join(f.text for f in report.findings if f.severity == severity)


def test_a_sound_folder(folder: Path) -> None:
    report = check(_own(folder, (2, 2)))
    assert report.ok
    assert report.findings == []
    assert (report.total, report.opened, report.masks) == ((2, 2), 6, 2)
    assert report.sizes == ("8x8",)
    assert report.modes == {"RGB": 4}
    assert report.lines()[-1] == "own: ok"
    assert any("as published" in line for line in report.lines())


def test_counts_that_differ_fail(folder: Path) -> None:
    report = check(_own(folder, (2, 3)))
    assert not report.ok
    assert "published: 2 and 3" in _texts(report, "error")


def test_every_broken_file_is_named(folder: Path) -> None:
    image = folder / "normal" / "0.png"
    image.write_bytes(image.read_bytes()[:60])
    (folder / "masks" / "1_mask.png").write_bytes(b"no image")
    report = check(_own(folder))
    assert not report.ok
    errors = _texts(report, "error").splitlines()
    assert len(errors) == 2
    assert any(str(image) in line for line in errors)
    assert any("1_mask.png" in line for line in errors)


def test_masks_that_do_not_match(folder: Path) -> None:
    Image.fromarray(np.zeros((20, 8), np.uint8)).save(folder / "masks" / "0_mask.png")
    (folder / "masks" / "1_mask.png").rename(folder / "masks" / "7_mask.png")
    text = _texts(check(_own(folder)), "error")
    assert "without a mask of its own (first: 1.png)" in text
    assert "without an image (first: 7_mask.png)" in text
    assert "does not fit its image" in text


def test_empty_and_grey_masks_are_said(folder: Path) -> None:
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / "masks" / "0_mask.png")
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    Image.fromarray(grey).save(folder / "masks" / "1_mask.png")
    report = check(_own(folder))
    assert report.ok
    assert "1 anomalous image has an empty mask" in _texts(report, "warning")
    assert "1 mask holds more than two grey values; the threshold decides" in _texts(report, "note")


def test_copies_and_what_they_cross(folder: Path) -> None:
    shutil.copy(folder / "normal" / "0.png", folder / "normal" / "2.png")
    (folder / "train").mkdir()
    shutil.copy(folder / "normal" / "1.png", folder / "train" / "1.png")
    shutil.copy(folder / "anomalous" / "0.png", folder / "normal" / "3.png")
    text = _texts(check(_own(folder)), "warning")
    assert "3 surplus byte-identical images in 3 groups" in text
    assert "1 group of identical images crosses labels" in text
    assert "1 group of identical images crosses train and test" in text


def test_one_class_only(folder: Path) -> None:
    shutil.rmtree(folder / "normal")
    report = check(_own(folder))
    assert report.ok
    assert "image-level figures are undefined: thing" in _texts(report, "warning")


@pytest.mark.parametrize("workers", [1, 4])
def test_miniatures_are_sound_but_small(tmp_path: Path, workers: int) -> None:
    for name in ("sdd", "cvc_clinicdb", "brainmri", "aitex"):
        write_miniature(name, tmp_path)
        report = check(name, tmp_path, workers=workers)
        assert "published: " in _texts(report, "error")
        assert len(_texts(report, "error").splitlines()) == 1, report.lines()


def test_absent_categories_fail(tmp_path: Path) -> None:
    home = write_miniature("mvtec", tmp_path)
    cable = next(p for p in tmp_path.rglob("cable") if p.is_dir())
    shutil.rmtree(cable)
    assert home is not None
    text = _texts(check("mvtec", tmp_path, open_files=False), "error")
    assert "1 of 15 categories not there: cable" in text


def test_unconfirmed_counts_only_warn(tmp_path: Path) -> None:
    write_miniature("resc", tmp_path)
    report = check("resc", tmp_path)
    assert report.ok
    assert "expected (unconfirmed): 1041 and 764" in _texts(report, "warning")


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)^[^\n]*not found[^\n]*$"):
        check("mvtec", tmp_path)


def test_the_real_brain_images(shared_dir: Path) -> None:
    report = check("brainmri", shared_dir / "data")
    assert report.ok
    assert report.total == (98, 155)
    assert "25 surplus byte-identical images in 22 groups" in _texts(report, "warning")
    assert "cross labels" not in _texts(report, "warning")


def _cut_sdd(root: Path, normal: int, defective: int) -> None:
    """SDD as it circulates: cut into thirds and split already; one picture under many names."""
    folder = root / "SDD" / "electrical commutators"
    picture = np.full((4, 3), 90, dtype=np.uint8)
    for part, count in (("test/good", normal), ("test/defect", defective)):
        (folder / part).mkdir(parents=True)
        Image.fromarray(picture).save(folder / part / "kos01_Part0_0.png")
        for i in range(1, count):
            shutil.copy(folder / part / "kos01_Part0_0.png", folder / part / f"kos{i}_Part0_0.png")
    (folder / "ground_truth").mkdir()
    shutil.copytree(folder / "test" / "defect", folder / "ground_truth" / "defect")
    for mask in (folder / "ground_truth" / "defect").iterdir():
        mask.rename(mask.with_name(f"{mask.stem}_mask.png"))


@pytest.mark.parametrize(
    ("counts", "variant", "said"),
    [
        ((286, 54), "thirds", "286 normal, 54 anomalous (as published)"),
        ((181, 74), "shared-drive", "181 normal, 74 anomalous (as expected)"),
        ((9, 3), "shared-drive", "9 normal, 3 anomalous (expected: 181 and 74)"),
    ],
)
def test_counts_tell_the_preparations_of_sdd_apart(
    tmp_path: Path, counts: tuple[int, int], variant: str, said: str
) -> None:
    """The layout is the same; only the papers' own counts make it the papers' preparation."""
    _cut_sdd(tmp_path, *counts)
    report = check("sdd", tmp_path, open_files=False)
    assert (report.variant, report.total, report.ok) == (variant, counts, True)
    assert any(line.endswith(said) for line in report.lines())


def test_the_report_says_which_variant_and_which_others(tmp_path: Path) -> None:
    write_miniature("sdd", tmp_path)
    report = check("sdd", tmp_path)
    lines = report.lines()
    assert lines[0].startswith("sdd: variant thirds (layout kolektor) in ")
    assert "each image in three pieces" in lines[1]
    (other,) = report.others
    assert (other.name, other.test, other.published) == ("whole", (4, 4), (347, 52))
    assert any(line.startswith("  --variant whole: ") for line in lines)
    whole = check("sdd", tmp_path, "whole")
    assert (whole.variant, whole.total) == ("whole", (4, 4))
    assert [v.name for v in whole.others] == ["thirds"]


def test_a_prepared_index_is_named_as_such(tmp_path: Path) -> None:
    folder = tmp_path / "br35h"
    _picture(folder / "a.png", 0)
    entry = {"img_path": "a.png", "mask_path": "", "cls_name": "brain", "specie_name": ""}
    meta = {"test": {"brain": [{**entry, "anomaly": 0}]}}
    (folder / "meta.json").write_text(json.dumps(meta))
    report = check("br35h", tmp_path, open_files=False)
    assert report.lines()[0].startswith("br35h: variant prepared (layout meta_json) in ")


def test_absent_files_are_said_once(tmp_path: Path) -> None:
    written = write_miniature("visa", tmp_path)
    (written.folder / "candle" / "Data" / "Images" / "Normal" / "0002.JPG").unlink()
    report = check("visa", tmp_path)
    assert sum("0002.JPG" in f.text for f in report.findings) == 1
    assert report.opened == 4 * 12 - 1 + 2 * 12 + 24


@pytest.mark.parametrize("error", [RuntimeError("a"), TypeError("b"), MemoryError(), KeyError("c")])
def test_whatever_a_decoder_raises_costs_its_file(
    error: Exception, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every picture is looked at, and the odd one is named."""
    real = PngImagePlugin.PngImageFile.load

    def load(image: PngImagePlugin.PngImageFile) -> object:
        if image.size == (9, 9):
            raise error
        return real(image)

    _picture(folder / "normal" / "odd.png", 3)
    Image.new("RGB", (9, 9)).save(folder / "normal" / "odd.png")
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", load)
    report = check(_own(folder))
    assert report.opened == 7
    (text,) = (f.text for f in report.findings if f.severity == "error")
    assert str(folder / "normal" / "odd.png") in text

"""What breaks naive loaders: a test for each numbered trap that concerns listing and pairing.

Traps 1, 2, 3, 4, 5, 10, 15 and the made-up files are in test_images.py (on real files in
test_datasets.py, where 7 is, too).
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.miniatures import Painter, save, write_miniature
from zsad.data.catalog import load_spec
from zsad.data.images import read_image, read_mask
from zsad.data.index import load_index
from zsad.data.indexers.base import hold_out, mask_key, pair_masks, stem
from zsad.errors import DataError


def test_upper_case_and_lying_endings_are_listed(tmp_path: Path) -> None:
    """Trap 4: .JPG, .jpeg and .png are found beside .jpg; the archive's second copy is not."""
    write_miniature("brainmri", tmp_path)
    index = load_index("brainmri", tmp_path)
    names = {os.path.basename(s.image) for s in index.samples}
    assert names == {"1 no.jpeg", "N1.JPG", "no 9.png", "no.jpg", "Y1.jpg", "Y10.JPG", "Y2.jpg"}


def test_header_with_a_blank_and_unpadded_ids(tmp_path: Path) -> None:
    """Trap 6: "id, hemorrhage" and 7 for 007.png; RGBA files open."""
    written = write_miniature("headct", tmp_path)
    folder = written.folder / "head_ct" / "head_ct"
    Image.new("RGBA", (20, 20), (9, 9, 9, 255)).save(folder / "005.png")
    index = load_index("headct", tmp_path)
    assert [s.label for s in index.samples] == [1, 1, 1, 0, 0, 0]
    assert os.path.basename(index.samples[0].image) == "000.png"
    assert read_image(index.samples[5].image).mode == "RGB"


def test_label_file_separated_by_blanks(tmp_path: Path) -> None:
    """Trap 7: no header, many decimals, relative paths; thirds are dropped and noted."""
    write_miniature("elpv", tmp_path)
    index = load_index("elpv", tmp_path)
    assert index.notes == ("2 cells of uncertain label are left out",)
    assert {s.defect for s in index.samples} == {"mono", "poly"}


def test_labels_txt_of_dagm(tmp_path: Path) -> None:
    """Trap 8: the leading line, the trailing tab, mask 0, Thumbs.db, upper-case endings."""
    written = write_miniature("dagm", tmp_path)
    index = load_index("dagm", tmp_path)
    first = [s for s in index.samples if s.category == "Class1" and s.split == "test"]
    assert [(os.path.basename(s.image), s.label) for s in first] == [
        ("0576.PNG", 0),
        ("0577.PNG", 1),
        ("0578.PNG", 0),
    ]
    assert [s.mask is not None for s in first] == [False, True, False]
    table = written.folder / "Class1" / "Test" / "Label" / "Labels.txt"
    table.write_text(table.read_text() + "579\t1\n")
    with pytest.raises(DataError, match=r"Labels\.txt, line 5: five tab-separated fields"):
        load_index("dagm", tmp_path)


def test_masks_are_never_paired_by_position(tmp_path: Path) -> None:
    """Trap 9: cut images 000, 001, 008, 009 beside masks 000, 001, 010, 011."""
    painter = Painter(0)
    cut, truth = tmp_path / "leather/test/cut", tmp_path / "leather/ground_truth/cut"
    painter.picture(tmp_path / "leather/test/good/000.png")
    for image, mask in zip((0, 1, 8, 9), (0, 1, 10, 11)):
        painter.pair(cut / f"{image:03}.png", truth / f"{mask:03}_mask.png")
    with pytest.raises(DataError, match="2 of 4 anomalous images without a mask"):
        load_index("mvtec", tmp_path)
    index = load_index("mvtec", tmp_path, strict=False)
    paired = {stem(s.image): stem(s.mask) if s.mask else None for s in index.samples if s.label}
    assert paired == {"000": "000_mask", "001": "001_mask", "008": None, "009": None}
    assert "2 of 4 masks without an image (first: 010_mask.png)" in index.problems[1]


def test_pairing_by_stem() -> None:
    """Endings, case of them, zero padding; ambiguity and surplus are problems, not guesses."""
    problems: list[str] = []
    images = ["a/1.png", "a/02.jpg", "a/x.y.png", "a/3.png"]
    masks = ["m/1_mask.PNG", "m/2_label.bmp", "m/x.y_Segmentation.png", "m/003.png"]
    assert pair_masks(images, masks, "a", problems) == dict(zip(images, masks))
    assert not problems
    assert pair_masks(["a/1.png"], ["m/1.png", "m/1_mask.png"], "a", problems) == {}
    assert len(problems) == 2


def test_entries_of_a_prepared_index(tmp_path: Path) -> None:
    """Trap 11: keys Train and Test, absent train, paths that hold the root, double slashes."""
    root = tmp_path / "brain"
    for name, bad in (("no/a.png", False), ("yes/b.png", True)):
        Painter(1).picture(root / name, bad=bad)

    def entry(path: str, anomaly: int) -> dict[str, object]:
        return {
            "img_path": path,
            "mask_path": "",
            "cls_name": "brain_mri",
            "specie_name": "",
            "anomaly": anomaly,
        }

    listed = {"Test": {"brain_mri": [entry("data//brain/no/a.png", 0), entry("yes/b.png", 1)]}}
    (root / "meta.json").write_text(json.dumps(listed))
    index = load_index("brainmri", root, "prepared")
    assert index.counts() == (1, 1)
    assert [s.uid for s in index.samples] == ["no/a.png", "yes/b.png"]
    listed["Test"]["brain_mri"][1]["img_path"] = "../../outside.png"
    (root / "meta.json").write_text(json.dumps(listed))
    with pytest.raises(DataError, match="leads out of the dataset's folder"):
        load_index("brainmri", root, "prepared")


def test_shifted_masks_of_a_prepared_index(tmp_path: Path) -> None:
    """Trap 9 once more: a generator that paired two listings by position is found out."""
    painter, entries = Painter(2), []
    for i in range(3):
        painter.pair(tmp_path / f"bolt/test/cut/{i:03}.png", tmp_path / f"bolt/gt/{i:03}_mask.png")
        entries.append(
            {
                "img_path": f"bolt/test/cut/{i:03}.png",
                "mask_path": f"bolt/gt/{(i + 1) % 3:03}_mask.png",
                "cls_name": "tile",
                "specie_name": "cut",
                "anomaly": 1,
            }
        )
    (tmp_path / "meta.json").write_text(json.dumps({"train": {}, "test": {"tile": entries}}))
    with pytest.raises(DataError, match="3 images of tile/cut with another image's mask"):
        load_index("mvtec", tmp_path, "prepared")


@pytest.mark.parametrize("normal", ["Normal", "NORMAL", "normal"])
def test_normal_in_any_case(tmp_path: Path, normal: str) -> None:
    """Trap 12: the folder of normal images is compared without case (so are ok and Ungood)."""
    for folder, bad in ((normal, False), ("COVID", True)):
        Painter(3).picture(tmp_path / "covid19" / folder / f"{folder} (1).png", bad=bad)
    assert load_index("covid19", tmp_path).counts() == (1, 1)


@pytest.mark.parametrize(("name", "word"), [("covid19", "masks"), ("lag", "attention_map")])
def test_what_is_no_anomaly_mask(tmp_path: Path, name: str, word: str) -> None:
    """Trap 13: lung fields and attention maps are neither images nor masks."""
    write_miniature(name, tmp_path)
    index = load_index(name, tmp_path)
    assert all(s.mask is None for s in index.samples)
    assert not [s for s in index.samples if word in s.image]


def test_unlabelled_folders_are_not_entered(tmp_path: Path) -> None:
    """Trap 14: pred and Br35H-Mask-RCNN do not become anomalous."""
    write_miniature("br35h", tmp_path)
    index = load_index("br35h", tmp_path)
    assert {Path(s.image).parent.name for s in index.samples} == {"no", "yes"}


def test_indexed_masks_of_visa(tmp_path: Path) -> None:
    """Trap 15: masks of 1 and 2 are marked pixels."""
    write_miniature("visa", tmp_path)
    bad = [s for s in load_index("visa", tmp_path).samples if s.label]
    assert all(read_mask(s).sum() == (24 // 3) * (32 // 3) for s in bad)


def test_irregular_strips_of_aitex(tmp_path: Path) -> None:
    """Trap 16: a double mask, a missing one, one of another size, a narrow last tile."""
    written = write_miniature("aitex", tmp_path)
    Painter(4).picture(
        written.folder / "NODefect_images" / "2306881-210020u" / "0009_000_00.png", (600, 256)
    )
    index = load_index("aitex", tmp_path)
    double = [s for s in index.samples if "0044_019_04" in s.image]
    assert [s.uid.rpartition("#")[2] for s in double] == ["0", "1"]
    assert all(len(s.extra_masks) == 1 for s in double)
    assert [int(read_mask(s).sum()) for s in double] == [15 * 20, 20 * 20]
    notes = " | ".join(index.notes)
    assert "0100_025_08.png: left out, it has no mask" in notes
    assert "0094_027_05.png: left out, its mask has another size" in notes
    assert "0009_000_00.png: its last 88 columns make no whole tile" in notes
    assert {s.defect for s in index.samples if s.label} == {"002", "019"}


def test_thirds_of_kolektor(tmp_path: Path) -> None:
    """Trap 17: values 1 and 2 mark; thirds of 32 rows are 10, 11 and 11 and cover all."""
    written = write_miniature("sdd", tmp_path)
    index = load_index("sdd", tmp_path)
    bad = [s for s in index.samples if s.label]
    assert [(Path(s.image).parent.name, s.uid[-1]) for s in bad] == [
        ("kos01", "0"),
        ("kos02", "1"),
        ("kos03", "2"),
        ("kos04", "0"),
    ]
    crops = sorted({s.crop for s in index.samples if s.crop})
    assert crops == [(0, 0, 24, 10), (0, 10, 24, 21), (0, 21, 24, 32)]
    (written.folder / "kos01" / "Part0_label.bmp").unlink()
    with pytest.raises(DataError, match=r"kos01/Part0\.jpg: its part0_label file is missing"):
        load_index("sdd", tmp_path)


def test_hold_out_equals_scikit_learn() -> None:
    """Trap 18: the same split as the released code makes, for the papers' own counts."""
    from sklearn.model_selection import train_test_split

    for count in (1508, 1143, 2256, 3143, 98, 7):
        expected = train_test_split(range(count), test_size=0.25, random_state=42)[1]
        assert hold_out(count) == sorted(expected)


def test_listing_order_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trap 18: splits are drawn from sorted names, whatever the file system lists first."""
    for name in ("sdd", "aitex", "lag"):
        write_miniature(name, tmp_path)
    before = [load_index(n, tmp_path).fingerprint for n in ("sdd", "aitex", "lag")]
    scandir: Callable[..., object] = os.scandir

    class Shuffled:
        def __init__(self, folder: object) -> None:
            self.entries = list(scandir(folder))  # type: ignore[call-overload]
            random.Random(5).shuffle(self.entries)

        def __enter__(self) -> object:
            return iter(self.entries)

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(os, "scandir", Shuffled)
    assert [load_index(n, tmp_path).fingerprint for n in ("sdd", "aitex", "lag")] == before


def test_columns_are_found_by_name(tmp_path: Path) -> None:
    """Trap 19: VisA's split file is read by column name, in any order."""
    written = write_miniature("visa", tmp_path)
    before = load_index("visa", tmp_path).fingerprint
    table = written.folder / "split_csv" / "1cls.csv"
    rows = [line.split(",") for line in table.read_text().splitlines()]
    table.write_text("\n".join(",".join(reversed(row)) for row in rows))
    assert load_index("visa", tmp_path).fingerprint == before


def test_only_the_last_ending_is_cut() -> None:
    """Trap 20: endings are cut as endings, not as sets of characters."""
    assert stem("d/bmp_b.png") == "bmp_b"
    assert stem("d/006.png.bmp") == "006.png"
    assert mask_key("d/map_mask.png") == "map"
    assert mask_key("_mask.png") == "_mask"


def test_system_files_are_no_images(tmp_path: Path) -> None:
    """Trap 8: Thumbs.db, .DS_Store, desktop.ini, ._copies and __MACOSX."""
    written = write_miniature("kvasir", tmp_path)
    before = load_index("kvasir", tmp_path).fingerprint
    for folder in ("images", "masks"):
        for name in ("Thumbs.db", ".DS_Store", "desktop.ini", "._x.jpg"):
            (written.folder / folder / name).write_bytes(b"x")
    save(written.folder / "__MACOSX" / "images" / "x.png", np.zeros((3, 3), dtype=np.uint8))
    assert load_index("kvasir", tmp_path).fingerprint == before


def test_btad_mixes_endings(tmp_path: Path) -> None:
    """Trap 12 and 20: normal is ok, images are bmp with png masks."""
    write_miniature("btad", tmp_path)
    index = load_index("btad", tmp_path)
    endings = {
        (Path(s.image).suffix, Path(s.mask).suffix) for s in index.samples if s.mask is not None
    }
    assert endings == {(".bmp", ".png"), (".png", ".png"), (".bmp", ".bmp")}
    assert list(index.categories) == list(load_spec("btad").categories)

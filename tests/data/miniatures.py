"""Writes a miniature of every dataset in the layout in which it is distributed.

Names, endings, nesting, label files, mask encodings and the oddities that real archives have are
as distributed; only pictures are small (24 to 32 pixels) and few.  The pictures are drawn from
a fixed seed: grey noise, and a bright rectangle where something is anomalous.
"""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from zsad.data.catalog import load_spec


class Miniature(NamedTuple):
    """What was written: the dataset's folder, and (normal, anomalous) of its test part."""

    folder: Path
    test: tuple[int, int]


Writer = Callable[[Path, "Painter"], tuple[int, int]]
WRITERS: dict[str, tuple[str, Writer]] = {}


def writer(name: str, folder: str) -> Callable[[Writer], Writer]:
    """Register what writes ``name`` into ``folder`` below the data root."""

    def register(function: Writer) -> Writer:
        WRITERS[name] = (folder, function)
        return function

    return register


def write_miniature(name: str, root: Path) -> Miniature:
    """Write the miniature of ``name`` below ``root`` and say what was written."""
    folder, function = WRITERS[name]
    home = root / folder
    return Miniature(home, function(home, Painter(zlib.crc32(name.encode()))))


class Painter:
    """Draws and saves pictures and masks; one random stream for each dataset."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def picture(
        self, path: Path, size: tuple[int, int] = (28, 28), bad: bool = False, grey: bool = False
    ) -> np.ndarray:
        """Save a picture of ``size`` (width, height); return its mask, bool [H, W]."""
        width, height = size
        pixels = self.rng.integers(60, 120, (height, width, 3), dtype=np.uint8)
        mask = np.zeros((height, width), dtype=bool)
        if bad:
            top, left = (int(self.rng.integers(0, n // 2)) for n in (height, width))
            mask[top : top + height // 3, left : left + width // 3] = True
            pixels[mask] = 230
        save(path, pixels[..., 0] if grey else pixels)
        return mask

    def pair(
        self,
        path: Path,
        truth: Path,
        size: tuple[int, int] = (28, 28),
        grey: bool = False,
        value: int = 255,
        mode: str = "L",
    ) -> None:
        """Save an anomalous picture and its mask, marked pixels as ``value``."""
        mask = self.picture(path, size, bad=True, grey=grey)
        save(truth, mask.astype(np.uint8) * np.uint8(value), mode)


def save(path: Path, pixels: np.ndarray, mode: str = "") -> None:
    """Save an array under the format of the path's ending; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    image = image.convert(mode) if mode else image
    options = {"quality": 95} if path.suffix.lower() in (".jpg", ".jpeg") else {}
    image.save(path, **options)  # type: ignore[arg-type]


def _categories(name: str) -> list[str]:
    return list(load_spec(name).categories)


# ----------------------------------------------------------------------------- industrial
def mvtec_like(
    home: Path,
    painter: Painter,
    categories: list[str],
    defects: tuple[str, ...],
    normal: str = "good",
    ending: str = ".png",
    mask_name: str = "{:03}_mask.png",
    size: tuple[int, int] = (28, 28),
) -> tuple[int, int]:
    counts = [0, 0]
    for category in categories:
        grey = category in ("grid", "screw", "zipper")
        for i in range(2):
            painter.picture(home / category / "train" / normal / f"{i:03}{ending}", size, grey=grey)
            painter.picture(home / category / "test" / normal / f"{i:03}{ending}", size, grey=grey)
            counts[0] += 1
        for defect in defects:
            for i in range(2):
                painter.pair(
                    home / category / "test" / defect / f"{i:03}{ending}",
                    home / category / "ground_truth" / defect / mask_name.format(i),
                    size,
                    grey,
                )
                counts[1] += 1
    return counts[0], counts[1]


@writer("mvtec", "mvtec_anomaly_detection")
def mvtec(home: Path, painter: Painter) -> tuple[int, int]:
    counts = mvtec_like(home, painter, _categories("mvtec"), ("color", "cut"))
    for category in _categories("mvtec"):
        (home / category / "license.txt").write_text("terms")
        (home / category / "readme.txt").write_text("what it is")
    return counts


@writer("visa", "VisA_20220922")
def visa(home: Path, painter: Painter) -> tuple[int, int]:
    lines = ["object,split,label,image,mask"]
    for category in _categories("visa"):
        data = f"{category}/Data"
        for i, split in enumerate(("train", "train", "test", "test")):
            image = f"{data}/Images/Normal/{i:04}.JPG"
            painter.picture(home / image, (32, 24))
            lines.append(f"{category},{split},normal,{image},")
        for i in range(2):
            image, mask = f"{data}/Images/Anomaly/{i:03}.JPG", f"{data}/Masks/Anomaly/{i:03}.png"
            painter.pair(home / image, home / mask, (32, 24), value=i + 1)
            lines.append(f"{category},test,anomaly,{image},{mask}")
        (home / category / "image_anno.csv").write_text("image,label,mask\n")
    (home / "split_csv").mkdir()
    (home / "split_csv" / "1cls.csv").write_text("\n".join(lines) + "\n")
    return 24, 24


@writer("sdd", "KolektorSDD")
def sdd(home: Path, painter: Painter) -> tuple[int, int]:
    """Four boards of two parts, 24 x 32 (not divisible by three); a mark in one third each."""
    for board in range(1, 5):
        for part in range(2):
            stem = home / f"kos{board:02}" / f"Part{part}"
            painter.picture(stem.with_suffix(".jpg"), (24, 32), grey=True)
            label = np.zeros((32, 24), dtype=np.uint8)
            if part == 1:
                third = (board - 1) % 3
                label[32 * third // 3 + 1 : 32 * third // 3 + 4, 5:9] = (1, 2, 255, 255)[board - 1]
            save(stem.with_name(f"Part{part}_label.bmp"), label)
    return 5, 4  # 24 thirds, 20 of them normal, a quarter of these held out


@writer("btad", "BTech_Dataset_transformed")
def btad(home: Path, painter: Painter) -> tuple[int, int]:
    """Normal folders are called ok; endings are mixed."""
    mvtec_like(home, painter, ["01"], ("ko",), "ok", ".bmp", "{:03}.png")
    mvtec_like(home, painter, ["02"], ("ko",), "ok", ".png", "{:03}.png")
    mvtec_like(home, painter, ["03"], ("ko",), "ok", ".bmp", "{:03}.bmp")
    return 6, 6


@writer("mpdd", "MPDD")
def mpdd(home: Path, painter: Painter) -> tuple[int, int]:
    return mvtec_like(home, painter, _categories("mpdd"), ("hole", "rust"), ending=".PNG")


@writer("aitex", "AITEX")
def aitex(home: Path, painter: Painter) -> tuple[int, int]:
    """Strips of 512 x 256 (two tiles); one folder nested once more, the known odd files."""
    for i, fabric in enumerate(("2306881-210020u", "2306894-210033u")):
        for j in range(2):
            name = f"{2 * i + j + 1:04}_000_{i:02}.png"
            painter.picture(home / "NODefect_images" / fabric / name, (512, 256), grey=True)
    strips, masks = home / "Defect_images" / "Defect_images", home / "Mask_images"
    marks = {"0011_002_00": [(10, 30)], "0044_019_04": [(5, 20), (300, 320)]}
    for stem, spans in marks.items():
        painter.picture(strips / f"{stem}.png", (512, 256), grey=True)
        for number, (left, right) in enumerate(spans, start=1):
            mask = np.zeros((256, 512), dtype=np.uint8)
            mask[100:120, left:right] = 255
            save(masks / f"{stem}_mask{number if len(spans) > 1 else ''}.png", mask)
    painter.picture(strips / "0100_025_08.png", (512, 256), grey=True)  # it has no mask
    painter.picture(strips / "0094_027_05.png", (500, 256), grey=True)
    save(masks / "0094_027_05_mask.png", np.full((256, 512), 255, dtype=np.uint8))
    return 2, 3  # 8 tiles of clean strips, a quarter held out; 1 + 2 marked tiles


@writer("dagm", "DAGM_KaggleUpload")
def dagm(home: Path, painter: Painter) -> tuple[int, int]:
    for category in _categories("dagm"):
        for phase, first in (("Train", 1), ("Test", 576)):
            part = home / category / phase
            lines = ["1"]
            for i in range(3):
                name, bad = f"{first + i:04}.PNG", i == 1
                if bad:
                    label = f"{first + i:04}_label.PNG"
                    painter.pair(part / name, part / "Label" / label, grey=True)
                else:
                    painter.picture(part / name, grey=True)
                lines.append(f"{first + i}\t{int(bad)}\t{name}\t0\t{label if bad else 0}\t")
            (part / "Label" / "Labels.txt").write_text("\r\n".join(lines) + "\r\n")
            for folder in (part, part / "Label"):
                (folder / "Thumbs.db").write_bytes(b"no image")
    return 20, 10


@writer("dtd_synthetic", "DTD-Synthetic")
def dtd_synthetic(home: Path, painter: Painter) -> tuple[int, int]:
    return mvtec_like(home, painter, _categories("dtd_synthetic"), ("bad",), size=(32, 26))


@writer("elpv", "elpv-dataset")
def elpv(home: Path, painter: Painter) -> tuple[int, int]:
    lines = []
    third = "0.3333333333333333"
    probabilities = ["0.0"] * 8 + ["1.0"] * 3 + [third, "0.6666666666666666"]
    for i, probability in enumerate(probabilities, start=1):
        name, kind = f"images/cell{i:04}.png", "mono" if i % 2 else "poly"
        painter.picture(home / "data" / name, (30, 30), probability == "1.0", grey=True)
        lines.append(f"{name}  {probability}  {kind}")
    (home / "data" / "labels.csv").write_text("\n".join(lines) + "\n")
    return 2, 3


@writer("mvtec_ad2", "mvtec_ad_2")
def mvtec_ad2(home: Path, painter: Painter) -> tuple[int, int]:
    """Truth inside the public part; private parts lie flat and have no labels."""
    lights = ("regular", "overexposed", "shift_1")
    for category in _categories("mvtec_ad2"):
        grey, size = category in ("sheet_metal", "vial"), (32, 26)
        at = home / category
        for part in ("train", "validation"):
            painter.picture(at / part / "good" / "000_regular.png", size, grey=grey)
        for i, light in enumerate(lights[:2]):
            painter.picture(at / "test_public/good" / f"{i:03}_{light}.png", size, grey=grey)
        for i, light in enumerate(lights):
            image = at / "test_public/bad" / f"{i:03}_{light}.png"
            truth = at / "test_public/ground_truth/bad" / f"{i:03}_{light}_mask.png"
            painter.pair(image, truth, size, grey)
        painter.picture(at / "test_private" / "000_regular.png", size, bad=True, grey=grey)
        painter.picture(at / "test_private_mixed" / "000_mixed.png", size, bad=True, grey=grey)
    return 16, 24


@writer("mvtec_loco", "mvtec_loco_anomaly_detection")
def mvtec_loco(home: Path, painter: Painter) -> tuple[int, int]:
    """A folder of masks for every anomalous image; values name the type of defect."""
    for category in _categories("mvtec_loco"):
        at = home / category
        for part in ("train", "validation", "test"):
            for i in range(2):
                painter.picture(at / part / "good" / f"{i:03}.png", (32, 24))
        for defect, values in (("logical_anomalies", (255, 247)), ("structural_anomalies", (251,))):
            for i in range(2):
                mask = painter.picture(at / "test" / defect / f"{i:03}.png", (32, 24), bad=True)
                columns = np.flatnonzero(mask.any(0))
                for number, part in enumerate(np.array_split(columns, len(values))):
                    here = np.zeros(mask.shape, dtype=np.uint8)
                    here[:, part] = mask[:, part] * np.uint8(values[number])
                    save(at / "ground_truth" / defect / f"{i:03}" / f"{number:03}.png", here)
        (at / "defects_config.json").write_text("[]")
    return 10, 20


@writer("real_iad", "Real-IAD")
def real_iad(home: Path, painter: Painter) -> tuple[int, int]:
    """Lists beside the images; one view of a defective object shows nothing and is OK."""
    for category in _categories("real_iad"):
        train = [_view(home, painter, category, "OK", 1, view) for view in (1, 2)]
        test = [
            _view(home, painter, category, "OK", 2, 1),
            _view(home, painter, category, "HS", 3, 1, bad=True),
            _view(home, painter, category, "HS", 3, 2),
        ]
        for lists, tested in (("realiad_jsons", test), ("realiad_jsons_sv", test[:2])):
            content = {"meta": {"prefix": f"{category}/"}, "train": train, "test": tested}
            (home / lists).mkdir(parents=True, exist_ok=True)
            (home / lists / f"{category}.json").write_text(json.dumps(content))
    return 60, 30


def _view(
    home: Path,
    painter: Painter,
    category: str,
    kind: str,
    number: int,
    view: int,
    bad: bool = False,
) -> dict[str, object]:
    """Draw a view of an object of Real-IAD and return its entry in a list."""
    images = home / "realiad_1024" / category
    folder = "OK" if kind == "OK" else f"NG/{kind}"
    stem = f"{folder}/S{number:04}/{category}_{number:04}_{kind}_C{view}_20230101"
    if bad:
        painter.pair(images / f"{stem}.jpg", images / f"{stem}.png")
    else:
        painter.picture(images / f"{stem}.jpg")
    return {
        "category": category,
        "anomaly_class": kind if bad else "OK",
        "image_path": f"{stem}.jpg",
        "mask_path": f"{stem}.png" if bad else None,
    }


@writer("ksdd2", "KolektorSDD2")
def ksdd2(home: Path, painter: Painter) -> tuple[int, int]:
    """A mask beside every image, all black where nothing is wrong; copies in the training part."""
    for part, first in (("train", 10000), ("test", 20000)):
        for i in range(4):
            path = home / part / f"{first + i}.png"
            mask = painter.picture(path, (24, 64), bad=i == 3)
            save(path.with_name(f"{path.stem}_GT.png"), mask.astype(np.uint8) * np.uint8(255))
    for name in ("10000", "10000_GT"):
        shutil.copy(home / "train" / f"{name}.png", home / "train" / f"{name} (copy).png")
    return 3, 1


# -------------------------------------------------------------------------------- medical
@writer("brainmri", "BrainMRI")
def brainmri(home: Path, painter: Painter) -> tuple[int, int]:
    """The archive holds both folders twice; endings of any case, some of them lies."""
    for name in ("1 no.jpeg", "N1.JPG", "no 9.png"):
        painter.picture(home / "no" / name, (24, 31), grey=True)
    for name in ("Y1.jpg", "Y10.JPG", "Y2.jpg"):
        painter.picture(home / "yes" / name, (27, 24), bad=True)
    rgba = painter.rng.integers(0, 255, (24, 24, 4), dtype=np.uint8)
    Image.fromarray(rgba).save(home / "no" / "no.jpg", format="PNG")
    for name in ("no", "yes"):
        shutil.copytree(home / name, home / "brain_tumor_dataset" / name)
    return 4, 3


@writer("headct", "HeadCT")
def headct(home: Path, painter: Painter) -> tuple[int, int]:
    lines = ["id, hemorrhage"]
    for i in range(6):
        painter.picture(home / "head_ct" / "head_ct" / f"{i:03}.png", (26, 28), bad=i < 3)
        lines.append(f"{i},{int(i < 3)}")
    (home / "labels.csv").write_text("\n".join(lines) + "\n")
    return 3, 3


@writer("br35h", "Br35H")
def br35h(home: Path, painter: Painter) -> tuple[int, int]:
    for i in range(4):
        painter.picture(home / "no" / f"no{i}.jpg")
        painter.picture(home / "yes" / f"y{i}.jpg", bad=True)
        painter.picture(home / "pred" / f"pred{i}.jpg", bad=True)
        painter.picture(home / "Br35H-Mask-RCNN" / "TRAIN" / f"y{i}.jpg", bad=True)
    return 4, 4


@writer("lag", "LAG")
def lag(home: Path, painter: Painter) -> tuple[int, int]:
    for folder, count, bad in (("non_glaucoma", 8, False), ("suspicious_glaucoma", 3, True)):
        for i in range(count):
            for part in ("image", "attention_map"):
                painter.picture(home / folder / part / f"{i}.jpg", bad=bad)
            (home / folder / "label").mkdir(exist_ok=True)
            (home / folder / "label" / f"{i}.txt").write_text(str(int(bad)))
    return 2, 3


@writer("cvc_clinicdb", "CVC-ClinicDB")
def cvc_clinicdb(home: Path, painter: Painter) -> tuple[int, int]:
    """Three samples per pixel under a greyscale tag, which Pillow refuses."""
    import tifffile

    for i in range(1, 5):
        path = home / "Original" / f"{i}.tif"
        painter.pair(path, home / "Ground Truth" / f"{i}.tif", (32, 24))
        pixels = np.array(Image.open(path))
        tifffile.imwrite(path, pixels, photometric="minisblack", planarconfig="contig")
    (home / "README.txt").write_text("research only")
    return 0, 4


def _pairs(
    home: Path, painter: Painter, images: str, masks: str, image_name: str, mask_name: str
) -> tuple[int, int]:
    mode = "RGB" if mask_name.endswith(".jpg") else "L"
    for i in range(1, 5):
        painter.pair(
            home / images / image_name.format(i),
            home / masks / mask_name.format(i),
            (32, 25),
            mode=mode,
        )
    return 0, 4


@writer("cvc_colondb", "CVC-ColonDB")
def cvc_colondb(home: Path, painter: Painter) -> tuple[int, int]:
    return _pairs(home, painter, "images", "masks", "{}.png", "{}.png")


@writer("kvasir", "Kvasir-SEG")
def kvasir(home: Path, painter: Painter) -> tuple[int, int]:
    name = "cju0qkwl35piu0993l0dewei{}.jpg"
    (home / "images").mkdir(parents=True)
    (home / "kavsir_bboxes.json").write_text("{}")
    return _pairs(home, painter, "images", "masks", name, name)


@writer("endo", "EndoTect_2020_Segmentation_Test_Dataset")
def endo(home: Path, painter: Painter) -> tuple[int, int]:
    return _pairs(home, painter, "images", "masks", "ab{}.jpg", "ab{}.jpg")


@writer("isic", "ISIC")
def isic(home: Path, painter: Painter) -> tuple[int, int]:
    prefix = "ISBI2016_ISIC_Part1_Test_"
    return _pairs(
        home,
        painter,
        f"{prefix}Data",
        f"{prefix}GroundTruth",
        "ISIC_{:07}.jpg",
        "ISIC_{:07}_Segmentation.png",
    )


@writer("tn3k", "tn3k")
def tn3k(home: Path, painter: Painter) -> tuple[int, int]:
    _pairs(home, painter, "trainval-image", "trainval-mask", "{:04}.jpg", "{:04}.jpg")
    return _pairs(home, painter, "test-image", "test-mask", "{:04}.jpg", "{:04}.jpg")


def _bmad(home: Path, painter: Painter, labels: str = "label") -> tuple[int, int]:
    for i in range(3):
        painter.picture(home / "train" / "good" / f"{i}.png", grey=True)
        for part in ("valid", "test"):
            good, bad = home / part / "good", home / part / "Ungood"
            painter.picture(good / "img" / f"{i}.png", grey=True)
            save(good / labels / f"{i}.png", np.zeros((28, 28), dtype=np.uint8))
            painter.pair(bad / "img" / f"{i}.png", bad / labels / f"{i}.png", grey=True, value=1)
    return 3, 3


@writer("liverct", "Liver_AD")
def liverct(home: Path, painter: Painter) -> tuple[int, int]:
    return _bmad(home, painter)


@writer("resc", "Retina_RESC")
def resc(home: Path, painter: Painter) -> tuple[int, int]:
    return _bmad(home, painter)


@writer("brainmri_bmad", "Brain_AD")
def brainmri_bmad(home: Path, painter: Painter) -> tuple[int, int]:
    return _bmad(home, painter, "anomaly_mask")


@writer("covid19", "COVID-19_Radiography_Dataset")
def covid19(home: Path, painter: Painter) -> tuple[int, int]:
    """The later release: a level more, and masks that show lungs."""
    for folder, bad in (("Normal", False), ("COVID", True), ("Viral Pneumonia", True)):
        for i in range(1, 4):
            painter.picture(home / folder / "images" / f"{folder}-{i}.png", bad=bad, grey=True)
            painter.picture(home / folder / "masks" / f"{folder}-{i}.png", grey=True)
    (home / "COVID.metadata.xlsx").write_bytes(b"")
    return 3, 3

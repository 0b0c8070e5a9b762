"""Sentences from annotations: every word follows from pixels whose answer is known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zsad.errors import DataError
from zsad.prompt_bank import captions
from zsad.types import Category, Sample

NUT = Category("toy", "metal_nut", "metal nut")
SIZE = 90


def disk(row: int, column: int, radius: int) -> np.ndarray:
    y, x = np.mgrid[:SIZE, :SIZE]
    return (y - row) ** 2 + (x - column) ** 2 <= radius**2


def sample(
    root: Path, mask: np.ndarray | None, colour: tuple[int, int, int], defect: str = "scratch"
) -> Sample:
    pixels = np.full((SIZE, SIZE, 3), 128, np.uint8)
    path = root / f"{defect or 'none'}-{len(list(root.iterdir()))}.png"
    mask_path = None
    if mask is not None:
        pixels[mask] = colour
        mask_path = path.with_suffix(".mask.png")
        Image.fromarray(mask.astype(np.uint8) * 255).save(mask_path)
    Image.fromarray(pixels).save(path)
    return Sample(
        str(path),
        1,
        "metal_nut",
        mask=str(mask_path) if mask_path else None,
        defect=defect,
        uid=path.name,
    )


@pytest.mark.parametrize(
    ("mask", "colour", "expected"),
    [
        (disk(12, 12, 6), (20, 20, 20), "A darker small round scratch at the top left"),
        (disk(45, 45, 40), (250, 250, 250), "A lighter large round scratch at the center"),
        (disk(80, 45, 2), (250, 120, 120), "A reddish tiny round scratch at the bottom"),
    ],
)
def test_tone_size_shape_and_place(
    tmp_path: Path, mask: np.ndarray, colour: tuple[int, int, int], expected: str
) -> None:
    text = captions.describe(sample(tmp_path, mask, colour), NUT)
    assert text == f"{expected} of the metal nut."


def test_shapes() -> None:
    bar = np.zeros((SIZE, SIZE), bool)
    bar[40:44, 5:80] = True
    assert captions.region_shape(bar) == "elongated"
    corner = np.zeros((SIZE, SIZE), bool)
    corner[20:60, 20:30] = corner[50:60, 20:60] = True
    assert captions.region_shape(corner) == "irregular"
    dots = sum(disk(r, c, 3) for r in (10, 45, 80) for c in (10, 80)) > 0
    assert captions.region_shape(dots) == "scattered"
    one = np.zeros((SIZE, SIZE), bool)
    one[3, 3] = True
    assert captions.region_shape(one) == "round"


@pytest.mark.parametrize("row", [0, 1, 2])
@pytest.mark.parametrize("column", [0, 1, 2])
def test_mirroring_mirrors_the_place(row: int, column: int) -> None:
    swap = {"left": "right", "right": "left"}
    mask = disk(15 + 30 * row, 15 + 30 * column, 5)
    words = captions.region_place(mask).split()
    assert captions.region_place(mask[:, ::-1]).split() == [swap.get(w, w) for w in words]


def test_sentences_are_deterministic_and_in_order(tmp_path: Path) -> None:
    made = [sample(tmp_path, disk(20 + 10 * i, 40, 5), (0, 0, 0)) for i in range(4)]
    normal = Sample(made[0].image, 0, "metal_nut", uid="n")
    categories = {"metal_nut": NUT}
    one = captions.mask_captions([*made, normal], categories)
    assert one == captions.mask_captions([normal, *reversed(made)], categories)
    assert len(one["metal_nut"]) == 4
    assert len(captions.mask_captions([*made, normal], categories, True)["metal_nut"]) == 5


def test_unnamed_defects_and_missing_masks(tmp_path: Path) -> None:
    bare = sample(tmp_path, None, (0, 0, 0), "bent_lead")
    assert captions.describe(bare, NUT) == "A metal nut with a bent lead."
    for name in ("bad", "", "001", "Ungood"):
        assert captions.defect_words(name) == "anomalous region"


@dataclass
class Wish:
    caption_source: str
    caption_all: bool = False
    caption_count: int = 1


def test_sources(tmp_path: Path) -> None:
    made = [sample(tmp_path, disk(20, 20 + 20 * i, 5), (0, 0, 0)) for i in range(3)]
    categories = {"metal_nut": NUT}

    def answers(s: Sample, category: Category) -> list[str] | None:
        return {0: ["A dark pit. It is deep.", "A pit."], 1: [""]}.get(made.index(s))

    def ask(source: str, count: int = 1, normal: bool = False) -> list[str]:
        wish = Wish(source, normal, count)
        return captions.captions_for(wish, made, categories, "toy", answers).get("metal_nut", [])

    assert ask("off") == []
    assert ask("mask") == captions.mask_captions(made, categories)["metal_nut"]
    # one description per image; the second was asked about, and nothing abnormal was named
    assert ask("auto") == ["A dark pit. It is deep.", ask("mask")[2]]
    assert ask("auto", 2) == ["A dark pit. It is deep.", "A pit.", ask("mask")[2]]
    command = "zsad prompts generate --kind toy --datasets toy --images"
    with pytest.raises(DataError, match=rf"1 training images have no cached .*`{command}`"):
        ask("endpoint")
    with pytest.raises(DataError, match=rf"2 .*fewer than 2 .*`{command} --per-image 2`"):
        ask("endpoint", 2)
    with pytest.raises(DataError, match=rf"`{command} --normal-images`"):
        ask("endpoint", normal=True)


def test_a_huge_image_is_described_like_its_small_copy(tmp_path: Path) -> None:
    small = disk(20, 70, 8)
    big = small.repeat(12, 0).repeat(12, 1)
    a = captions._shrunk(np.zeros((*big.shape, 3), np.uint8), big)[1]
    assert captions.region_place(a) == captions.region_place(small)
    assert captions.region_shape(a) == captions.region_shape(small)
    assert captions.region_size(a) == captions.region_size(small)

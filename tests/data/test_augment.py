"""Changed training pictures: the mask moves with the picture, and names repeat what was drawn."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zsad.data import augment, mosaic
from zsad.data.augment import Change
from zsad.data.images import read_image, read_mask
from zsad.types import Sample

BRIGHT = (40, 12, 60, 28)  # left, top, right, bottom of what is anomalous


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    pixels = np.full((80, 100, 3), 30, np.uint8)
    marked = np.zeros((80, 100), np.uint8)
    left, top, right, bottom = BRIGHT
    pixels[top:bottom, left:right] = 230
    marked[top:bottom, left:right] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(marked).save(tmp_path / "a_mask.png")
    return Sample(str(tmp_path / "a.png"), 1, "nut", str(tmp_path / "a_mask.png"), "hole", uid="a")


@pytest.mark.parametrize(
    "change",
    [
        Change(),
        Change(turn=25.0),
        Change(quarters=3),
        Change(shift=(0.1, -0.1), turn=-10.0, border="colour", colour=(30, 30, 30)),
        Change(flips=(True, True)),
    ],
)
def test_the_mask_moves_with_the_picture(sample: Sample, change: Change) -> None:
    made = augment.changed(sample, change, "m")
    seen = np.asarray(read_image(made.image))[:, :, 0] > 128
    assert (seen != read_mask(made)).mean() < 0.01
    assert read_mask(made).sum() == pytest.approx(20 * 16, rel=0.1)


def test_tones_move_nothing(sample: Sample) -> None:
    change = Change(brightness=0.8, contrast=1.2, saturation=0.8, noise=5.0, blur=1.0, hue=0.1)
    made = augment.changed(sample, change, "m")
    assert np.array_equal(read_mask(made), read_mask(sample))
    assert not np.array_equal(read_image(made.image), read_image(sample.image))
    assert np.array_equal(read_image(made.image), read_image(made.image))


def test_a_normal_picture_and_a_mosaic_can_be_changed(sample: Sample) -> None:
    normal = augment.changed(Sample(sample.image, 0, "nut", uid="b"), Change(turn=9.0), "m")
    assert normal.mask is None
    assert not read_mask(normal).any()
    tiles = mosaic.mosaic([sample] * 4, "t")
    turned = augment.changed(tiles, Change(quarters=2), "m")
    assert np.array_equal(read_mask(turned), read_mask(tiles)[::-1, ::-1])


def test_an_epoch_depends_on_names_and_seeds_alone(sample: Sample) -> None:
    def epoch(seed: int, key: str) -> list[str]:
        return [s.image for s in augment.each([sample] * 2, augment.inspection, seed, key)]

    assert epoch(0, "main/1") == epoch(0, "main/1")
    assert len({epoch(0, "main/1")[0], epoch(1, "main/1")[0], epoch(0, "main/2")[0]}) == 3
    uids = [s.uid for s in augment.each([sample] * 2, augment.inspection, 0, "main/1")]
    assert len(set(uids)) == 2


def test_released_changes_have_the_published_shares() -> None:
    drawn = [augment.inspection(random.Random(i)) for i in range(2000)]
    shares = [sum(bool(getattr(c, n)) for c in drawn) / 2000 for n in ("turn", "noise", "blur")]
    assert shares == pytest.approx([0.5, 0.5, 1 / 3], abs=0.04)
    assert max(abs(c.turn) for c in drawn) <= 30


# ----------------------------------------------------------------------------------- crops
@pytest.mark.parametrize("size", [(100, 80), (60, 60)])
def test_crops_have_the_area_and_the_proportions_of_random_resized_crop(
    size: tuple[int, int],
) -> None:
    marks = np.arange(size[0] * size[1]).reshape(size[1], size[0]) % 251
    picture = Image.fromarray(marks.astype(np.uint8))
    shares, corners = [], set()
    for seed in range(1, 600):
        part = np.asarray(Change(crop_seed=seed).moved(picture))
        height, width = part.shape
        shares.append(width * height / (size[0] * size[1]))
        assert 0.73 < width / height < 1.37
        corners.add(int(part[0, 0]))
    assert 0.07 < min(shares) < 0.1
    assert 0.9 < max(shares) <= 1.0
    # Uniform areas, of which those that do not fit are drawn again: below their mean of 0.54.
    assert 0.42 < np.mean(shares) < 0.54
    assert len(corners) > 150


def test_a_narrow_picture_is_cropped_in_its_middle_where_no_draw_fits() -> None:
    narrow = Image.fromarray(np.tile(np.arange(400, dtype=np.uint16) // 2, (4, 1)).astype(np.uint8))
    sizes = {Change(crop_seed=seed).moved(narrow).size for seed in range(1, 80)}
    assert max(sizes) == (5, 4)  # 4 : 3 of four rows
    middle = [
        m
        for seed in range(1, 80)
        if (m := Change(crop_seed=seed).moved(narrow)).size == (5, 4)
        and 97 <= np.asarray(m)[0, 0] <= 99
    ]
    assert middle


def test_the_mask_is_cropped_and_mirrored_with_the_picture(sample: Sample) -> None:
    for i, made in enumerate(augment.each([sample] * 12, augment.crop_and_flip, 0, "context/0")):
        seen = np.asarray(read_image(made.image))[:, :, 0] > 128
        assert np.array_equal(seen, read_mask(made)), i
    drawn = [augment.crop_and_flip(random.Random(i)) for i in range(400)]
    assert sum(c.flips[0] for c in drawn) == pytest.approx(200, abs=40)
    assert not any(c.flips[1] for c in drawn)
    assert len({c.crop_seed for c in drawn}) == 400


def test_what_is_as_usual_is_not_told(sample: Sample) -> None:
    plain = augment.changed(sample, Change(), "m")
    assert len(augment.changed(sample, Change(turn=1.0), "m").image) < len(plain.image) + 30

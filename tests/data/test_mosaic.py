"""Mosaics: what they show, and that epochs draw them from a fixed pool."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zsad.data import mosaic
from zsad.data.images import read_image, read_mask
from zsad.data.mosaic import Mosaic
from zsad.types import Sample


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    made = []
    for i in range(20):
        path, mask = tmp_path / f"{i}.png", tmp_path / f"{i}_mask.png"
        Image.new("RGB", (6, 4), (10 * i, 0, 0)).save(path)
        marked = np.zeros((4, 6), dtype=np.uint8)
        marked[1, 2] = 255
        Image.fromarray(marked).save(mask)
        bad = i % 2
        made.append(
            Sample(
                str(path),
                bad,
                "bottle",
                mask=str(mask) if bad else None,
                defect="broken" if bad else "good",
                uid=f"{i:02d}",
            )
        )
    return made


def test_a_mosaic_shows_its_tiles_and_their_masks(samples: list[Sample]) -> None:
    made = mosaic.mosaic([samples[i] for i in (0, 1, 2, 3)], "m")
    assert made.label == 1
    image = np.asarray(read_image(made.image))
    assert image.shape == (8, 12, 3)
    assert [int(image[y, x, 0]) for y, x in ((0, 0), (0, 6), (4, 0), (4, 6))] == [0, 10, 20, 30]
    marked = read_mask(made)
    assert {tuple(p) for p in np.argwhere(marked)} == {(1, 8), (5, 8)}
    assert mosaic.mosaic([samples[0]] * 4, "n").mask is None


def test_epochs_draw_from_one_pool_and_repeat_themselves(samples: list[Sample]) -> None:
    config = Mosaic(p=0.3)
    epochs = [mosaic.epoch(samples, config, 0, f"main/{e}") for e in range(40)]
    assert epochs[3] == mosaic.epoch(samples[::-1], config, 0, "main/3")
    assert epochs[3] != epochs[4]
    drawn = [s for e in epochs for s in e if s.uid.startswith("mosaic/")]
    assert len({s.image for s in drawn}) <= 6
    assert len(drawn) / (40 * 20) == pytest.approx(0.3, abs=0.06)
    assert all(len(e) == 20 for e in epochs)
    assert mosaic.epoch(samples, config, 1, "main/3") != epochs[3]


def test_fresh_mosaics_differ_in_every_epoch(samples: list[Sample]) -> None:
    config = Mosaic(p=0.3, pool="fresh")
    epochs = [mosaic.epoch(samples, config, 0, f"main/{e}") for e in range(40)]
    assert epochs[3] == mosaic.epoch(samples[::-1], config, 0, "main/3")
    drawn = [s for e in epochs for s in e if s.uid.startswith("mosaic/")]
    assert len(drawn) / (40 * 20) == pytest.approx(0.3, abs=0.06)
    assert len({s.uid for s in drawn}) == len(drawn)
    assert len({s.image for s in drawn}) > 0.9 * len(drawn)


@pytest.mark.parametrize("pool", ["fixed", "fresh"])
def test_a_mosaic_can_keep_the_label_of_the_image_that_it_replaces(
    samples: list[Sample], pool: str
) -> None:
    anomalous = sum(s.label for s in samples)
    tiles = Mosaic(p=1, pool=pool)  # type: ignore[arg-type]
    kept = Mosaic(p=1, pool=pool, label="replaced")  # type: ignore[arg-type]
    followed = mosaic.epoch(samples, tiles, 0, "main/0")
    assert all(s.label == bool(read_mask(s).any()) for s in followed)
    assert sum(s.label for s in followed) > 1.5 * anomalous  # one defect of four makes a defect
    epochs = [mosaic.epoch(samples, kept, seed, "main/0") for seed in range(6)]
    assert {sum(s.label for s in e) for e in epochs} == {anomalous}
    # The mask is that of the tiles all the same, and is there where it is empty.
    drawn = [(s.label, bool(read_mask(s).any()), s.mask is None) for e in epochs for s in e]
    assert {(0, True, False), (1, True, False)} <= set(drawn)
    assert {marked for _, marked, _ in drawn} == {True, False}
    assert not any(bare for *_, bare in drawn)

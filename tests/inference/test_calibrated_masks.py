"""Masks are usable: on real leather with the bundled backbone, and as a measurement counts them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

import zsad
from zsad.benchmarks import masks
from zsad.data.images import mask_values


@pytest.mark.slow
def test_calibrated_masks_find_the_defects_of_real_leather(shared_dir: Path) -> None:
    """Half of the defect, at most 5 % of what is normal (10 % in any picture), 1 % of good ones."""
    leather = shared_dir / "data" / "mvtec" / "leather"
    found, normal_area, good = [], [], []
    for p in zsad.predict(
        "winclip", leather / "test", "leather",
        calibrate=leather / "train" / "good", backbone="zsad-tiny", device="cpu", explanations=0,
    ):  # fmt: skip
        picture = Path(str(p.path))
        if picture.parent.name == "good":
            good.append(p.mask.mean())
            continue
        truth = mask_values(
            leather / "ground_truth" / picture.parent.name / f"{picture.stem}_mask.png"
        )
        found.append(p.mask[truth > 0].mean())
        normal_area.append(p.mask[truth == 0].mean())
    assert (len(found), len(good)) == (11, 4)
    assert np.median(found) >= 0.5
    assert np.median(normal_area) <= 0.05
    assert max(normal_area) <= 0.10
    assert np.median(good) <= 0.01


def test_a_cell_of_the_measurement_by_hand() -> None:
    rng = np.random.default_rng(0)
    maps = 0.2 + 0.01 * rng.random((6, 10, 10)).astype(np.float32)
    maps[4:, 2:4, 2:5] = 0.9  # two anomalous pictures, six pixels each
    truth = np.zeros((6, 10, 10), dtype=bool)
    truth[4:, 2:4, 3:7] = True  # eight pixels, four of them marked
    labels = np.array([0, 0, 0, 0, 1, 1])
    whole = masks.Maps(maps, labels, truth, np.ones(6, dtype=bool))
    assert masks.cell(whole).startswith(f"50.0 / {100 * 2 / 92:.1f} ({100 * 2 / 92:.1f}) / ")
    unmasked = masks.Maps(maps, labels, truth, np.zeros(6, dtype=bool))
    assert masks.cell(unmasked).startswith("100 / ")
    alone = masks.Maps(maps[4:], labels[4:], truth[4:], np.ones(2, dtype=bool))
    assert masks.cell(alone).endswith("/ –\\*")


@pytest.mark.parametrize(
    ("items", "count", "expected"), [(10, 5, [0, 2, 4, 6, 8]), (3, 5, [0, 1, 2])]
)
def test_a_subset_is_spread(items: int, count: int, expected: list[int]) -> None:
    assert masks.spread(list(range(items)), count) == expected  # type: ignore[arg-type]


def test_the_median_of_nothing_is_a_dash() -> None:
    assert masks.middle([]) == "–"
    assert masks.middle([0.1, 0.3, 0.2]) == "20.0"
    assert not math.isnan(float(masks.middle([0.5])))

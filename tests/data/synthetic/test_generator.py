"""The generated pictures: same seed same picture, exact masks, disjoint groups, natural colours."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from scipy import ndimage

from zsad.data.synthetic import defects, finish
from zsad.data.synthetic.generator import (
    ANY_DEFECT,
    CATEGORIES,
    FAMILIES,
    Kind,
    choose_defect,
    draw,
    stream,
)

EVERY = {**CATEGORIES, **FAMILIES}
HELD_OUT = [k for k in CATEGORIES.values() if k.group == "test"]
TRAINED_ON = [k for k in CATEGORIES.values() if k.group == "train"]


def digest(kind: Kind, **changes: object) -> str:
    key: dict[str, object] = {
        "seed": 5,
        "split": "test",
        "index": 1,
        "label": 1,
        "size": 96,
    } | changes
    made = draw(kind, **key)  # type: ignore[arg-type]
    return hashlib.sha256(made.image.tobytes() + made.mask.tobytes()).hexdigest()


@pytest.mark.parametrize("kind", EVERY.values(), ids=lambda k: k.key)
def test_a_picture_is_a_function_of_its_key(kind: Kind) -> None:
    assert digest(kind) == digest(kind)
    others = {
        digest(kind, **c) for c in ({"seed": 6}, {"split": "train"}, {"index": 2}, {"label": 0})
    }
    assert len(others | {digest(kind)}) == 5


def test_streams_do_not_depend_on_how_often_others_were_drawn() -> None:
    first = stream(1, "a").random(3)
    stream(1, "b").random(100)
    assert np.array_equal(first, stream(1, "a").random(3))
    assert not np.array_equal(first, stream("a", 1).random(3))


def test_the_groups_share_no_category_and_no_defect() -> None:
    for group in (HELD_OUT, TRAINED_ON):
        assert {k.kind for k in group} == {"object", "texture"}
    assert not {k.make for k in HELD_OUT} & {k.make for k in [*TRAINED_ON, *FAMILIES.values()]}
    held_out = {d for k in HELD_OUT for d in k.defects}
    trained = {d for k in [*TRAINED_ON, *FAMILIES.values()] for d in k.defects}
    assert not held_out & trained
    assert not set(defects.TEST_DEFECTS.values()) & set(defects.TRAIN_DEFECTS.values())
    assert len(held_out | trained) >= 10


def test_there_are_enough_surfaces() -> None:
    kinds = [k.kind for k in CATEGORIES.values()]
    assert kinds.count("texture") >= 8
    assert kinds.count("object") >= 8


def pairs() -> list[tuple[str, str]]:
    named = [(k.key, d) for k in CATEGORIES.values() for d in k.defects]
    return named + [(k.key, d) for k in FAMILIES.values() for d in k.structural]


@pytest.mark.parametrize(("key", "defect"), pairs())
def test_the_mask_is_exactly_where_the_defect_changed_the_picture(key: str, defect: str) -> None:
    made = draw(
        EVERY[key],
        seed=3,
        split="test",
        index=2,
        label=1,
        size=112,
        defect=defect,
        with_clean=True,
    )
    assert made.clean is not None
    assert made.defect == defect
    changed = np.abs(made.image.astype(int) - made.clean.astype(int)).max(2)
    # The camera's defocus (sigma <= 0.4 pixels at this size) carries a change two pixels far.
    near = ndimage.binary_dilation(made.mask, iterations=3)
    assert changed[~near].max() <= 1  # rounding of the defocus
    assert changed[made.mask].mean() > 4  # grey levels of 255: it can be seen
    assert 0 < made.mask.mean() < 0.5


@pytest.mark.parametrize("kind", EVERY.values(), ids=lambda k: k.key)
def test_normal_pictures_come_from_the_same_process(kind: Kind) -> None:
    made = draw(kind, seed=3, split="test", index=0, label=0, size=96, with_clean=True)
    assert not made.mask.any()
    assert made.defect == ""
    assert made.clean is not None
    assert np.array_equal(made.image, made.clean)


def test_families_learn_from_the_free_defect_too() -> None:
    for kind in FAMILIES.values():
        made = draw(kind, seed=1, split="pool", index=0, label=1, size=96, defect=ANY_DEFECT)
        assert made.mask.any()


def test_nuisances_are_as_frequent_with_and_without_a_defect() -> None:
    kind = CATEGORIES["wood"]
    counts = [
        sum(
            len(draw(kind, seed=0, split="test", index=i, label=label, size=48).nuisances)
            for i in range(120)
        )
        for label in (0, 1)
    ]
    # About 1.05 per picture, standard deviation of the sum of 120: 10.
    assert abs(counts[0] - counts[1]) < 45
    assert min(counts) > 80
    seen = {
        n
        for i in range(60)
        for n in draw(kind, seed=0, split="test", index=i, label=0, size=48).nuisances
    }
    assert seen == set(finish.NUISANCES)


def test_defects_take_turns() -> None:
    for kind in CATEGORIES.values():
        names = [choose_defect(kind, 0, "test", i) for i in range(len(kind.defects))]
        assert sorted(names) == sorted(kind.defects)


def test_defects_vary_in_size_and_contrast() -> None:
    areas, contrasts = [], []
    for i in range(40):
        made = draw(
            HELD_OUT[i % len(HELD_OUT)],
            seed=2,
            split="test",
            index=i,
            label=1,
            size=96,
            with_clean=True,
        )
        assert made.clean is not None
        areas.append(made.mask.mean())
        contrasts.append(np.abs(made.image.astype(int) - made.clean.astype(int))[made.mask].mean())
    assert max(areas) > 8 * min(areas)
    assert max(contrasts) > 3 * min(contrasts)


def test_colours_are_those_of_materials() -> None:
    """Strong saturation is rare and no picture is a field of neon, as hues drawn at random are."""
    saturation = []
    for kind in CATEGORIES.values():
        for i in range(4):
            image = draw(kind, seed=4, split="test", index=i, label=i % 2, size=64).image.astype(
                float
            )
            saturation.append(((image.max(2) - image.min(2)) / np.maximum(image.max(2), 1)).mean())
    assert np.median(saturation) < 0.45
    assert np.mean(np.array(saturation) > 0.85) < 0.05


def test_brightness_does_not_give_the_defect_away() -> None:
    """A classifier that sees only mean and spread of a picture is near chance."""
    from sklearn.metrics import roc_auc_score

    for statistic in (np.mean, np.std):
        values = {0: [], 1: []}  # type: dict[int, list[float]]
        for kind in HELD_OUT:
            for label in (0, 1):
                values[label] += [
                    float(
                        statistic(
                            draw(kind, seed=8, split="test", index=i, label=label, size=48).image
                        )
                    )
                    for i in range(15)
                ]
        labels = [0] * len(values[0]) + [1] * len(values[1])
        # 120 against 120 pictures: standard deviation of the area under chance 0.037.
        assert abs(roc_auc_score(labels, values[0] + values[1]) - 0.5) < 0.13

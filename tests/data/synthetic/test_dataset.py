"""The generated dataset as the data room sees it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from zsad.data.catalog import load_spec
from zsad.data.images import read_image, read_mask
from zsad.data.index import load_index
from zsad.data.synthetic.dataset import address
from zsad.data.synthetic.generator import CATEGORIES
from zsad.errors import DataError, RequestError


def test_the_definition_and_the_generator_name_the_same_categories() -> None:
    spec = load_index("synthetic").spec
    assert {k: (c.prompt, c.kind, c.group) for k, c in spec.categories.items()} == {
        k: (c.class_name, c.kind, c.group) for k, c in CATEGORIES.items()
    }


def test_the_test_split_is_balanced_and_held_out() -> None:
    index = load_index("synthetic")
    test = [s for s in index.samples if s.split == "test"]
    assert {CATEGORIES[s.category].group for s in test} == {"test"}
    assert set(Counter((s.category, s.label) for s in test).values()) == {20}
    train = [s for s in index.samples if s.split == "train"]
    assert {s.label for s in train if CATEGORIES[s.category].group == "test"} == {0}
    assert {s.label for s in train if CATEGORIES[s.category].group == "train"} == {0, 1}
    assert len({s.uid for s in index.samples}) == len(index.samples)
    assert all((s.mask is not None) == bool(s.label) for s in index.samples)


def test_a_new_seed_is_a_new_dataset() -> None:
    first, second = load_index("synthetic"), load_index("synthetic", variant="seed-7")
    assert first.fingerprint != second.fingerprint
    assert not {s.image for s in first.samples} & {s.image for s in second.samples}
    with pytest.raises(RequestError, match="seed-0"):
        load_index("synthetic", variant="seed7")


def test_the_name_of_the_variant_takes_any_number() -> None:
    named = load_index("synthetic", variant="seed-4711")
    assert named.variant == "seed-4711"
    assert named.counts() == load_index("synthetic").counts()
    assert named.fingerprint != load_index("synthetic", variant="seed-4712").fingerprint
    uri = named.samples[0].image
    assert "4711" in uri
    assert load_spec("synthetic").variant("seed-4711").title == "pictures of seed 4711"
    for wrong in ("seed-", "seed-x", "seed--1", "need-3", "seed-12345678901"):
        with pytest.raises(RequestError, match=f"unknown variant of dataset synthetic '{wrong}'"):
            load_index("synthetic", variant=wrong)


def test_pictures_and_masks_are_read_by_their_address() -> None:
    index = load_index("synthetic")
    sample = next(s for s in index.samples if s.label)
    image = read_image(sample.image)
    assert image.mode == "RGB"
    assert image.size == (224, 224)
    mask = read_mask(sample, (224, 224))
    assert mask.dtype == bool
    assert 0 < mask.mean() < 0.5
    assert np.array_equal(np.asarray(image), np.asarray(read_image(sample.image)))


@pytest.mark.parametrize(
    "uri",
    [
        address("tulip", 0, "test", 0, 0),
        "synthetic://wood?seed=x&split=test&index=0&label=0&size=224",
        "synthetic://wood?seed=0",
        address("wood", 0, "test", 0, 2),
        address("wood", 0, "test", 0, 0, 9),
    ],
)
def test_a_wrong_address_is_an_error_that_names_it(uri: str) -> None:
    with pytest.raises(DataError, match="synthetic://"):
        read_image(uri)

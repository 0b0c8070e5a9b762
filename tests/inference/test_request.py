"""What callers say about pictures: names, kinds, references, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import zsad
from zsad.data.index import load_index
from zsad.errors import RequestError
from zsad.inference.request import categories_of, references_of

SIZE = 112


def load(name: str, preset: str = "released", **overrides: Any) -> Any:
    return zsad.load_method(
        name,
        backbone="zsad-tiny",
        image_size=SIZE,
        device="cpu",
        untrained=True,
        preset=preset,
        overrides=overrides,
    )


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def pictures(count: int) -> list[Image.Image]:
    generator = np.random.default_rng(3)
    shape = (SIZE, SIZE, 3)
    return [Image.fromarray(generator.integers(0, 255, shape, np.uint8)) for _ in range(count)]


# --------------------------------------------------------------------------------- names
def test_names_kinds_and_domains() -> None:
    nut, wood = categories_of(["metal_nut", "wood"], 2, ["object", "texture"], "medical")
    assert (nut.class_name, nut.said("spoken"), nut.said("released")) == (
        "metal nut",
        "metal nut",
        "metal_nut",
    )
    assert (nut.kind, wood.kind, wood.domain) == ("object", "texture", "medical")
    assert [c.kind for c in categories_of("wood", 2)] == ["object", "object"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((["a"], 2), "1 class names for 2 images"),
        (("a", 2, ["object"]), "1 kinds for 2 images"),
        (("a", 1, "fabric"), "kind 'fabric' is not one of: object, texture"),
        (("a", 1, None, "space"), "domain 'space' is not one of: industrial, medical"),
        ((" _ ", 1), "the class name is empty"),
        (("a", 2, ["object", "texture"]), "'a' is given two kinds"),
    ],
)
def test_what_names_are_refused(arguments: Any, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        categories_of(*arguments)


def test_a_kind_chooses_the_words_and_is_not_remembered(images: torch.Tensor) -> None:
    loaded = load("anovl", "default")
    plain = loaded.predict_tensor(images[:2], "cloth")
    texture = loaded.predict_tensor(images[:2], "cloth", kinds="texture")
    again = loaded.predict_tensor(images[:2], "cloth")
    medical = loaded.predict_tensor(images[:2], "cloth", domains="medical")
    scores = [p[0].image_score for p in (plain, texture, again, medical)]
    assert scores[0] == scores[2]
    assert len(set(scores)) == 3
    (picture,) = pictures(1)
    one = loaded.predict(picture, "cloth", kinds="texture", domains="industrial")
    assert one[0].image_score != loaded.predict(picture, "cloth")[0].image_score


def test_a_dataset_can_be_called_as_released() -> None:
    index = load_index("synthetic")
    (key,) = (k for k, c in index.categories.items() if c.class_name == "metal nut")
    assert index.calling("spoken") is index
    assert index.calling("released").categories[key].class_name == key == "metal_nut"


# ---------------------------------------------------------------------------- references
def test_references_of_every_form_are_the_same(images: torch.Tensor) -> None:
    loaded = load("aprilgan", shots=2, stretch=False)
    near = torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    names = ["a", "b", "a", "b"]

    def scores(references: Any) -> list[float]:
        found = loaded.predict_tensor(images, names, references=references, explanations=0)
        return [p.image_score for p in found]

    first = scores(near)
    assert scores(list(near)) == first
    assert scores({"a": near, "b": near[:2]}) == first
    assert scores([near, near]) == scores(torch.stack([near, near])) == first
    assert scores([near, near[1:]]) == scores({"a": near, "b": near[1:]})
    assert scores({"a": near, "b": near[1:]}) != first


def test_missing_references_are_named() -> None:
    method, categories = load("winclip", shots=2).method, categories_of(["a", "b"], 2)
    with pytest.raises(RequestError, match=r"needs 2 normal reference pictures of 'b', got 0"):
        references_of({"a": [1, 2]}, categories, method)
    with pytest.raises(RequestError, match=r"needs 2 normal reference pictures, got 1"):
        references_of([1], categories, method)
    assert references_of([], categories, load("winclip").method) == {}


# ------------------------------------------------------------------- the whole category
def test_a_stretch_is_over_the_images_of_a_class(images: torch.Tensor) -> None:
    loaded = load("aprilgan", shots=1)
    assert loaded.method.transductive
    near = images.flip(0)[:1]
    names = ["a", "b", "a", "b"]
    mixed = loaded.predict_tensor(images, names, references=near)
    apart = {
        name: loaded.predict_tensor(images[start::2], name, references=near)
        for start, name in enumerate("ab")
    }
    for i, (name, found) in enumerate(zip(names, mixed)):
        assert found.image_score == pytest.approx(apart[name][i // 2].image_score, abs=1e-6)
        assert found.info["raw_score"] != found.image_score
    plain = load("aprilgan", shots=1, stretch=False)
    assert not plain.method.transductive
    raw = [p.image_score for p in plain.predict_tensor(images, names, references=near)]
    assert [p.info["raw_score"] for p in mixed] == pytest.approx(raw, abs=1e-6)


def test_several_classes_do_not_meet_in_predict(images: torch.Tensor) -> None:
    loaded, seen = load("musc"), pictures(6)
    names = ["a", "b", "b", "a", "a", "b"]
    mixed = loaded.predict(seen, names)
    for name in "ab":
        rows = [i for i, other in enumerate(names) if other == name]
        alone = loaded.predict([seen[i] for i in rows], name)
        for row, found in zip(rows, alone):
            assert mixed[row].image_score == pytest.approx(found.image_score, abs=1e-5)
            np.testing.assert_allclose(mixed[row].anomaly_map, found.anomaly_map, atol=1e-5)
            assert mixed[row].info["raw_score"] == pytest.approx(found.info["raw_score"], abs=1e-5)


def test_a_single_picture_is_refused_where_scores_are_stretched(images: torch.Tensor) -> None:
    loaded = load("musc")
    words = r"preset 'released' of musc stretches .* at least two of 'b'; give more, or musc\.str"
    with pytest.raises(RequestError, match=words):
        loaded.predict_tensor(images[:3], ["a", "a", "b"])
    with pytest.raises(RequestError, match=words):
        loaded.predict(pictures(3), ["a", "a", "b"])
    with pytest.raises(RequestError, match="no threshold holds for others"):
        loaded.calibrate(pictures(3), "a")

"""MuSc against brute force, and what it must not depend on."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import zsad
from tests.methods.small import hand_info
from zsad import maps, registry
from zsad.errors import RequestError
from zsad.methods.musc.method import CLS, MuSc, aggregate, mutual_scores, rescore
from zsad.types import (
    Category,
    ImageFeatures,
    ScoreContext,
    Scored,
    Tap,
)

INFO = hand_info(image_size=50, depth=8, width=12, embed=6)
GRID = (5, 5)
BOTTLE = Category("toy", "bottle", "bottle")


def make(**overrides: Any) -> MuSc:
    return MuSc(registry.method("musc").resolve(("test", overrides)), INFO)


def random_features(method: MuSc, n: int, seed: int) -> ImageFeatures:
    generator = torch.Generator().manual_seed(seed)
    data = {tap: torch.randn(n, 26, 12, generator=generator) for tap in method.taps}
    data[CLS] = torch.randn(n, 6, generator=generator)
    return ImageFeatures(GRID, data)


def score(method: MuSc, population: ImageFeatures, rows: list[int] | None = None) -> Any:
    batch = population if rows is None else population.select(rows)
    context = ScoreContext([BOTTLE] * batch.batch_size, {}, population=population)
    return method.score(batch, context)


def brute_force(tokens: torch.Tensor, degree: int, nearest: float) -> torch.Tensor:
    """Mutual scores [N, L] of tokens [N, L, D] with loops over images, patches and neighbours."""
    n, length, width = tokens.shape
    side = GRID[0]
    features = torch.zeros(n, length, width)
    for i in range(n):
        whole = (tokens[i] - tokens[i].mean()) / tokens[i].var(unbiased=False).add(1e-5).sqrt()
        for y in range(side):
            for x in range(side):
                total = torch.zeros(width)
                for dy in range(-(degree // 2), degree // 2 + 1):
                    for dx in range(-(degree // 2), degree // 2 + 1):
                        if 0 <= y + dy < side and 0 <= x + dx < side:
                            total += whole[(y + dy) * side + x + dx]
                features[i, y * side + x] = total / total.norm()
    scores = torch.zeros(n, length)
    for i in range(n):
        for p in range(length):
            distances = sorted(
                min(float((features[i, p] - q).norm()) for q in features[j])
                for j in range(n)
                if j != i
            )
            kept = distances[: max(1, int((n - 1) * nearest))]
            scores[i, p] = sum(kept) / len(kept) / 2
    return scores


@pytest.mark.parametrize(("degree", "nearest"), [(1, 0.3), (3, 0.5), (5, 1.0)])
def test_mutual_scores_equal_brute_force(degree: int, nearest: float) -> None:
    tokens = torch.randn(5, 25, 6, generator=torch.Generator().manual_seed(1))
    found = mutual_scores(aggregate(tokens, GRID, degree), nearest)
    torch.testing.assert_close(found, brute_force(tokens, degree, nearest), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("rows", [1, 3, 7])  # images whose likenesses to all are kept at once
def test_the_table_of_similarities_may_be_cut(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    patches = F.normalize(torch.randn(7, 25, 6, generator=torch.Generator().manual_seed(2)), dim=-1)
    whole = mutual_scores(patches, 0.3)
    monkeypatch.setattr("zsad.methods.musc.method.ELEMENTS", 2 * 25 * 25)
    monkeypatch.setattr("zsad.methods.musc.method.KEPT", rows * 7 * 25)
    torch.testing.assert_close(mutual_scores(patches, 0.3), whole)


def test_maps_are_the_mean_over_layers_and_degrees() -> None:
    method = make(degrees=[1, 3])
    population = random_features(method, 4, 0)
    expected = torch.stack(
        [brute_force(population[tap][:, 1:], r, 0.3) for tap in method.taps for r in (1, 3)]
    ).mean(0)
    found = score(method, population).maps[0]
    torch.testing.assert_close(found.flatten(1), expected, atol=1e-4, rtol=1e-4)


def test_equal_images_are_normal_and_one_odd_patch_is_not() -> None:
    method = make(degrees=[1], image_neighbours=[1])
    single = random_features(method, 1, 3)
    data = {tap: value.repeat(6, *[1] * (value.ndim - 1)) for tap, value in single.data.items()}
    data[CLS] = torch.randn(6, 6, generator=torch.Generator().manual_seed(4))
    population = ImageFeatures(GRID, data)
    assert score(method, population).maps[0].abs().max() < 1e-3
    for tap in method.taps:
        data[tap][2, 1 + 7] = -data[tap][2, 1 + 7]
    scores = score(method, ImageFeatures(GRID, data))
    built = maps.build_maps(scores, method.map_spec(), 50).final
    assert int(built.flatten(1).amax(1).argmax()) == 2
    assert int(scores.maps[0][2].flatten().argmax()) == 7
    assert int(scores.image.argmax()) == 2
    assert scores.image[2] > 10 * scores.image[0]


def test_a_defect_that_few_images_share_stays_anomalous_until_most_have_it() -> None:
    """With half of the distances counted, a defect in 2 of 9 images still scores high."""
    method = make(degrees=[1], layers=[4], nearest=0.5)
    single = random_features(method, 1, 3)
    (tap,) = method.taps
    tokens = single[tap].repeat(9, 1, 1)
    odd = -tokens[0, 3].clone()
    peaks = {}
    for shared in (2, 8):
        changed = tokens.clone()
        changed[:shared, 3] = odd
        cls = torch.randn(9, 6, generator=torch.Generator().manual_seed(4))
        found = score(method, ImageFeatures(GRID, {tap: changed, CLS: cls}))
        peaks[shared] = float(found.maps[0][0].flatten()[2])
    assert peaks[2] > 0.2
    assert peaks[8] < 0.02


def test_permuting_the_population_and_cutting_it_into_batches() -> None:
    method = make()
    population = random_features(method, 5, 0)
    whole = score(method, population)
    order = [3, 0, 4, 2, 1]
    mixed = score(make(), population.select(order))
    torch.testing.assert_close(mixed.maps[0], whole.maps[0][order], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(mixed.image, whole.image[order], atol=1e-5, rtol=1e-4)
    for i in range(5):
        one = score(method, population, [i])
        assert torch.equal(one.maps[0][0], whole.maps[0][i])
        assert torch.equal(one.image[0], whole.image[i])


def test_a_new_population_is_scored_anew() -> None:
    method = make()
    first, second = random_features(method, 4, 0), random_features(method, 4, 1)
    before = score(method, first).image
    assert not torch.equal(score(method, second).image, before)
    torch.testing.assert_close(score(method, first).image, before)


def test_rescoring_by_hand() -> None:
    scores = torch.tensor([0.2, 0.8, 0.5])
    cls = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    assert torch.equal(rescore(scores, cls, [1]), scores)
    # cosines: 0-1 0.6, 1-2 0.8, 0-2 0
    two = torch.tensor([(0.2 + 0.6 * 0.8) / 1.6, (0.8 + 0.8 * 0.5) / 1.8, (0.5 + 0.8 * 0.8) / 1.8])
    torch.testing.assert_close(rescore(scores, cls, [2]), two)
    torch.testing.assert_close(rescore(scores, cls, [1, 2]), (scores + two) / 2)
    torch.testing.assert_close(rescore(scores, cls, [3]), rescore(scores, cls, [9]))


def test_a_patch_is_explained_by_its_nearest_like() -> None:
    """Image 0's patch 7 is odd; the only other image that has something like it is named."""
    method = make(degrees=[1], layers=[4], image_neighbours=[1])
    (tap,) = method.taps
    tokens = random_features(method, 1, 3)[tap].repeat(4, 1, 1)
    odd = torch.randn(12, generator=torch.Generator().manual_seed(9))
    tokens[0, 1 + 7] = odd
    tokens[2, 1 + 20] = odd + 0.3 * torch.randn(12, generator=torch.Generator().manual_seed(8))
    cls = torch.randn(4, 6, generator=torch.Generator().manual_seed(4))
    population = ImageFeatures(GRID, {tap: tokens, CLS: cls})
    context = ScoreContext(
        [BOTTLE], {}, population=population, population_uids=["a.png", "b.png", "c.png", "d.png"]
    )
    features = population.select([0])
    scores = method.score(features, context)
    built = maps.build_maps(scores, method.map_spec(), 50)
    (reasons,) = method.explain(Scored(features, context, scores, built, scores.image), k=2)
    assert [(r.rank, r.label) for r in reasons] == [(1, "region"), (2, "region"), (1, "normal")]
    assert reasons[0].text == "least like its nearest neighbour, c.png"
    assert reasons[1].text.startswith("second least like its nearest neighbour, ")
    assert reasons[2].text == (
        "every part of it has a like in other pictures; the least usual one, in c.png"
    )
    assert reasons[0].region == pytest.approx((2 / 5, 1 / 5, 3 / 5, 2 / 5))
    units = [aggregate(tokens[[i], 1:], GRID, 1)[0] for i in (0, 2)]
    assert reasons[0].similarity == pytest.approx(float(units[0][7] @ units[1][20]), abs=1e-5)
    unnamed = ScoreContext([BOTTLE], {}, population=population)
    assert (
        "image 3"
        in method.explain(Scored(features, unnamed, scores, built, scores.image))[0][0].text
    )


@pytest.mark.parametrize(
    ("preset", "dataset", "neighbours"),
    [
        ("default", "visa", [1, 2, 3]),
        ("default", "mvtec", [1, 2, 3]),
        ("released", "visa", [1, 8, 9]),
        ("released", "mvtec", [1, 2, 3]),
        ("visa", "mvtec", [1, 8, 9]),
    ],
)
def test_neighbours_follow_the_dataset_only_under_the_released_preset(
    preset: str, dataset: str, neighbours: list[int]
) -> None:
    method = make(preset=preset)
    population = random_features(method, 12, 3)
    category = Category(dataset, "pcb", "pcb")
    found = method.score(population, ScoreContext([category] * 12, {}, population=population))
    stated = make(preset=preset, image_neighbours=neighbours, neighbours_on={"visa": neighbours})
    again = random_features(stated, 12, 3)
    torch.testing.assert_close(found.image, score(stated, again).image)
    other = make(preset=preset, image_neighbours=[1, 5], neighbours_on={"visa": [1, 5]})
    assert not torch.allclose(found.image, score(other, random_features(other, 12, 3)).image)


def test_predicted_pictures_are_explained_by_each_other(
    small_weights: Callable[..., Path], tmp_path: Path
) -> None:
    paths = []
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 255, (56, 56, 3), dtype=np.uint8)
        paths.append(str(tmp_path / f"{i}.png"))
        Image.fromarray(pixels).save(paths[-1])
    loaded = zsad.load_method(
        "musc", backbone="file", weights=small_weights(39), image_size=56, device="cpu"
    )
    for path, prediction in zip(paths, loaded.predict(paths)):
        others = "|".join(Path(p).name for p in paths if p != path)
        assert prediction.explanations
        for e in prediction.explanations:
            assert re.search(rf"(nearest neighbour|least usual one, in),? ({others})$", e.text)


def test_what_cannot_be_scored_is_refused() -> None:
    method = make()
    population = random_features(method, 3, 0)
    assert method.transductive
    assert registry.method("musc").transductive
    with pytest.raises(RequestError, match="at least two"):
        score(method, population.select([0]))
    other = random_features(method, 1, 8)
    with pytest.raises(RequestError, match="not among the test images"):
        method.score(other, ScoreContext([BOTTLE], {}, population=population))
    assert Tap("tokens", 8) in method.feature_request().taps


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"degrees": [2]}, "degrees"),
        ({"nearest": 0.0}, "nearest"),
        ({"image_neighbours": []}, "image_neighbours"),
        ({"layers": "all"}, "layers"),
    ],
)
def test_bad_config_names_the_key(overrides: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        registry.method("musc").resolve(("test", overrides))

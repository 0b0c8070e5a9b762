"""PatchCore: memory, coreset, map and the weighing of the image score."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.methods.small import hand_info
from zsad import maps, registry
from zsad.components.memory_bank import MemoryBank, bank_of
from zsad.config.method_config import ALL_SHOTS
from zsad.errors import RequestError
from zsad.inference.request import references_of
from zsad.methods.patchcore.method import PatchCore, neighbourhood_mean
from zsad.types import (
    Category,
    ImageFeatures,
    ScoreContext,
    Scored,
    Tap,
)

INFO = hand_info(image_size=60, depth=8, width=12, embed=8)
GRID = (6, 6)
BOTTLE = Category("toy", "bottle", "bottle")
CABLE = Category("toy", "cable", "cable")


def make(**overrides: Any) -> PatchCore:
    return PatchCore(registry.method("patchcore").resolve(("test", overrides)), INFO)


def random_features(method: PatchCore, n: int, seed: int) -> ImageFeatures:
    generator = torch.Generator().manual_seed(seed)
    data = {tap: torch.randn(n, 37, 12, generator=generator) for tap in method.taps}
    return ImageFeatures(GRID, data)


def context(references: ImageFeatures, n: int = 1) -> ScoreContext:
    return ScoreContext([BOTTLE] * n, {}, references={"bottle": references})


EXACT = {"coreset": 1.0, "neighbours": 1, "sigma": 0.0, "neighbourhood": 1}


def test_the_two_middle_stages_are_read() -> None:
    assert make().taps == [Tap("tokens", 4), Tap("tokens", 6)]
    assert make(layers="penultimate").taps == [Tap("tokens", 7)]
    with pytest.raises(RequestError, match=r"blocks 1\.\.8"):
        make(layers=[9])


@pytest.mark.parametrize("neighbours", [1, 9])
def test_an_image_of_the_memory_has_distance_zero(neighbours: int) -> None:
    method = make(coreset=1.0, neighbours=neighbours)
    references = random_features(method, 2, 0)
    scores = method.score(references, context(references, 2))
    assert scores.maps[0].abs().max() < 1e-6
    assert scores.image.abs().max() < 1e-3  # the root of the map's rounding


def test_distances_equal_a_loop() -> None:
    method = make(**EXACT)
    references, query = random_features(method, 2, 0), random_features(method, 3, 1)
    scores = method.score(query, context(references, 3))
    bank = method.patches(references).flatten(0, 1)
    for i, image in enumerate(method.patches(query)):
        for j, patch in enumerate(image):
            nearest = min(float((patch - row).square().sum()) for row in bank) / 4
            assert scores.maps[0][i].flatten()[j].item() == pytest.approx(nearest, abs=1e-5)
    torch.testing.assert_close(scores.image, scores.maps[0].flatten(1).amax(1))


def test_the_image_score_follows_equation_7() -> None:
    method = make(**{**EXACT, "neighbours": 4})
    references, query = random_features(method, 2, 0), random_features(method, 2, 1)
    scores = method.score(query, context(references, 2))
    bank = method.patches(references).flatten(0, 1)
    for i, image in enumerate(method.patches(query)):
        distance = torch.cdist(image, bank)  # [L, N]
        peak = int(distance.min(1).values.argmax())
        star = int(distance[peak].argmin())
        around = torch.cdist(bank[star][None], bank)[0].argsort()[:4]
        weight = 1 - distance[peak, star].exp() / distance[peak, around].exp().sum()
        expected = weight * distance[peak, star] / 2
        assert scores.image[i].item() == pytest.approx(expected.item(), abs=1e-5)


def test_equation_7_can_turn_two_images_round() -> None:
    """Weighing the squared distance, as revision 1 did, ranks them the other way."""
    method = make(**{**EXACT, "neighbours": 4})
    references, query = random_features(method, 2, 0), random_features(method, 60, 1)
    scores = method.score(query, context(references, 60))
    largest = scores.maps[0].flatten(1).amax(1)  # a quarter of the squared distance
    before = scores.image * largest.sqrt()
    pairs = torch.combinations(torch.arange(60))
    turned = (scores.image[pairs[:, 0]] > scores.image[pairs[:, 1]]) != (
        before[pairs[:, 0]] > before[pairs[:, 1]]
    )
    assert turned.any()
    assert (scores.image >= 0).all()
    assert (scores.image <= 1).all()


def test_a_memory_of_one_row_weighs_nothing() -> None:
    method = make(**{**EXACT, "neighbours": 9, "coreset": 1 / 36})
    references, query = random_features(method, 1, 0), random_features(method, 2, 1)
    scores = method.score(query, context(references, 2))
    torch.testing.assert_close(scores.image, scores.maps[0].flatten(1).amax(1).sqrt())


def test_a_planted_patch_lights_up_where_it_is() -> None:
    method = make(**EXACT)
    references = random_features(method, 2, 0)
    data = {tap: value[:1].clone() for tap, value in references.data.items()}
    generator = torch.Generator().manual_seed(9)
    for value in data.values():
        value[0, 1 + 2 * 6 + 4] = torch.randn(12, generator=generator)
    scores = method.score(ImageFeatures(GRID, data), context(references))
    built = maps.build_maps(scores, method.map_spec(), 60)
    y, x = divmod(int(built.final[0].argmax()), 60)
    assert (y // 10, x // 10) == (2, 4)
    (reasons,) = method.explain(
        Scored(ImageFeatures(GRID, data), context(references), scores, built, scores.image)
    )
    assert reasons[0].region == pytest.approx((4 / 6, 2 / 6, 5 / 6, 3 / 6))
    assert reasons[1].similarity == pytest.approx(1.0, abs=1e-5)
    # every other patch is one of reference 1's
    assert reasons[1].text == ("second least like its nearest neighbour, reference picture 1 of 2")
    assert [r.label for r in reasons] == ["region"] * 5 + ["normal"]


def test_permuting_and_cutting_a_batch_over_two_categories() -> None:
    method = make()
    query = random_features(method, 3, 1)
    banks = {"bottle": random_features(method, 1, 2), "cable": random_features(method, 1, 3)}
    categories, order = [BOTTLE, CABLE, BOTTLE], [2, 0, 1]
    whole = method.score(query, ScoreContext(categories, {}, references=banks))
    mixed = method.score(
        query.select(order), ScoreContext([categories[i] for i in order], {}, references=banks)
    )
    torch.testing.assert_close(mixed.maps[0], whole.maps[0][order])
    torch.testing.assert_close(mixed.image, whole.image[order])
    one = method.score(query.select([1]), ScoreContext([CABLE], {}, references=banks))
    torch.testing.assert_close(one.maps[0][0], whole.maps[0][1])
    torch.testing.assert_close(one.image[0], whole.image[1])


def test_more_references_never_raise_a_distance() -> None:
    method = make(**EXACT)
    many, query = random_features(method, 4, 0), random_features(method, 2, 1)
    few = method.score(query, context(many.select([0, 1]), 2)).maps[0]
    more = method.score(query, context(many, 2)).maps[0]
    assert (more <= few + 1e-6).all()


def test_a_memory_belongs_to_its_references() -> None:
    method = make()
    first, second = random_features(method, 1, 0), random_features(method, 1, 1)
    kept = method.memory("bottle", context(first))
    assert method.memory("bottle", context(first)) is kept
    assert method.memory("bottle", context(second)) is not kept
    with pytest.raises(RequestError, match="normal reference images of 'bottle'"):
        method.memory("bottle", ScoreContext([BOTTLE], {}))


def test_the_preset_penultimate_reads_the_bank_of_others() -> None:
    method = make(preset="penultimate")
    references = random_features(method, 2, 0)
    bank = bank_of(references, method.taps[0], patches=True)  # as ALFA and WinCLIP ask for it
    assert method.memory("bottle", context(references)) is bank
    other = make(preset="penultimate", neighbourhood=3)
    assert other.memory("bottle", context(references)) is not bank


def test_coreset_of_full_size_keeps_all_and_a_small_one_covers_the_clusters() -> None:
    method = make(coreset=1.0)
    references = random_features(method, 2, 0)
    bank = method.memory("bottle", context(references))
    assert torch.equal(bank.features, MemoryBank(method.patches(references)).features)
    assert len(make(coreset=0.25).memory("bottle", context(references))) == 18
    # 36 patches in four directions: four rows must hold one of each
    method = make(**{**EXACT, "coreset": 4 / 36})
    generator = torch.Generator().manual_seed(5)
    centres = torch.eye(12)[:4]
    label = torch.arange(36) % 4
    tokens = centres[label] + 0.01 * torch.randn(36, 12, generator=generator)
    tokens = torch.cat([torch.zeros(1, 12), tokens])[None]
    clusters = ImageFeatures(GRID, dict.fromkeys(method.taps, tokens))
    rows = method.memory("bottle", context(clusters)).features
    assert set((rows[:, :12] @ centres.T).argmax(1).tolist()) == {0, 1, 2, 3}


def test_neighbourhood_mean_by_hand() -> None:
    tokens = torch.zeros(1, 36, 2)
    tokens[0, 0, 0] = 1.0
    mean = neighbourhood_mean(tokens, GRID, 3).reshape(6, 6, 2)
    assert mean[0, 0, 0].item() == pytest.approx(1 / 4)  # a corner has four patches
    assert mean[0, 1, 0].item() == pytest.approx(1 / 6)
    assert mean[1, 1, 0].item() == pytest.approx(1 / 9)
    assert mean[2:].abs().sum() == 0
    constant = torch.ones(1, 36, 3)
    torch.testing.assert_close(neighbourhood_mean(constant, GRID, 5), constant)


def test_scores_do_not_depend_on_the_scale_of_tokens() -> None:
    method = make()
    references, query = random_features(method, 1, 0), random_features(method, 1, 1)
    doubled = ImageFeatures(GRID, {tap: 7 * value for tap, value in query.data.items()})
    plain = method.score(query, context(references)).maps[0]
    torch.testing.assert_close(method.score(doubled, context(references)).maps[0], plain)
    assert F.relu(-plain).sum() == 0


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"shots": 0}, "no zero-shot mode"),
        ({"coreset": 0.0}, "coreset"),
        ({"neighbourhood": 2}, "neighbourhood"),
        ({"neighbours": 0}, "neighbours"),
        ({"layers": "last"}, "layers"),
    ],
)
def test_bad_config_is_one_line_that_names_the_key(overrides: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words) as caught:
        registry.method("patchcore").resolve(("test", overrides))
    assert "\n" not in str(caught.value)


def test_all_shots_are_a_word() -> None:
    """Every normal training image; the seed chooses none, and other methods take a number."""
    config = registry.method("patchcore").resolve(("test", {"shots": "all"}))
    assert config.shots == ALL_SHOTS
    assert registry.method("patchcore").resolve(("test", {"preset": "full-shot"})) == replace(
        config, preset="full-shot", coreset=0.01
    )
    with pytest.raises(RequestError, match=r"patchcore\.shots=-1: must be a number from 0 up, or"):
        registry.method("patchcore").resolve(("test", {"shots": -1}))
    with pytest.raises(RequestError, match=r"winclip\.shots=all: winclip takes a number"):
        registry.method("winclip").resolve(("test", {"shots": "all"}))


def test_all_the_given_pictures_are_the_memory_of_a_prediction() -> None:
    method = make(shots="all")
    pictures = [torch.zeros(3, 8, 8)] * 3
    assert len(references_of(pictures, [BOTTLE], method)["bottle"]) == 3
    with pytest.raises(RequestError, match="needs 1 normal reference picture, got 0"):
        references_of([], [BOTTLE], method)

"""ALFA as a whole, on features made by hand."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.methods.small import hand_info
from zsad import maps, registry
from zsad.components.prompt_ensemble import EnsembleFeatures
from zsad.components.windows import coverage, window_grid, window_patches, window_region
from zsad.errors import RequestError
from zsad.methods.alfa.config import OWN_READINGS
from zsad.methods.alfa.method import CLS, Alfa, PromptFeatures
from zsad.methods.alfa.prompts import PromptSet
from zsad.methods.winclip.method import WinClip
from zsad.scoring import Means
from zsad.types import (
    Category,
    ImageFeatures,
    ScoreContext,
    Scored,
    Tap,
)

D, E, GRID = 10, 8, (6, 6)
INFO = hand_info(image_size=60, depth=4, width=D, embed=E)
BOTTLE = Category("toy", "bottle", "bottle")
OFF = {"context": {"enabled": False}, "aligner": {"enabled": False}}


def method(**overrides: Any) -> Alfa:
    return Alfa(registry.method("alfa").resolve(("test", overrides)), INFO)


def units(*shape: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def prompts_of(embeddings: Tensor, n_normal: int, descriptors: int = 0) -> PromptFeatures:
    n = len(embeddings) - descriptors
    texts = [f"{'normal' if i < n_normal else 'abnormal'} {i}" for i in range(n)]
    sets = {"normal": texts[:n_normal], "abnormal": texts[n_normal:]}
    names = [f"descriptor {i}" for i in range(descriptors)]
    return PromptFeatures(
        "bottle",
        PromptSet(sets, descriptors=names),
        texts,
        embeddings[:n],
        (torch.arange(n) >= n_normal).long(),
        torch.ones(n, dtype=torch.bool),
        embeddings[n:],
    )


TEXT = prompts_of(units(9, E, seed=0), 4)


def random_features(alfa: Alfa, n: int, seed: int) -> ImageFeatures:
    """Random values for everything that ALFA with ``shots`` may read."""
    data: dict[Tap, Tensor] = {CLS: units(n, E, seed=seed)}
    data[alfa.local.values] = units(n, 37, E, seed=seed + 1)
    data[alfa.memory_tap] = units(n, 37, D, seed=seed + 2)
    for k in alfa.config.scales:
        rows, cols = window_grid(GRID, k)
        data[alfa.local.window_tap(k)] = units(n, rows * cols, E, seed=seed + 10 * k)
        shape = (n, rows * cols, 1 + k * k, E)
        data[alfa.local.values_tap(k)] = units(*shape, seed=seed + 10 * k + 1)
    return ImageFeatures(GRID, data)


def with_global_values(alfa: Alfa, features: ImageFeatures) -> ImageFeatures:
    """The same features with every window's values equal to the global ones."""
    data = dict(features.data)
    for k in alfa.config.scales:
        index = F.pad(window_patches(GRID, k) + 1, (1, 0))
        data[alfa.local.values_tap(k)] = features[alfa.local.values][:, index]
    return ImageFeatures(GRID, data)


def context(n: int = 1, text: PromptFeatures = TEXT, **references: ImageFeatures) -> ScoreContext:
    return ScoreContext([BOTTLE] * n, {"bottle": text}, references=references)


# ------------------------------------------------------------------- identities with winclip
@pytest.mark.parametrize("image_scale", [False, True])
@pytest.mark.parametrize("solver", ["off", "ridge", "procrustes"])
def test_an_identity_projection_gives_winclips_maps(solver: str, image_scale: bool) -> None:
    aligner = {"enabled": False} if solver == "off" else {"solver": solver}
    alfa = method(context={"enabled": False}, aligner=aligner, include_image_scale=image_scale)
    config = registry.method("winclip").resolve(("test", {"include_image_scale": image_scale}))
    winclip = WinClip(config, INFO)
    features = with_global_values(alfa, random_features(alfa, 3, seed=1))
    n, rows = 4, TEXT.embeddings
    pair = F.normalize(torch.stack([rows[:n].mean(0), rows[n:].mean(0)]), dim=-1)
    states = EnsembleFeatures(pair, TEXT.texts, rows, n)
    expected = winclip.score(features, ScoreContext([BOTTLE] * 3, {"bottle": states}))
    found = alfa.score(features, context(3))
    torch.testing.assert_close(found.maps[0], expected.maps[0], rtol=2e-5, atol=1e-6)
    if solver != "off":  # and the aligner does something otherwise
        moved = alfa.score(random_features(alfa, 3, seed=1), context(3)).maps[0]
        assert (moved - expected.maps[0]).abs().max() > 0.01


# ----------------------------------------------------------------------------- Eq. 10-12
def test_scores_by_hand() -> None:
    """One normal and one abnormal prompt; one abnormal window per scale."""
    alfa = method(temperature=0.5, **OFF)
    normal, abnormal = torch.eye(E)[0], torch.eye(E)[1]
    text = prompts_of(torch.stack([normal, abnormal]), 1)
    features = random_features(alfa, 1, seed=0)
    features.data[CLS] = (3 * normal + 4 * abnormal)[None]
    for k in (2, 3):
        window = normal.repeat(1, (7 - k) ** 2, 1)
        window[0, 0] = abnormal
        features.data[Tap("window", k)] = window
    scores = alfa.score(features, context(1, text))
    low, high = (1 / (1 + math.exp(s * 2)) for s in (1, -1))
    s_global = 1 / (1 + math.exp(-0.2 / 0.5))
    assert scores.maps[0][0, 0, 0].item() == pytest.approx(high)  # the corner: one window each
    assert scores.maps[0][0, 5, 5].item() == pytest.approx(low)
    two = 2 / (1 / high + 1 / low)
    assert scores.maps[0][0, 0, 1].item() == pytest.approx(two)
    assert scores.image.item() == pytest.approx((s_global + high) / 2)


def test_table_6_switches() -> None:
    features = random_features(method(), 3, seed=2)
    both = method().score(features, context(3))
    only_global = method(score={"use_local": False}).score(features, context(3))
    only_local = method(score={"use_global": False}).score(features, context(3))
    torch.testing.assert_close(both.image, (only_global.image + only_local.image) / 2)
    torch.testing.assert_close(only_local.image, both.maps[0].amax((1, 2)))


def test_sum_of_prompts_equals_the_mean_for_one_prompt_per_label() -> None:
    text = prompts_of(units(2, E, seed=5), 1)
    features = random_features(method(), 2, seed=3)
    for aligner in (True, False):
        one, two = (
            method(label_embedding=how, aligner={"enabled": aligner}).score(
                features, context(2, text)
            )
            for how in ("mean", "sum_prompts")
        )
        torch.testing.assert_close(one.image, two.image)
        torch.testing.assert_close(one.maps[0], two.maps[0])


def test_sum_of_prompts_by_hand() -> None:
    alfa = method(label_embedding="sum_prompts", temperature=0.5, score={"use_local": False}, **OFF)
    features = random_features(alfa, 1, seed=4)
    cosine = (TEXT.embeddings @ features[CLS][0]).tolist()
    exponentials = [math.exp(c / 0.5) for c in cosine]
    expected = sum(exponentials[4:]) / sum(exponentials)
    assert alfa.score(features, context()).image.item() == pytest.approx(expected)


def test_dropped_prompts_do_not_count() -> None:
    """Two layouts that differ only in ambiguous prompts score alike with the filter on."""
    f = torch.eye(E)[0]

    def at(cosine: float, axis: int) -> Tensor:
        return cosine * f + math.sqrt(1 - cosine**2) * torch.eye(E)[axis]

    kept = [at(0.1, 1), at(0.3, 2), at(0.2, 3), at(0.5, 4)]  # normal, normal, abnormal, abnormal
    plain = prompts_of(torch.stack(kept), 2)
    ambiguous = prompts_of(torch.stack([*kept[:2], at(0.25, 5), at(0.22, 6), *kept[2:]]), 3)
    alfa = method(aligner={"enabled": False})
    features = random_features(alfa, 1, seed=6)
    features.data[CLS] = f[None]
    a = alfa.score(features, context(1, plain))
    b = alfa.score(features, context(1, ambiguous))
    torch.testing.assert_close(a.image, b.image)
    off = method(**OFF)
    assert not torch.allclose(
        off.score(features, context(1, plain)).image,
        off.score(features, context(1, ambiguous)).image,
        atol=1e-3,
    )


# -------------------------------------------------------------------------------- the map
@pytest.mark.parametrize("planted", [0, 12, 24])
def test_a_planted_window_lights_up_where_it_is(planted: int) -> None:
    alfa = method(scales=[2], context={"enabled": False})
    normal, abnormal = torch.eye(E)[0], torch.eye(E)[1]
    text = prompts_of(torch.stack([normal, abnormal]), 1)
    features = with_global_values(alfa, random_features(alfa, 1, seed=7))
    covered = coverage(GRID, 2)[:, planted]
    touching = coverage(GRID, 2)[covered].any(0)
    windows = normal.repeat(1, 25, 1)
    windows[0, touching] = abnormal
    features.data[Tap("window", 2)] = windows
    features.data[CLS] = normal[None]
    scores = alfa.score(features, context(1, text))
    assert torch.equal(scores.maps[0][0].flatten() > 0.5, covered)
    built = maps.build_maps(scores, alfa.map_spec(), 60).final[0]
    row, col = divmod(int(built.argmax()), 60)
    left, top, right, bottom = window_region(planted, GRID, 2)
    assert left <= (col + 0.5) / 60 <= right
    assert top <= (row + 0.5) / 60 <= bottom
    (reasons,) = alfa.explain(
        Scored(
            features,
            context(1, text),
            scores,
            maps.build_maps(scores, alfa.map_spec(), 60),
            scores.image,
        )
    )
    worst = next(r for r in reasons if r.label == "anomalous")
    assert worst.region in [
        window_region(m, GRID, 2) for m in touching.nonzero().flatten().tolist()
    ]


def test_harmonic_of_normality_pulls_the_other_way() -> None:
    features = random_features(method(), 2, seed=8)
    one, mean, other = (
        method(**keys).score(features, context(2)).maps[0]
        for keys in ({}, {"fusion": "mean"}, {"harmonic_of": "normality"})
    )
    assert (one <= mean + 1e-6).all()
    assert (mean <= other + 1e-6).all()


def test_chunks_of_windows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    features = random_features(method(), 2, seed=9)
    for how in ("mean", "sum_prompts"):
        whole = method(label_embedding=how).score(features, context(2)).maps[0]
        monkeypatch.setattr("zsad.methods.alfa.local.CHUNK", 1000)
        torch.testing.assert_close(
            method(label_embedding=how).score(features, context(2)).maps[0], whole
        )
        monkeypatch.undo()


def test_batch_of_two_categories_equals_single_images() -> None:
    alfa = method(shots=1)
    cable = Category("toy", "cable", "cable")
    features = random_features(alfa, 4, seed=11)
    memory = {key: random_features(alfa, 1, seed=s) for key, s in (("bottle", 12), ("cable", 13))}
    text = {"bottle": TEXT, "cable": prompts_of(units(7, E, seed=14), 3)}
    order = [BOTTLE, cable, cable, BOTTLE]
    batch = alfa.score(features, ScoreContext(order, text, references=memory))
    for i, category in enumerate(order):
        one = alfa.score(features.select([i]), ScoreContext([category], text, references=memory))
        torch.testing.assert_close(one.image[0], batch.image[i])
        torch.testing.assert_close(one.maps[0][0], batch.maps[0][i])


# ------------------------------------------------------------------------------- few-shot
def test_a_query_in_the_memory_has_distance_zero() -> None:
    alfa = method(shots=2)
    memory = random_features(alfa, 2, seed=20)
    zero_shot = method().score(memory, context(2)).maps[0]
    few_shot = alfa.score(memory, context(2, bottle=memory)).maps[0]
    torch.testing.assert_close(few_shot, zero_shot / 2, rtol=0, atol=1e-5)
    stranger = random_features(alfa, 1, seed=50)
    far = alfa.score(stranger, context(1, bottle=memory)).maps[0]
    near = method().score(stranger, context(1)).maps[0]
    assert (far - near / 2).min() > 0.01


def test_the_global_score_does_not_depend_on_shots() -> None:
    features = random_features(method(), 2, seed=21)
    memory = random_features(method(), 2, seed=22)
    keys = {"score": {"use_local": False}}
    zero = method(**keys).score(features, context(2)).image
    few = method(shots=2, **keys).score(features, context(2, bottle=memory)).image
    torch.testing.assert_close(zero, few)


# -------------------------------------------------------------------------------- one class
def test_normal_prompts_only_measure_the_distance_to_normality() -> None:
    alfa = method(prompts={"labels": "normal_only"}, **OFF)
    assert alfa.feature_request().taps == {CLS}
    normal = F.normalize(TEXT.embeddings[:4].mean(0), dim=-1)
    scores = alfa.score(ImageFeatures(GRID, {CLS: torch.stack([normal, -normal])}), context(2))
    torch.testing.assert_close(scores.image, torch.tensor([0.0, 1.0]), rtol=0, atol=1e-6)
    assert scores.maps[0].flatten(1).std(1).max() == 0


# ----------------------------------------------------------------------------- explaining
def test_a_descriptions_own_embedding_ranks_first() -> None:
    text = prompts_of(units(12, E, seed=30), 4, descriptors=2)
    alfa = method(context={"enabled": False})
    for row, name in ((6, "abnormal 6"), (10, "descriptor 0")):
        features = random_features(alfa, 1, seed=31)
        features.data[CLS] = torch.cat([text.embeddings, text.descriptors])[row][None]
        scores = alfa.score(features, context(1, text))
        built = maps.build_maps(scores, alfa.map_spec(), 60)
        (reasons,) = alfa.explain(Scored(features, context(1, text), scores, built, scores.image))
        assert [r.label for r in reasons].count("anomalous") == 5
        assert [r.label for r in reasons].count("normal") == 4  # all that there are
        assert (reasons[0].text, reasons[0].rank) == (name, 1)
        assert reasons[0].similarity == pytest.approx(1.0, abs=1e-5)


def test_dropped_prompts_explain_nothing() -> None:
    alfa = method()
    features = random_features(alfa, 1, seed=32)
    scores = alfa.score(features, context())
    built = maps.build_maps(scores, alfa.map_spec(), 60)
    (reasons,) = alfa.explain(Scored(features, context(), scores, built, scores.image), k=9)
    kept = scores.parts["weight"][0] > 0
    for label, names in (
        ("anomalous", {f"abnormal {i}" for i in range(4, 9) if kept[i]}),
        ("normal", {f"normal {i}" for i in range(4) if kept[i]}),
    ):
        assert {r.text for r in reasons if r.label == label} == names


def test_views_show_the_prompts_that_counted() -> None:
    alfa = method()
    features = random_features(alfa, 2, seed=32)
    scores = alfa.score(features, context(2))
    built = maps.build_maps(scores, alfa.map_spec(), 60)
    views = alfa.prompt_views(Scored(features, context(2), scores, built, scores.image))
    for view, weight, image in zip(views, scores.parts["weight"], features[CLS]):
        assert list(view.names) == TEXT.texts
        assert torch.equal(view.kept, weight > 0)
        assert view.abnormal.tolist() == TEXT.labels.bool().tolist()
        torch.testing.assert_close(view.image, F.normalize(image, dim=-1))
        assert view.maps is None
    assert not views[0].kept.all()


# ------------------------------------------------------------------------------- figures
def test_run_info_counts_by_hand() -> None:
    f = torch.eye(E)[0]

    def at(cosine: float) -> Tensor:
        return cosine * f + math.sqrt(1 - cosine**2) * torch.eye(E)[1]

    # Cosines of the first image: normal 0.1, 0.3, 0.4; abnormal 0.35, 0.5: 0.4 and 0.35 overlap.
    text = prompts_of(torch.stack([at(c) for c in (0.1, 0.3, 0.4, 0.35, 0.5)]), 3)
    alfa = method(aligner={"enabled": False})
    assert set(alfa.run_info()) == {"own_readings"}
    features = random_features(alfa, 2, seed=33)
    # The second image has one cosine with all prompts' own axis: all are equal, nothing is left.
    features.data[CLS] = torch.stack([f, torch.eye(E)[2]])
    means = Means()
    for rows in ([0], [1]):  # the figures are those of the category, not of the last batch
        part, ctx = features.select(rows), context(1, text)
        scores = alfa.score(part, ctx)
        built = maps.build_maps(scores, alfa.map_spec(), 60)
        means.add(Scored(part, ctx, scores, built, scores.image))
    info = alfa.run_info(text, means.figures())
    assert info["context"] == {
        "images": 2,
        "nested_share": 0.5,
        "kept_normal": 2.5,
        "kept_abnormal": 1.5,
    }
    assert (info["prompts"]["normal"], info["prompts"]["abnormal"]) == (3, 2)
    assert set(info["own_readings"]) == set(OWN_READINGS)
    json.dumps(info)


# --------------------------------------------------------------------------------- config
def test_a_scale_larger_than_the_grid_is_a_request_error() -> None:
    with pytest.raises(RequestError, match="window of 7x7 patches does not fit the 6x6"):
        method(scales=[2, 7]).feature_request()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"window_input": "zero_pixels"}, "aligner.enabled=false"),
        ({"context": {"reading": "literal", "weighting": "tanh"}}, "context.weighting=tanh"),
        ({"context": {"quantile": 0.7}}, "context.quantile"),
        ({"aligner": {"anchor": 1.5}}, "aligner.anchor"),
        ({"aligner": {"solver": "procrustes", "anchor": 0.5}}, "aligner.anchor"),
        ({"aligner": {"solver": "procrustes", "ridge": 0}}, "aligner.ridge"),
        ({"aligner": {"space": "width", "value_path": "full_block"}}, "aligner.space=width"),
        ({"template": {"grid": [7, 4, 3]}}, "template.grid"),
        ({"score": {"use_global": False, "use_local": False}}, "no image score"),
        ({"prompts": {"labels": "normal_only"}, "shots": 1}, "normal_only"),
        ({"scales": []}, "scales"),
        ({"context": {"readin": "literal"}}, "did you mean 'reading'"),
    ],
)
def test_bad_config_is_one_line_that_names_the_key(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        registry.method("alfa").resolve(("test", overrides))
    assert "\n" not in str(caught.value)

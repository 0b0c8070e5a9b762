"""MVFA: the adapted stream against plain CLIP, gradients, official files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.methods.small import BOTTLE, NUT, context, encode
from zsad import maps, registry
from zsad.backbones import Backbone
from zsad.errors import RequestError, WeightsError
from zsad.methods.mvfa.method import MVFA
from zsad.types import (
    ImageFeatures,
    ScoreContext,
    Scored,
    Tap,
    TrainBatch,
)

SIZE = 84


@pytest.fixture(scope="module")
def backbone(small_backbone: Callable[..., Backbone]) -> Backbone:
    return small_backbone(36)


def make(backbone: Backbone, **overrides: Any) -> MVFA:
    config = registry.method("mvfa").resolve(("test", overrides))
    torch.manual_seed(0)
    return MVFA(config, backbone.info)


def test_without_mixing_it_is_plain_clip(backbone: Backbone, recipe: ModuleType) -> None:
    method = make(backbone, mix=0.0)
    every = [Tap("tokens", layer) for layer in method.layers]
    found = encode(method, backbone, recipe.images(2, SIZE, 5), *every)
    with torch.no_grad():
        stream = method.adapted(found, context(method, backbone, BOTTLE, NUT))
        for i, tap in enumerate(every):  # every adapter reads the untouched stream
            expected = method.seg_adapters[i].fc1(found.patches(tap))
            torch.testing.assert_close(stream.seg[i], expected, atol=1e-4, rtol=1e-4)


def test_the_mixed_stream_by_hand(backbone: Backbone, recipe: ModuleType) -> None:
    """open_clip's own blocks with the adapters in between."""
    method = make(backbone, mix=0.1)
    found = encode(method, backbone, recipe.images(2, SIZE, 5))
    assert method.feature_request().taps == {Tap("tokens", backbone.info.stages[0])}
    blocks = backbone.model.visual.transformer.resblocks
    expected: dict[str, list[torch.Tensor]] = {"seg": [], "det": []}
    with torch.no_grad():
        x = found[method.entry]
        for layer in range(method.layers[0], backbone.info.depth + 1):
            if layer > method.layers[0]:
                x = blocks[layer - 1](x)
            if layer in method.layers:
                i = method.layers.index(layer)
                seg, det = method.seg_adapters[i], method.det_adapters[i]
                expected["seg"].append(seg.fc1(x)[:, 1:])
                expected["det"].append(det.fc1(x)[:, 1:])
                x = 0.8 * x + 0.1 * seg.fc2(seg.fc1(x)) + 0.1 * det.fc2(det.fc1(x))
        stream = method.adapted(found, context(method, backbone, BOTTLE, NUT))
    assert len(stream.seg) == len(stream.det) == len(method.layers) == 4
    torch.testing.assert_close(stream.seg, expected["seg"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(stream.det, expected["det"], atol=1e-4, rtol=1e-4)


def test_scores_by_hand(backbone: Backbone, recipe: ModuleType) -> None:
    method = make(backbone)
    found = encode(method, backbone, recipe.images(2, SIZE, 5))
    ctx = context(method, backbone, BOTTLE, NUT)
    with torch.no_grad():
        scores, stream = method.score(found, ctx), method.adapted(found, ctx)
        for i, category in enumerate(ctx.categories):
            pair = ctx.text[category.key].pair
            means = [
                (100 * F.normalize(p[i], dim=-1) @ pair.T).softmax(-1)[:, 1].mean()
                for p in stream.det
            ]
            torch.testing.assert_close(
                scores.image[i], torch.stack(means).mean(), atol=1e-4, rtol=1e-3
            )
            logits = 100 * F.normalize(stream.seg[2][i], dim=-1) @ pair.T
            torch.testing.assert_close(scores.maps[2][i].flatten(1).T, logits, atol=1e-3, rtol=1e-3)
        final = maps.build_maps(scores, method.map_spec(), SIZE).final
    assert 0 <= final.min() <= final.max() <= 1


def test_scoring_makes_no_further_pass_over_images(backbone: Backbone, recipe: ModuleType) -> None:
    method = make(backbone)
    found = encode(method, backbone, recipe.images(2, SIZE, 5))
    ctx = context(method, backbone, BOTTLE, NUT)
    before = backbone.counters.image_forwards
    with torch.no_grad():
        method.score(found, ctx)
    assert backbone.counters.image_forwards == before


def test_permuting_and_cutting_a_batch(backbone: Backbone, recipe: ModuleType) -> None:
    method = make(backbone)
    found = encode(method, backbone, recipe.images(3, SIZE, 5))
    categories, order = [BOTTLE, NUT, BOTTLE], [2, 0, 1]
    with torch.no_grad():
        whole = method.score(found, context(method, backbone, *categories))
        mixed = method.score(
            found.select(order), context(method, backbone, *(categories[i] for i in order))
        )
        one = method.score(found.select([1]), context(method, backbone, NUT))
    torch.testing.assert_close(mixed.image, whole.image[order], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(mixed.maps[3], whole.maps[3][order], atol=1e-2, rtol=1e-3)
    torch.testing.assert_close(one.image[0], whole.image[1], atol=1e-4, rtol=1e-4)


def planted(method: MVFA, backbone: Backbone, at: int) -> tuple[ImageFeatures, ScoreContext]:
    """Tokens whose bottleneck is the normal text everywhere but at one patch."""
    ctx = context(method, backbone, BOTTLE)
    normal, anomalous = ctx.text["bottle"].pair
    width, embed = backbone.info.width, backbone.info.embed
    with torch.no_grad():
        for adapter in [*method.seg_adapters, *method.det_adapters]:
            adapter.fc1[0].weight.copy_(torch.eye(embed, width))
    side = backbone.info.grid(SIZE)
    tokens = torch.zeros(1, 1 + side[0] * side[1], width)
    # the leaky ReLU keeps positive values only: shift both labels by the same positive amount
    shift = torch.minimum(normal, anomalous).min().abs() + 0.01
    tokens[..., :embed] = normal + shift
    tokens[0, 1 + at, :embed] = anomalous + shift
    return ImageFeatures(side, {method.entry: tokens}), ctx


def test_a_planted_patch_lights_up_where_it_is(backbone: Backbone) -> None:
    method = make(backbone, layers=[2])
    height, width = backbone.info.grid(SIZE)
    found, ctx = planted(method, backbone, 2 * width + 3)
    with torch.no_grad():
        scores = method.score(found, ctx)
        final = maps.build_maps(scores, method.map_spec(), SIZE).final[0]
    y, x = divmod(int(final.argmax()), SIZE)
    step = (SIZE - 1) / (height - 1)
    assert abs(y - 2 * step) <= 1
    assert abs(x - 3 * step) <= 1


def test_the_explanation_speaks_of_the_most_anomalous_patches(backbone: Backbone) -> None:
    """The planted patch holds one anomalous state; that state leads, where it was planted."""
    method = make(backbone, layers=[2])
    width = backbone.info.grid(SIZE)[1]
    found, ctx = planted(method, backbone, 2 * width + 3)
    text = ctx.text["bottle"]
    state = text.n_normal + 2
    shift = found[method.entry][0, 1 + 2 * width + 3, : backbone.info.embed] - text.pair[1]
    found[method.entry][0, 1 + 2 * width + 3, : backbone.info.embed] = (
        10 * (text.embeddings[state] - text.embeddings[: text.n_normal].mean(0)).clamp_min(0)
        + shift
    )
    with torch.no_grad():
        scores = method.score(found, ctx)
        built = maps.build_maps(scores, method.map_spec(), SIZE)
        (reasons,) = method.explain(Scored(found, ctx, scores, built, scores.image), k=12)
        unit = F.normalize(method.adapted(found, ctx).seg[0][0, 2 * width + 3], dim=-1)
    cosines = dict(zip(text.phrases, (text.embeddings @ unit).tolist()))
    assert [r.text for r in reasons] == sorted(cosines, key=lambda p: -cosines[p])
    assert all(r.similarity == pytest.approx(cosines[r.text], abs=1e-5) for r in reasons)
    assert {r.label for r in reasons} == {"normal", "anomalous"}
    height = backbone.info.grid(SIZE)[0]
    assert reasons[0].region == pytest.approx((3 / width, 2 / height, 4 / width, 3 / height))


@pytest.mark.parametrize("image", ["bce", "released"])
def test_training_lowers_the_loss_through_the_encoder(
    backbone: Backbone, recipe: ModuleType, image: str
) -> None:
    method = make(backbone, loss={"image": image})
    method.begin_training([BOTTLE], {}, backbone.text_encoder())
    found = encode(method, backbone, recipe.images(4, SIZE, 5))
    batch = TrainBatch(recipe.masks([1, 0, 1, 0], SIZE, 5), torch.tensor([1, 0, 1, 0]))
    ctx = replace(context(method, backbone, BOTTLE, NUT, BOTTLE, NUT), text={})
    (phase,) = method.phases()
    optimizer = phase.optimizer(method.parameters_of_phase(phase))
    values = []
    for step in range(8):
        losses = method.losses(found, batch, ctx)
        torch.testing.assert_close(
            losses["total"], losses["focal"] + losses["dice"] + losses["image"]
        )
        optimizer.zero_grad()
        losses["total"].backward()
        if step == 0:  # what the first stage mixes in is read by later stages only
            first = method.seg_adapters[0].fc2[0].weight.grad
            assert first is not None
            assert first.abs().sum() > 0
        optimizer.step()
        values.append(losses["total"].item())
    assert values[-1] < 0.9 * values[0]
    assert all(p.grad is None for p in backbone.model.parameters())


def test_an_official_file_is_taken_whole(backbone: Backbone) -> None:
    donor, method = make(backbone), make(backbone)
    for parameter in donor.parameters():
        torch.nn.init.normal_(parameter)
    state: dict[str, Any] = {
        "seg_adapters": dict(donor.seg_adapters.state_dict()),
        "det_adapters": dict(donor.det_adapters.state_dict()),
    }
    imported = MVFA.import_official(state, method.config, backbone.info)
    method.load_state_dict(imported.state)
    for a, b in zip(method.parameters(), donor.parameters()):
        assert torch.equal(a, b)
    state["det_adapters"].pop("1.fc2.0.weight")
    with pytest.raises(WeightsError, match=r"missing: det_adapters\.1\.fc2\.0\.weight"):
        MVFA.import_official(state, method.config, backbone.info)
    state["det_adapters"]["1.fc2.0.weight"] = torch.zeros(2, 2)
    with pytest.raises(WeightsError, match=r"is \(2, 2\)"):
        MVFA.import_official(state, method.config, backbone.info)
    with pytest.raises(WeightsError, match="seg_adapters"):
        MVFA.import_official({}, method.config, backbone.info)


def test_vit_l_has_the_parameters_of_the_released_adapters(backbone: Backbone) -> None:
    info = replace(backbone.info, width=1024, embed=768)
    method = MVFA(registry.method("mvfa").resolve(), info)
    assert sum(p.numel() for p in method.parameters()) == 12_582_912


@pytest.mark.parametrize(
    ("overrides", "words"),
    [({"mix": 0.6}, "mix"), ({"scale": 0}, "scale"), ({"train": {"batch_size": 0}}, "batch_size")],
)
def test_bad_config_names_the_key(overrides: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        registry.method("mvfa").resolve(("test", overrides))


def test_a_block_that_does_not_exist_is_refused(backbone: Backbone) -> None:
    with pytest.raises(RequestError, match=r"blocks 1\.\.8"):
        make(backbone, layers=[2, 9])

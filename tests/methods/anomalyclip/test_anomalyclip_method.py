"""AnomalyCLIP's parts do what its paper says, whatever their weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from zsad import maps, registry
from zsad.backbones import Backbone
from zsad.errors import RequestError
from zsad.method import new_method
from zsad.types import BackboneInfo, Category, ImageFeatures, ScoreContext, TrainBatch

OBJECT = Category("d", "object", "object")


def make(info: BackboneInfo, **overrides: Any) -> Any:
    entry = registry.method("anomalyclip")
    return new_method(entry, entry.resolve(("test", overrides)), info, 0)


def context(method: Any, backbone: Backbone, count: int) -> ScoreContext:
    text = backbone.text_encoder()
    return ScoreContext([OBJECT] * count, method.prepare_text([OBJECT], text), text_encoder=text)


def test_used_parameters(backbone: Backbone) -> None:
    info = replace(backbone.info, embed=768, text_width=768, depth=24, stages=(6, 12, 18, 24))
    method = make(info)
    assert sum(p.numel() for p in method.parameters()) == 43_008
    assert [tuple(t) for t in method.patch_taps] == [("vv_proj", 24, 6)]
    four = make(info, layers="all")
    assert [t.layer for t in four.patch_taps] == [6, 12, 18, 24]


def test_layers_outside_of_the_path_are_refused(backbone: Backbone) -> None:
    with pytest.raises(RequestError, match=r"anomalyclip\.layers=\[1, 6\].*layers 2\.\.6"):
        make(backbone.info, layers=[1, 6])


def test_a_planted_abnormal_patch_lights_up_and_swapped_labels_invert(backbone: Backbone) -> None:
    method = make(backbone.info, post={"sigma": 0})
    scene = context(method, backbone, 1)
    normal, abnormal = scene.text["object"]
    tokens = normal.expand(1, 37, -1).clone()
    tokens[0, 1 + 22] = abnormal
    features = ImageFeatures(
        (6, 6), {method.patch_taps[0]: tokens, method.image_tap: abnormal[None]}
    )
    with torch.no_grad():
        scores = method.score(features, scene)
        built = maps.build_maps(scores, method.map_spec(), 48).final[0]
        swapped = ScoreContext([OBJECT], {"object": torch.stack([abnormal, normal])})
        inverse = maps.build_maps(method.score(features, swapped), method.map_spec(), 48).final[0]
    row, column = divmod(int(built.argmax()), 48)
    assert (row // 8, column // 8) == divmod(22, 6)
    assert float(scores.image) > 0.5
    torch.testing.assert_close(inverse, 1 - built)


def test_sum_and_mean_differ_by_the_number_of_layers(backbone: Backbone, images: Tensor) -> None:
    mean = make(backbone.info, layers="all")
    total = make(backbone.info, layers="all", fuse="sum")
    features = backbone.encode_image(images, mean.feature_request())
    with torch.no_grad():
        scores = mean.score(features, context(mean, backbone, 8))
    a, b = (maps.build_maps(scores, m.map_spec(), 48).final for m in (mean, total))
    torch.testing.assert_close(b, len(mean.patch_taps) * a)
    assert a.max() <= 1


def test_batch_order_and_size_do_not_matter(backbone: Backbone, images: Tensor) -> None:
    method = make(backbone.info, layers="all")
    scene = context(method, backbone, 8)
    order = [5, 0, 3, 1, 7, 2, 6, 4]
    with torch.no_grad():
        whole = method.score(backbone.encode_image(images, method.feature_request()), scene)
        moved = method.score(backbone.encode_image(images[order], method.feature_request()), scene)
        torch.testing.assert_close(whole.image[order], moved.image, atol=1e-5, rtol=0)
        for i in range(8):
            features = backbone.encode_image(images[i : i + 1], method.feature_request())
            one = method.score(features, scene)
            torch.testing.assert_close(one.image[0], whole.image[i], atol=1e-5, rtol=0)


def test_text_is_encoded_once_for_all_categories(backbone: Backbone) -> None:
    method = make(backbone.info)
    before = backbone.counters.text_calls
    categories = [Category("d", k, k) for k in ("bottle", "cable", "wood")]
    text = method.prepare_text(categories, backbone.text_encoder())
    assert backbone.counters.text_calls - before == 1
    assert text["bottle"] is text["cable"] is text["wood"]
    assert torch.allclose(text["wood"].norm(dim=-1), torch.ones(2))


def test_deep_tokens_leave_what_lies_below_them(backbone: Backbone) -> None:
    """The set that enters block 3 changes the feature; a surplus set changes nothing."""
    method = make(backbone.info, deep={"depth": 6})
    text = backbone.text_encoder()  # three blocks: sets 0 and 1 are read, 2..4 are surplus
    with torch.no_grad():
        base = method.text_pair(text)
        method.deep_prompts.sets[4].add_(1)
        assert torch.equal(method.text_pair(text), base)
        method.deep_prompts.sets[1].add_(1)
        assert not torch.allclose(method.text_pair(text), base)


def test_half_precision_rounds_values_not_gradients(backbone: Backbone) -> None:
    exact, rounded = make(backbone.info), make(backbone.info, deep_half=True)
    for a, b in zip(exact.deep_prompts(), rounded.deep_prompts()):
        torch.testing.assert_close(b, a.half().float(), atol=0, rtol=0)
        assert not torch.equal(a, b)
    rounded.deep_prompts()[0].sum().backward()
    assert torch.equal(rounded.deep_prompts.sets[0].grad, torch.ones(4, 64))


def test_losses_fall_and_add_up(backbone: Backbone, images: Tensor) -> None:
    method = make(backbone.info)
    masks = torch.zeros(8, 1, 48, 48)
    masks[4:, :, 10:30, 5:20] = 1
    batch = TrainBatch(masks, torch.tensor([0] * 4 + [1] * 4))
    features = backbone.encode_image(images, method.feature_request())
    scene = context(method, backbone, 8)
    phase = method.phases()[0]
    optimizer = phase.optimizer(method.parameters_of_phase(phase))
    history = []
    for _ in range(15):
        found = method.losses(features, batch, scene)
        parts = found["focal"] + found["dice_abnormal"] + found["dice_normal"]
        torch.testing.assert_close(found["loss"], 4 * parts)
        torch.testing.assert_close(found["total"], found["loss"] + found["image_loss"])
        history.append(float(found["total"].detach()))
        optimizer.zero_grad()
        found["total"].backward()
        optimizer.step()
    assert history[-1] < 0.9 * history[0]


def test_members_of_an_ensemble_learn_as_if_alone(backbone: Backbone, images: Tensor) -> None:
    """Its losses and gradients are those of its members, its text pair is their mean."""
    method = make(backbone.info, ensemble=2)
    alone = make(backbone.info), make(backbone.info)
    own = method.state_dict()
    alone[0].load_state_dict({k: v for k, v in own.items() if not k.startswith("others.")})
    others = {k.removeprefix("others.0."): v for k, v in own.items() if k.startswith("others.0.")}
    alone[1].load_state_dict(others)
    assert not torch.equal(alone[0].normal_tokens, alone[1].normal_tokens)
    masks = torch.zeros(8, 1, 48, 48)
    masks[4:, :, 10:30, 5:20] = 1
    batch = TrainBatch(masks, torch.tensor([0] * 4 + [1] * 4))
    features = backbone.encode_image(images, method.feature_request())
    totals = []
    for one in (method, *alone):
        found = one.losses(features, batch, context(one, backbone, 8))["total"]
        found.backward()
        totals.append(found.detach())
    torch.testing.assert_close(totals[0], totals[1] + totals[2])
    torch.testing.assert_close(method.normal_tokens.grad, alone[0].normal_tokens.grad)
    torch.testing.assert_close(method.others[0].normal_tokens.grad, alone[1].normal_tokens.grad)
    text = backbone.text_encoder()
    with torch.no_grad():
        mean = (alone[0].text_pair(text) + alone[1].text_pair(text)) / 2
        torch.testing.assert_close(method.text_pair(text), mean / mean.norm(dim=-1, keepdim=True))
    trained = method.parameters_of_phase(method.phases()[0])
    assert len(trained) == 2 * len(alone[0].parameters_of_phase(alone[0].phases()[0]))

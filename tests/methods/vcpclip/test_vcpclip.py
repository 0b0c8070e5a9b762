"""VCP-CLIP on a small backbone, and by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.methods.small import BOTTLE, NUT, context, encode
from zsad import maps, registry
from zsad.backbones import Backbone
from zsad.errors import WeightsError
from zsad.methods.vcpclip.method import CLS, SHARE, VCPCLIP
from zsad.methods.vcpclip.modules import PostVCP, PreVCP
from zsad.types import Sample, Scores, Tap


def make(backbone: Backbone, **overrides: Any) -> VCPCLIP:
    config = registry.method("vcpclip").resolve(("test", overrides))
    torch.manual_seed(0)
    return VCPCLIP(config, backbone.info).eval()


def test_class_vectors_follow_the_image_and_only_if_asked() -> None:
    pre = PreVCP(2, 4, 4, use_image=True)
    with torch.no_grad():
        pre.along.weight.copy_(torch.tensor([[[0.0, 1.0, 0.0]], [[1.0, 0.0, 0.0]]]))
        pre.along.bias.zero_()
        g = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
        shift = pre(g)[0] - pre.query  # the identity, and a shift along the features
    torch.testing.assert_close(shift, torch.tensor([[1.0, 2, 3, 4], [0, 1, 2, 3]]))
    pre.use_image = False
    assert torch.equal(pre(g)[0], pre.query)
    assert PreVCP(2, 6, 4, True)(torch.ones(3, 6)).shape == (3, 2, 4)  # other joint width


def test_text_that_asks_nothing_sees_the_mean_patch() -> None:
    post = PostVCP(4, 8, 2, 1.0)
    with torch.no_grad():
        for part in (post.q, post.k):
            part.weight.zero_()
            part.bias.zero_()
        patches = torch.randn(1, 5, 8)
        seen = post(torch.randn(1, 2, 4), patches)
        units = patches / patches.norm(dim=-1, keepdim=True)
        expected = post.out(post.v(units).mean(1))
    torch.testing.assert_close(seen[0, 0], expected[0] / expected.norm())
    torch.testing.assert_close(seen[0, 0], seen[0, 1])


@torch.no_grad()
def test_the_pass_of_evaluation_is_that_of_training(backbone: Backbone, images: Tensor) -> None:
    method = make(backbone, deep_tokens=2, class_tokens=3, train={"dropout": 0.0})
    features = encode(method, backbone, images[:3])
    ctx = context(method, backbone, BOTTLE, NUT, BOTTLE)
    plain = method.text_pair(features[CLS], ctx.text_encoder)
    trained = method.train().text_pair(features[CLS], ctx.text_encoder)
    torch.testing.assert_close(plain, trained, rtol=0, atol=1e-5)
    assert (plain[0] - plain[1]).abs().max() > 1e-4  # each image has a text of its own
    scores = method.eval().score(features, ctx)
    alone = method.score(features.select([1]), ctx.select([1]))
    torch.testing.assert_close(scores.maps[3][1:2], alone.maps[3], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_dropout_is_drawn_for_every_label_and_image(backbone: Backbone, images: Tensor) -> None:
    method = make(backbone, use_image=False, train={"dropout": 0.5}).train()
    features = encode(method, backbone, images[:2])
    encoder = backbone.text_encoder()
    pair = method.text_pair(features[CLS], encoder)
    assert (pair[0] - pair[1]).abs().max() > 1e-4
    still = method.eval().text_pair(features[CLS], encoder)
    assert torch.equal(still[0], still[1])


def test_alpha_and_the_largest_pixels_by_hand(backbone: Backbone) -> None:
    method = make(backbone, layers=[2], alpha=0.75, post={"sigma": 0.0})
    logits = torch.zeros(1, 2, 2, 2)
    logits[0, 1, 0, 0] = 50.0  # one anomalous corner of the plain map, the refined one is 0.5
    scores = Scores([logits, torch.zeros(1, 2, 2, 2)], torch.zeros(1))
    built = maps.build_maps(scores, method.map_spec(), 40)
    assert built.final[0, 0, 0].item() == pytest.approx(0.25 * 1 + 0.75 * 0.5)
    count = round(SHARE * 1600)
    top = built.stages[0].flatten().topk(count).values.mean().item()
    assert method.image_score(scores, built).item() == pytest.approx((top + 0.5) / 2)
    summed = make(backbone, layers=[2], score={"pixels": count, "join": "sum"})
    assert summed.image_score(scores, built).item() == pytest.approx(top + 0.5)


def test_epochs_change_pictures_only_if_asked(backbone: Backbone) -> None:
    samples = [Sample(f"{i}.png", i % 2, "bottle", uid=str(i)) for i in range(8)]
    plain, changed = make(backbone), make(backbone, preset="released")
    phase = plain.phases()[0]
    assert plain.epoch_samples(samples, phase, 0, 0) is None
    assert not plain.adds_anew
    drawn = changed.epoch_samples(samples, phase, 0, 0)
    assert drawn is not None
    assert changed.adds_anew
    assert sorted(s.uid.rpartition("/")[2] for s in drawn) == [s.uid for s in samples]
    changed.auxiliary = ("mvtec",)
    (optimizer,) = [p.optimizer(dict(changed.named_parameters())) for p in changed.phases()]
    assert [g["lr"] for g in optimizer.param_groups] == [2e-5, 0.01]
    mixed = changed.epoch_samples(samples * 1, phase, 1, 0)
    assert mixed is not None
    assert any("mosaic/" in s.uid for s in mixed)


def test_files_of_others_are_refused(backbone: Backbone) -> None:
    config = registry.method("vcpclip").resolve()
    with pytest.raises(WeightsError, match="not a released vcpclip checkpoint"):
        VCPCLIP.import_official({"MyModel": {}}, config, backbone.info)
    assert make(backbone).taps == [Tap("tokens", n) for n in backbone.info.stages]

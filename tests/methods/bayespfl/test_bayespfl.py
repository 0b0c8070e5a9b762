"""Bayes-PFL on a small backbone, and by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.methods.small import BOTTLE, NUT, context, encode
from zsad import maps, registry
from zsad.backbones import Backbone
from zsad.errors import WeightsError
from zsad.methods.bayespfl import losses, prompts
from zsad.methods.bayespfl.config import Sampling
from zsad.methods.bayespfl.draws import Draws
from zsad.methods.bayespfl.method import CLS, BayesPFL
from zsad.methods.bayespfl.modules import Gaussian, planar_flow
from zsad.types import Category, TrainBatch


def make(backbone: Backbone, **overrides: Any) -> BayesPFL:
    small = {"flows": 2, "bank": 2, "context_tokens": 2, "state_tokens": 2}
    small |= {"sampling": {"draws": 2}}
    config = registry.method("bayespfl").resolve(("small", small), ("test", overrides))
    torch.manual_seed(0)
    return BayesPFL(config, backbone.info).eval()


def test_a_planar_step_and_its_volume() -> None:
    """The log-determinant is that of the Jacobian, whatever u is."""
    z = torch.randn(3, 4, dtype=torch.float64)
    u, w, b = (torch.randn(*s, dtype=torch.float64) for s in ((1, 4), (1, 4), (1,)))
    moved, volume = planar_flow(z, u, w, b)
    for i in range(3):
        jacobian = torch.autograd.functional.jacobian(lambda x: planar_flow(x, u, w, b)[0], z[i])
        expected = jacobian.det().abs().log()
        assert volume[i].item() == pytest.approx(expected.item(), abs=1e-3)
    torch.testing.assert_close(moved - z, u * ((z @ w.T) + b).tanh())


def test_the_density_of_a_draw_is_a_gaussians() -> None:
    own = Gaussian(torch.tensor([1.0, -2.0]), torch.tensor([0.4, -0.8]))
    noise = torch.tensor([0.3, 1.5])
    normal = torch.distributions.Normal(own.mean, (own.s / 4).exp())
    constant = math.log(2 * math.pi)  # of two values
    expected = normal.log_prob(own.at(noise)).sum() + constant
    assert own.log_density(noise).item() == pytest.approx(expected.item(), abs=1e-5)


def test_noise_by_kind() -> None:
    fixed = Draws(Sampling("fixed", 3, 0), 5)
    assert fixed.states().shape == (2, 3, 5)
    assert not torch.equal(*fixed.states())
    drawn = fixed.contexts(["a", "b"], [])
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn, fixed.contexts(["c", "d"], []))
    assert not torch.equal(drawn, Draws(Sampling("fixed", 3, 1), 5).contexts(["a", "b"], []))
    by_name = Draws(Sampling("per_image", 3, 0), 5).contexts(["a", "b", "a"], [])
    assert torch.equal(by_name[0], by_name[2])
    assert not torch.equal(by_name[0], by_name[1])
    by_place = Draws(Sampling("released", 3, 0), 5).contexts(["a", "a"], [0, 1])
    assert not torch.equal(by_place[0], by_place[1])
    assert Draws(Sampling("mean", 3, 0), 5).contexts(["a"], []).abs().sum() == 0
    assert Draws(Sampling("mean", 3, 0), 5).states().shape == (2, 1, 5)


@torch.no_grad()
def test_batches_make_no_difference(backbone: Backbone, images: Tensor) -> None:
    method = make(backbone)
    features = encode(method, backbone, images[:3])
    ctx = context(method, backbone, BOTTLE, NUT, BOTTLE)
    whole, alone = method.score(features, ctx), method.score(features.select([1]), ctx.select([1]))
    assert len(whole.maps) == 4 * 2 * 2  # layers, draws, bank
    torch.testing.assert_close(whole.image[1:2], alone.image, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(whole.maps[5][1:2], alone.maps[5], rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_one_stream_goes_on_from_image_to_image(backbone: Backbone, images: Tensor) -> None:
    """In one batch or in two: an image gets the draws of its place in its category."""
    method = make(backbone, sampling={"noise": "released"})
    assert method.carries
    features = encode(method, backbone, images[:3])
    ctx = context(method, backbone, BOTTLE, NUT, BOTTLE)
    whole = method.score(features, ctx)
    assert whole.carry == {"bottle": 2, "metal_nut": 1}
    first = method.score(features.select([0, 1]), ctx.select([0, 1]))
    later = ctx.select([2])
    later.carry = first.carry
    torch.testing.assert_close(method.score(features.select([2]), later).image, whole.image[2:])
    fresh = method.score(features.select([2]), ctx.select([2])).image
    assert (fresh - whole.image[2:]).abs().max() > 1e-7
    stretched = make(backbone, preset="released", sampling={"draws": 2})
    assert not stretched.carries  # all images of the category are there: their order is known
    assert stretched.stretches


@torch.no_grad()
def test_pixels_that_count_by_hand(backbone: Backbone, images: Tensor) -> None:
    method = make(backbone, image={"pixels": 100, "small_pixels": 10}, names="key")
    screw = Category("mvtec", "screw", "screw")
    scan = Category("headct", "head", "head")
    features = encode(method, backbone, images[:3])
    ctx = context(method, backbone, BOTTLE, screw, scan)
    scores = method.score(features, ctx)
    built = maps.build_maps(scores, method.map_spec(), 48)
    assert built.fused is not None
    largest = method.largest(scores, built)
    for row, count in enumerate((100, 10, 100)):
        expected = built.fused[row].flatten().topk(count).values.mean()
        assert largest[row].item() == pytest.approx(expected.item(), abs=1e-6)
    image = method.image_score(scores, built)
    assert image[2].item() == scores.image[2].item()  # no map in the score of this set
    half = (scores.image[0] + largest[0]) / 2
    assert image[0].item() == pytest.approx(half.item(), abs=1e-6)


def test_names_of_the_released_code() -> None:
    for key, said in (("pcb3", "printed circuit board"), ("Metal_Nut", "metal nut"), ("01", "01")):
        assert prompts.word(Category("", key, "spoken"), "key") == said
    assert prompts.word(Category("", "pcb3", "circuit board"), "spoken") == "circuit board"


def test_losses_by_hand() -> None:
    mask = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    p = torch.tensor([[[0.5, 0.25], [0.5, 0.0]]])
    normal = (0.0625 * -math.log(0.75) + 0.25 * math.log(2)) / 3
    assert losses.focal(p, mask).item() == pytest.approx(0.25 * math.log(2) + normal, abs=1e-6)
    assert losses.dice(p, mask).item() == pytest.approx(1 - 1.0 / 2.25, abs=1e-4)
    text = torch.tensor([[[1.0, 0.0], [0.6, 0.8]]])
    assert losses.orthogonality(text).item() == pytest.approx(2 * 0.36 / 4)


def test_phases_train_what_they_say(backbone: Backbone, images: Tensor) -> None:
    method = make(backbone)
    features = encode(method, backbone, images[:2])
    ctx = context(method, backbone, BOTTLE, NUT)
    ctx.text = {}
    batch = TrainBatch(torch.zeros(2, 1, 48, 48), torch.tensor([0, 1]))
    first, second = method.phases()
    assert first.step_rate is not None
    rates = [first.step_rate(i, 3) for i in range(60)]  # six steps of warm-up
    assert rates[:7] == pytest.approx([i / 6 for i in range(7)])
    assert rates[-1] == pytest.approx(0, abs=1e-2)
    for phase, names in (
        (first, {"total", "class", "focal", "dice", "divergence", "orthogonality"}),
        (second, {"total", "class"}),
    ):
        method.phase = phase.name
        method.freeze_all_but(method.parameters_of_phase(phase))
        method.zero_grad()
        found = method.losses(features, batch, ctx)
        assert set(found) == names
        found["total"].backward()
        moved = {n.partition(".")[0] for n, p in method.named_parameters() if p.grad is not None}
        assert ("fusion" in moved) == (phase is second)
        assert ("rca" in moved) == (phase is first)
    assert CLS in features.data


def test_files_of_others_are_refused(backbone: Backbone) -> None:
    config = registry.method("bayespfl").resolve()
    with pytest.raises(WeightsError, match="not a released bayespfl checkpoint"):
        BayesPFL.import_official({"New_Lan_Embed": {}}, config, backbone.info)
    state = {
        "prompt_context": torch.zeros(1, 1, 1),
        "state_encoder.a": torch.zeros(1),
        "PFL_normal.encoder.a": torch.ones(1),
    }
    with pytest.raises(WeightsError, match=r"should repeat 'state_encoder\.a' and differs"):
        BayesPFL.import_official({"MyModel": state}, config, backbone.info)

"""Bi-CMCI, Conv-Adapter and the knowledge loss: known answers and identities."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from zsad.methods.kanoclip.config import BiCMCI as BiCMCIConfig
from zsad.methods.kanoclip.knowledge import knowledge_loss, knowledge_mean
from zsad.methods.kanoclip.modules import (
    Attention,
    BiCMCI,
    ConvAdapter,
    DeformableAttention,
    PairAttention,
)

SMALL = BiCMCIConfig(width=32, heads=4, groups=2, stride=4)


def plane(degrees: float) -> Tensor:
    angle = torch.deg2rad(torch.tensor(degrees))
    return torch.stack([angle.cos(), angle.sin()])[None]


# ------------------------------------------------------------------- knowledge (Eqs. 2, 3)
@pytest.mark.parametrize("degrees", [0.0, 20.0, 44.0])
def test_hinge_is_zero_with_zero_gradient_when_abnormal_is_nearer(degrees: float) -> None:
    abnormal = plane(degrees).requires_grad_()
    normal = plane(90.0).requires_grad_()
    loss = knowledge_loss(plane(0.0), normal, abnormal)
    assert loss.item() == 0.0
    loss.sum().backward()
    assert torch.equal(abnormal.grad, torch.zeros_like(abnormal))
    assert torch.equal(normal.grad, torch.zeros_like(normal))


def test_hinge_pulls_the_abnormal_prompt_and_pushes_the_normal_one() -> None:
    knowledge = plane(0.0)
    abnormal, normal = plane(60.0).requires_grad_(), plane(20.0).requires_grad_()
    loss = knowledge_loss(knowledge, normal, abnormal)
    # chords of the unit circle: 2 sin(30 deg) - 2 sin(10 deg)
    assert loss.item() == pytest.approx(
        1.0 - 2 * torch.deg2rad(torch.tensor(10.0)).sin().item(), abs=1e-6
    )
    loss.sum().backward()
    step = 1e-2
    assert ((abnormal - step * abnormal.grad) - knowledge).norm() < (abnormal - knowledge).norm()
    assert ((normal - step * normal.grad) - knowledge).norm() > (normal - knowledge).norm()


def test_knowledge_mean_weighs_prompts_or_sources() -> None:
    general, specific = plane(0.0) * 3.0, plane(90.0).repeat(3, 1)
    by_prompt = knowledge_mean(general, specific)
    by_source = knowledge_mean(general, specific, "per_source")
    assert torch.allclose(by_prompt, F.normalize(torch.tensor([1.0, 3.0]), dim=0), atol=1e-6)
    assert torch.allclose(by_source, F.normalize(torch.tensor([1.0, 1.0]), dim=0), atol=1e-6)
    with pytest.raises(ValueError, match="no knowledge"):
        knowledge_mean(general[:0], specific[:0])


# --------------------------------------------------------------------------------- Bi-CMCI
def test_zero_gates_make_the_stage_linear_to_the_bit() -> None:
    torch.manual_seed(0)
    stage = BiCMCI(SMALL, visual=24, embed=16)
    patches, text = torch.randn(2, 36, 24), torch.randn(2, 2, 16)
    visual, pair = stage(patches, text, (6, 6))
    assert torch.equal(visual, stage.skip(patches))
    assert torch.equal(pair, text)


def test_swapping_the_labels_swaps_the_pair() -> None:
    torch.manual_seed(1)
    stage = BiCMCI(SMALL, visual=24, embed=16)
    torch.nn.init.ones_(stage.visual_gate)
    torch.nn.init.ones_(stage.text_gate)
    patches, text = torch.randn(2, 36, 24), torch.randn(2, 2, 16)
    visual, pair = stage(patches, text, (6, 6))
    visual_swapped, pair_swapped = stage(patches, text.flip(1), (6, 6))
    assert torch.allclose(visual, visual_swapped, atol=1e-5)
    assert torch.allclose(pair.flip(1), pair_swapped, atol=1e-5)
    assert not torch.allclose(visual, stage.skip(patches), atol=1e-2)  # the branches do something


@pytest.mark.parametrize(
    "directions, visual_moves, text_moves",
    [("both", True, True), ("t2v", True, False), ("v2t", False, True), ("none", False, False)],
)
def test_directions_carry_information_only_their_way(
    directions: str, visual_moves: bool, text_moves: bool
) -> None:
    torch.manual_seed(2)
    config = BiCMCIConfig(width=32, heads=4, groups=2, directions=directions)  # type: ignore[arg-type]
    stage = BiCMCI(config, visual=24, embed=16)
    torch.nn.init.ones_(stage.visual_gate)
    torch.nn.init.ones_(stage.text_gate)
    patches, text = torch.randn(1, 36, 24), torch.randn(1, 2, 16)
    visual, pair = stage(patches, text, (6, 6))
    other_text = stage(patches, torch.randn(1, 2, 16), (6, 6))[0]
    other_patches = stage(torch.randn(1, 36, 24), text, (6, 6))[1]
    assert torch.equal(visual, other_text) is not visual_moves
    assert torch.equal(pair, other_patches) is not text_moves


def test_size_at_the_papers_backbone() -> None:
    stage = BiCMCI(BiCMCIConfig(), visual=1024, embed=768)
    assert sum(p.numel() for p in stage.parameters()) == pytest.approx(2.70e6, rel=0.01)
    assert stage.visual_in[1].out_features == 256  # a quarter of the encoder's width
    assert BiCMCIConfig().width_for(192) == 48
    assert BiCMCIConfig().width_for(10) == BiCMCIConfig().heads
    assert BiCMCIConfig(width=32).width_for(1024) == 32


# -------------------------------------------------------------------- deformable attention
def test_zero_offsets_with_stride_one_are_ordinary_attention() -> None:
    torch.manual_seed(3)
    deformable = DeformableAttention(32, heads=4, groups=2, stride=1)
    x = torch.randn(2, 30, 32)
    assert torch.allclose(deformable(x, (5, 6)), deformable.attention(x, x), atol=1e-5)


def test_zero_offsets_attend_to_the_regular_grid() -> None:
    torch.manual_seed(4)
    deformable = DeformableAttention(32, heads=4, groups=2, stride=4)
    x = torch.randn(1, 37 * 37, 32)
    regular = x.unflatten(1, (37, 37))[:, ::4, ::4].flatten(1, 2)
    assert regular.shape[1] == 100
    assert torch.allclose(
        deformable.sample(x, deformable.attention.query(x), (37, 37)), regular, atol=1e-5
    )
    assert torch.allclose(deformable(x, (37, 37)), deformable.attention(x, regular), atol=1e-5)


def test_sampling_points_learn_to_visit_a_distinctive_region() -> None:
    torch.manual_seed(5)
    deformable = DeformableAttention(16, heads=2, groups=1, stride=4)
    grid = (9, 9)
    x = 0.1 * torch.randn(1, 81, 16)
    planted = torch.zeros(9, 9)
    planted[3:6, 3:6] = 1  # no reference point of stride 4 but the centre lies in it
    x = x + planted.flatten()[None, :, None] * torch.linspace(-2, 2, 16)
    weight = planted[None, None]

    def share() -> Tensor:
        points = deformable.points(deformable.attention.query(x), grid)
        return F.grid_sample(weight, points / 8 * 2 - 1, align_corners=True).mean()

    before = share().item()
    # A sampled value of the blurred indicator gives the points a slope to climb.
    soft = F.avg_pool2d(F.pad(weight, (3, 3, 3, 3)), 7, 1)
    optimizer = torch.optim.Adam(deformable.parameters(), lr=1e-2)
    for _ in range(200):
        points = deformable.points(deformable.attention.query(x), grid)
        loss = -F.grid_sample(soft, points / 8 * 2 - 1, align_corners=True).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert before < 0.2
    assert share().item() > before + 0.3


def test_attention_with_one_context_token_returns_its_value() -> None:
    attention = Attention(8, 2)
    context = torch.randn(1, 1, 8)
    expected = attention.out(attention.value(context)).expand(1, 5, 8)
    assert torch.allclose(attention(torch.randn(1, 5, 8), context), expected, atol=1e-6)


def test_attention_to_a_pair_is_attention_to_two_keys() -> None:
    """Values and gradients, of large logits as well."""
    torch.manual_seed(6)
    plain, pair = Attention(24, 4).double(), PairAttention(24, 4).double()
    pair.load_state_dict(plain.state_dict())
    for scale in (1.0, 30.0):
        queries, context = scale * torch.randn(3, 7, 24), torch.randn(3, 2, 24)
        found = []
        for attention in (plain, pair):
            attention.zero_grad()
            x = queries.double().requires_grad_()
            out = attention(x, context.double())
            out.square().sum().backward()
            found.append([out, x.grad, *(p.grad for p in attention.parameters())])
        for right, other in zip(*found, strict=True):
            torch.testing.assert_close(other, right, rtol=1e-9, atol=1e-9)


def test_the_gate_weighs_what_is_added_to_the_skip() -> None:
    torch.manual_seed(7)
    stage = BiCMCI(BiCMCIConfig(), visual=24, embed=16)
    patches, text = torch.randn(2, 36, 24), torch.randn(2, 2, 16)
    straight, _ = stage(patches, text, (6, 6))
    assert torch.allclose(straight, stage.skip(patches), atol=1e-6)  # it starts at zero
    shown = []
    for gate in (1.0, -0.5):
        torch.nn.init.constant_(stage.visual_gate, gate)
        added = stage(patches, text, (6, 6))[0] - straight
        shown.append(added / gate)
    assert torch.allclose(shown[0], shown[1], atol=1e-6)
    assert shown[0].abs().max() > 1e-2


# ---------------------------------------------------------------------------- Conv-Adapter
def test_adapter_size_and_identity() -> None:
    adapter = ConvAdapter(768, "pointwise", residual=False)
    assert sum(p.numel() for p in adapter.parameters()) == 2 * 768 + 2 * 768 * 384
    assert sum(p.numel() for p in ConvAdapter(768, "conv1d", False).parameters()) == (
        2 * 768 + 2 * 768 * 384 + 4
    )
    x = torch.randn(3, 768)
    assert torch.equal(ConvAdapter(768, "pointwise", residual=True)(x), x)  # starts as CLIP


def test_depthwise_kernel_on_one_position_is_a_factor_per_channel() -> None:
    """The claim behind ``pointwise``: a depthwise convolution sees nothing but its centre tap."""
    torch.manual_seed(6)
    depthwise = torch.nn.Conv2d(12, 12, 3, padding=1, groups=12, bias=False)
    x = torch.randn(4, 12)
    found = depthwise(x[:, :, None, None])[:, :, 0, 0]
    assert torch.allclose(found, x * depthwise.weight[:, 0, 1, 1], atol=1e-6)

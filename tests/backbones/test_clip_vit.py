"""The image encoder against open_clip's own forward pass, and the identities it relies on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from open_clip.model import resize_pos_embed
from torch import Tensor
from torch.nn import functional as F

from zsad.backbones import Backbone, load
from zsad.backbones.clip_vit import resize_positions
from zsad.types import EncoderVariant, FeatureRequest, Tap

DEPTH = 5
CLOSE = {"rtol": 1e-4, "atol": 2e-5}  # float32, another order of the same sums
Make = Callable[..., Backbone]

EVERY_TAP = frozenset(
    [
        Tap("cls"),
        Tap("cls_raw"),
        *(Tap(k, l) for k in ("tokens", "tokens_proj") for l in (0, 2, DEPTH)),
        *(Tap("mid", l) for l in (1, DEPTH - 1)),
        *(Tap(k, l, s) for k in ("vv", "vv_proj") for s in (2, 4) for l in (1, 3, DEPTH)),
        *(Tap(k, l) for k in ("vv_ffn", "values", "values_proj") for l in (3, DEPTH)),
        Tap("pre_tokens"),
        *(Tap(k, 2) for k in ("window", "window_values", "window_pixels")),
    ]
)


def encode(backbone: Backbone, images: Tensor, *taps: Tap, **variant: Any) -> dict[Tap, Tensor]:
    request = FeatureRequest.of(*taps, variant=EncoderVariant(**variant))
    return backbone.encode_image(images, request).data


def block(backbone: Backbone, layer: int) -> Any:
    return backbone.model.visual.transformer.resblocks[layer - 1]  # type: ignore[union-attr]


def change(
    state: dict[str, Tensor], suffix: str, value: Callable[[Tensor], Tensor], first: int = 1
):
    """Changed copies of the vision tensors ``...<suffix>`` of blocks ``first``..last."""
    names = [f"visual.transformer.resblocks.{i}.{suffix}" for i in range(first - 1, DEPTH)]
    return {n: value(state[n]) for n in names}


# ----------------------------------------------------------------- against open_clip itself
def test_class_embedding_and_states_equal_open_clip(backbone: Backbone, images: Tensor) -> None:
    model: Any = backbone.model
    taps = [Tap("tokens", l) for l in range(1, DEPTH + 1)]
    got = encode(backbone, images, Tap("cls"), *taps)
    torch.testing.assert_close(got[Tap("cls")], model.encode_image(images), **CLOSE)
    reference = model.visual.forward_intermediates(
        images, output_fmt="NLC", output_extra_tokens=True
    )
    for i, tap in enumerate(taps):
        patches = reference["image_intermediates"][i]
        token = reference["image_intermediates_prefix"][i]
        torch.testing.assert_close(got[tap], torch.cat([token, patches], 1), **CLOSE)


def test_taps_inside_a_block_equal_its_parts(backbone: Backbone, images: Tensor) -> None:
    model: Any = backbone.model
    layer = 3
    got = encode(
        backbone,
        images,
        Tap("tokens", layer - 1),
        Tap("mid", layer - 1),
        Tap("vv_ffn", layer),
        Tap("values", layer),
        Tap("values_proj", layer),
        Tap("vv", layer, layer),
    )
    b, x = block(backbone, layer), got[Tap("tokens", layer - 1)]
    y = b.ln_1(x)
    torch.testing.assert_close(
        got[Tap("mid", layer - 1)], x + b.attn(y, y, y, need_weights=False)[0], **CLOSE
    )
    v = F.linear(y, b.attn.in_proj_weight[256:], b.attn.in_proj_bias[256:])
    torch.testing.assert_close(got[Tap("values", layer)], v, **CLOSE)
    maskclip = model.visual.ln_post(b.attn.out_proj(v)) @ model.visual.proj
    torch.testing.assert_close(got[Tap("values_proj", layer)], maskclip, **CLOSE)
    heads = v.unflatten(-1, (2, 64)).transpose(1, 2)
    joined = ((heads @ heads.mT / 8).softmax(-1) @ heads).transpose(1, 2).flatten(2)
    inner = x + b.attn.out_proj(joined)
    torch.testing.assert_close(got[Tap("vv", layer, layer)], inner, **CLOSE)
    torch.testing.assert_close(got[Tap("vv_ffn", layer)], inner + b.mlp(b.ln_2(inner)), **CLOSE)


# ------------------------------------------------------------------------- v-v identities
def test_two_start_blocks_differ_by_a_constant(backbone: Backbone, images: Tensor) -> None:
    """VV_s(l) - VV_{s+1}(l) = x_{s-1} + a_s - x_s for every l > s."""
    s = 2
    layers = range(s + 1, DEPTH + 1)
    taps = [Tap("vv", l, start) for l in layers for start in (s, s + 1)]
    got = encode(backbone, images, *taps, Tap("vv", s, s), Tap("tokens", s))
    difference = got[Tap("vv", s, s)] - got[Tap("tokens", s)]  # x_{s-1} + a_s - x_s
    assert difference.abs().max() > 0.1
    for l in layers:
        delta = got[Tap("vv", l, s)] - got[Tap("vv", l, s + 1)]
        torch.testing.assert_close(delta, difference, **CLOSE)


def test_equal_projections_make_both_attentions_equal(
    make_backbone: Make, clip_state: dict[str, Tensor], images: Tensor
) -> None:
    def same(t: Tensor) -> Tensor:
        return t[-len(t) // 3 :].repeat(3, *[1] * (t.dim() - 1))

    changed = change(clip_state, "attn.in_proj_weight", same)
    changed |= change(clip_state, "attn.in_proj_bias", same)
    got = encode(make_backbone(change=changed), images, Tap("vv", 3, 3), Tap("mid", 2))
    torch.testing.assert_close(got[Tap("vv", 3, 3)], got[Tap("mid", 2)], **CLOSE)


def test_without_output_projection_the_path_stands_still(
    make_backbone: Make, clip_state: dict[str, Tensor], images: Tensor
) -> None:
    s = 3
    changed = change(clip_state, "attn.out_proj.weight", torch.zeros_like, s)
    changed |= change(clip_state, "attn.out_proj.bias", torch.zeros_like, s)
    got = encode(make_backbone(change=changed), images, Tap("vv", DEPTH, s), Tap("tokens", s - 1))
    assert torch.equal(got[Tap("vv", DEPTH, s)], got[Tap("tokens", s - 1)])


def test_before_its_start_the_path_is_the_ordinary_state(
    backbone: Backbone, images: Tensor
) -> None:
    got = encode(
        backbone, images, Tap("vv", 2, 4), Tap("vv", 3, 4), *[Tap("tokens", l) for l in (2, 3)]
    )
    assert torch.equal(got[Tap("vv", 2, 4)], got[Tap("tokens", 2)])
    assert torch.equal(got[Tap("vv", 3, 4)], got[Tap("tokens", 3)])


# -------------------------------------------------------------------------- one shared pass
def test_no_two_taps_share_storage(backbone: Backbone, images: Tensor) -> None:
    got = encode(backbone, images, *EVERY_TAP)
    pointers = {t.untyped_storage().data_ptr() for t in got.values()}
    assert len(pointers) == len(got) == len(EVERY_TAP)


def test_merged_request_equals_separate_ones_in_one_forward(
    backbone: Backbone, images: Tensor
) -> None:
    requests = [FeatureRequest.of(tap) for tap in sorted(EVERY_TAP)]
    backbone.counters.reset()
    merged = backbone.encode_image(images, FeatureRequest.merge(requests))
    assert backbone.counters.image_forwards == 1
    assert backbone.counters.images == 3
    for request in requests:
        (tap,) = request.taps
        alone = backbone.encode_image(images, request)
        torch.testing.assert_close(alone[tap], merged[tap], **CLOSE)
    assert backbone.counters.image_forwards == 1 + len(requests)


def test_batch_of_one_equals_batch_of_three(backbone: Backbone, images: Tensor) -> None:
    together = encode(backbone, images, *EVERY_TAP)
    for i in range(3):
        for tap, value in encode(backbone, images[i : i + 1], *EVERY_TAP).items():
            torch.testing.assert_close(value[0], together[tap][i], **CLOSE)


def test_encoding_changes_no_weight_and_builds_no_graph(backbone: Backbone, images: Tensor) -> None:
    before = {k: v.clone() for k, v in backbone.model.state_dict().items()}
    got = encode(backbone, images.clone().requires_grad_(), *EVERY_TAP)
    assert not any(t.requires_grad for t in got.values())
    assert not any(p.requires_grad for p in backbone.model.parameters())
    assert all(torch.equal(v, before[k]) for k, v in backbone.model.state_dict().items())


# ----------------------------------------------------------------------------- the variants
def test_gelu_variant_equals_a_model_built_with_gelu(backbone: Backbone, images: Tensor) -> None:
    from zsad.backbones.build import build_model, config_of_state
    from zsad.backbones.specs import spec

    state = backbone.model.state_dict()
    model: Any = build_model(spec("file"), config_of_state(state), "gelu", state)
    got = encode(backbone, images, Tap("cls"), activation="gelu")[Tap("cls")]
    torch.testing.assert_close(got, model.encode_image(images), **CLOSE)
    quick = encode(backbone, images, Tap("cls"))[Tap("cls")]
    assert (got - quick).abs().max() > 1e-3
    shared = backbone.image_encoder(EncoderVariant(activation="gelu")).visual
    assert shared is backbone.image_encoder().visual


@pytest.mark.parametrize("side", [3, 7])
def test_position_table_resizing(backbone: Backbone, side: int) -> None:
    model: Any = backbone.model
    table = model.visual.positional_embedding
    state = {"visual.positional_embedding": table.clone()}

    class Target:
        class visual:
            grid_size = (side, side)

    resize_pos_embed(state, Target)
    resized = {
        m: resize_positions(table, (side, side), m) for m in ("bicubic_aa", "bicubic", "bilinear")
    }
    torch.testing.assert_close(resized["bicubic_aa"], state["visual.positional_embedding"])
    for mode, got in resized.items():
        assert torch.equal(got[0], table[0])  # the class position is never touched
        others = [v for m, v in resized.items() if m != mode]
        assert all((got - o).abs().max() > 1e-2 for o in others)
    assert resize_positions(table, (5, 5), "bilinear") is table


def test_bilinear_positions_by_hand() -> None:
    table = torch.tensor([[9.0], [0.0], [1.0], [2.0], [3.0]])  # class; 2 x 2 grid
    got = resize_positions(table, (4, 4), "bilinear").flatten().tolist()
    assert got[0] == 9.0
    assert got[1:5] == [0.0, 0.25, 0.75, 1.0]  # pixel centres at -0.25, 0.25, 0.75, 1.25
    assert got[1::4] == [0.0, 0.5, 1.5, 2.0]


def test_other_image_sizes_and_the_size_of_the_request(
    backbone: Backbone, recipe: Any, images: Tensor
) -> None:
    large = recipe.images(1, 56, 3)
    features = backbone.encode_image(large, FeatureRequest.of(Tap("tokens", 1)))
    assert features.grid == (7, 7)
    assert features[Tap("tokens", 1)].shape == (1, 50, 128)
    with pytest.raises(ValueError, match="56 pixels"):
        encode(backbone, images, Tap("cls"), image_size=56)


@pytest.mark.parametrize(
    ("tap", "message"),
    [
        (Tap("tokens", 6), "layer must be in 0..5"),
        (Tap("values", 0), "layer must be in 1..5"),
        (Tap("vv", 3, 0), "start must be in 1..5"),
        (Tap("token", 3), "unknown tap kind 'token'"),
        (Tap("window", 6), "window of 6 patches does not fit"),
    ],
)
def test_impossible_taps_are_refused(
    backbone: Backbone, images: Tensor, tap: Tap, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        encode(backbone, images, tap)


# --------------------------------------------------------------------------- low precision
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_stays_close(
    make_backbone: Make, backbone: Backbone, images: Tensor, precision: str
) -> None:
    low = make_backbone(precision=precision)
    taps = [Tap("cls"), Tap("vv_proj", DEPTH, 2), Tap("tokens", DEPTH), Tap("window", 2)]
    exact = encode(backbone, images, *taps)
    for tap, value in encode(low, images, *taps).items():
        assert value.dtype is {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        cosine = F.cosine_similarity(value.float(), exact[tap], dim=-1)
        assert cosine.min() > (0.999 if precision == "bf16" else 0.99999)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_the_cpu(make_backbone: Make, images: Tensor) -> None:
    expected = encode(make_backbone(), images, *EVERY_TAP)
    for tap, value in encode(make_backbone().to("cuda"), images, *EVERY_TAP).items():
        torch.testing.assert_close(value.cpu(), expected[tap], rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_compiling_changes_nothing(
    clip_state: dict[str, Tensor], images: Tensor, tmp_path: Path
) -> None:
    torch.save(clip_state, tmp_path / "state.pt")
    taps = [Tap("cls"), Tap("vv_proj", DEPTH, 2), Tap("window", 2)]
    expected, got = (
        encode(load("file", weights=tmp_path / "state.pt", compile=c), images, *taps)
        for c in (False, True)
    )
    for tap in taps:
        torch.testing.assert_close(got[tap], expected[tap], **CLOSE)


# -------------------------------------------------------------------------------- resuming
def test_resuming_continues_the_pass(backbone: Backbone, images: Tensor) -> None:
    got = encode(backbone, images, *[Tap("tokens", l) for l in (0, 2, DEPTH)], Tap("cls"))
    encoder = backbone.image_encoder()
    for layer in (0, 2):
        end = encoder.resume(got[Tap("tokens", layer)], layer + 1)
        torch.testing.assert_close(end, got[Tap("tokens", DEPTH)], **CLOSE)
        torch.testing.assert_close(encoder.project(end[:, 0]), got[Tap("cls")], **CLOSE)
    last = got[Tap("tokens", DEPTH)]
    assert torch.equal(encoder.resume(last, DEPTH + 1), last)
    part = encoder.resume(got[Tap("tokens", 0)], 1, last_block=2)
    torch.testing.assert_close(part, got[Tap("tokens", 2)], **CLOSE)


def test_adapters_run_after_their_block_and_get_gradients(
    backbone: Backbone, images: Tensor
) -> None:
    x = encode(backbone, images, Tap("tokens", 2))[Tap("tokens", 2)]
    encoder = backbone.image_encoder()
    shift = torch.zeros(128, requires_grad=True)
    seen: list[int] = []

    def adapter(layer: int, state: Tensor) -> Tensor:
        seen.append(layer)
        return state + shift

    by_call = encoder.resume(x, 3, adapter)
    assert seen == [3, 4, 5]
    by_layer = encoder.resume(x, 3, {l: lambda state: state + shift for l in (3, 4, 5)})
    torch.testing.assert_close(by_call, by_layer)
    (gradient,) = torch.autograd.grad(by_call.square().mean(), shift)
    step = torch.zeros(128)
    step[7] = 1e-2
    with torch.no_grad():
        shift += step
        up = encoder.resume(x, 3, adapter).square().mean()
        shift -= 2 * step
        down = encoder.resume(x, 3, adapter).square().mean()
    assert float(gradient[7]) == pytest.approx(float(up - down) / 2e-2, rel=2e-2)


def test_checkpointed_blocks_and_tokens_that_join_give_the_same_gradients(
    backbone: Backbone, images: Tensor
) -> None:
    x = encode(backbone, images, Tap("tokens", 0))[Tap("tokens", 0)]
    encoder = backbone.image_encoder()
    joining = torch.full((len(x), 2, 128), 0.1, requires_grad=True)
    found = []
    for checkpointed in (False, True):
        end = encoder.resume(torch.cat([x, joining], 1), 1, checkpointed=checkpointed)
        (gradient,) = torch.autograd.grad(end[:, 0].square().mean(), joining)
        found.append((end.detach(), gradient))
    for plain, again in zip(*found):
        assert torch.equal(plain, again)


def test_attention_of_values_is_that_of_one_stream(backbone: Backbone, images: Tensor) -> None:
    """u <- u + O(softmax(v v^T / sqrt(d)) v), then the feed-forward part, written out."""
    u = encode(backbone, images, Tap("tokens", 1))[Tap("tokens", 1)]
    encoder = backbone.image_encoder()
    got = encoder.resume(u, 2, last_block=2, attention="v")
    block = encoder.blocks[1]
    (v,) = block.project_in(block.norm(u), "v")
    weights = (v @ v.mT / v.shape[-1] ** 0.5).softmax(-1)
    mid = u + block.project_out(weights @ v)
    torch.testing.assert_close(got, mid + block.feed_forward(mid), **CLOSE)

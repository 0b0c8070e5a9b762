"""The text encoder: every identity changes nothing, gradients included."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from zsad.backbones import Backbone, TextEncoder
from zsad.backbones.blocks import Block
from zsad.backbones.text_blocks import join, overwrite
from zsad.types import EncoderVariant

EXACT = {"rtol": 0, "atol": 1e-5}  # on features of a size of about 1
TEXTS = [
    "a photo of a metal nut.",
    "object.",
    "a cropped photo of a damaged transistor with a bent lead, for anomaly detection",
    "word " * 100,  # longer than the context
    "",
]


@pytest.fixture
def text(backbone: Backbone) -> TextEncoder:
    return TextEncoder(backbone.model, backbone._tokenize)


@pytest.fixture
def naive(backbone: Backbone) -> TextEncoder:
    """All 77 positions, nothing shared."""
    return TextEncoder(backbone.model, backbone._tokenize, truncate=False, reuse=False)


def scale(features: Tensor) -> float:
    """Root mean square of the features: differences are measured against it."""
    return float(features.detach().square().mean().sqrt())


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.3


# ------------------------------------------------------------------------ against open_clip
def test_fixed_prompts_equal_open_clip(
    backbone: Backbone, text: TextEncoder, naive: TextEncoder
) -> None:
    model: Any = backbone.model
    expected = model.encode_text(backbone._tokenize(TEXTS))
    for encoder in (text, naive):
        got = encoder.encode_texts(TEXTS)
        torch.testing.assert_close(got / scale(expected), expected / scale(expected), **EXACT)
    assert text.encode_texts([]).shape == (0, text.embed)


def test_tokens_end_where_the_text_ends(text: TextEncoder) -> None:
    tokens = text.tokenize(["X X X object.", "word " * 100])
    assert tokens.ids.shape == (2, 77)
    assert tokens.eot.tolist() == [6, 76]
    assert tokens.ids[0, 6] == tokens.ids[1, 76] == 49407
    assert text.embed_tokens(text.tokenize(["X X X object."])).shape == (1, 7, text.width)


def test_tokens_after_the_end_of_text_do_not_matter(naive: TextEncoder) -> None:
    tokens = naive.tokenize(["a broken bottle", "a bottle"])
    embedded = naive.embed_tokens(tokens)
    noisy = embedded.clone()
    for i, end in enumerate(tokens.eot.tolist()):
        noisy[i, end + 1 :] = draw(76 - end, naive.width, seed=i)
    assert torch.equal(
        naive.encode_embeddings(noisy, tokens.eot), naive.encode_embeddings(embedded, tokens.eot)
    )


def test_gelu_variant_reaches_the_text_tower(backbone: Backbone) -> None:
    quick = backbone.text_encoder().encode_texts(TEXTS[:1])
    exact = backbone.text_encoder(EncoderVariant(activation="gelu")).encode_texts(TEXTS[:1])
    assert (quick - exact).abs().max() > 1e-4


# --------------------------------------------------------------- prefix reuse and gradients
def compare(
    text: TextEncoder, naive: TextEncoder, context: Tensor, words: list[str], deep: list[Tensor]
) -> None:
    """Features, and the gradients of context, suffixes and deep prompts, agree."""
    placeholders = context.shape[1]
    prompts = [" ".join(["X"] * placeholders + [w]) for w in words]
    results = []
    for encoder in (text, naive):
        ctx = context.clone().requires_grad_()
        sets = [d.clone().requires_grad_() for d in deep]
        tokens = encoder.tokenize(prompts)
        embedded = encoder.embed_tokens(tokens)
        prefix = torch.cat([embedded[:1, :1].expand(len(ctx), -1, -1), ctx], 1)
        suffix = embedded[None, :, 1 + placeholders :].clone().requires_grad_()
        features = encoder.encode_prefixed(prefix, suffix, tokens.eot, sets or None)
        weight = draw(*features.shape, seed=9)
        used = [ctx, suffix, *sets[: len(encoder.blocks) - 1]]
        gradients = torch.autograd.grad((features * weight).sum(), used)
        length = int(tokens.eot.max()) + 1 - prefix.shape[1]
        results.append((features, [gradients[0], gradients[1][:, :, :length], *gradients[2:]]))
    (got, got_gradients), (expected, expected_gradients) = results
    size = scale(expected)
    torch.testing.assert_close(got / size, expected / size, **EXACT)
    for g, e in zip(got_gradients, expected_gradients, strict=True):
        # zero where deep prompts cover everything that the first block wrote
        size = float(e.abs().max()) or 1.0
        torch.testing.assert_close(g / size, e / size, **EXACT)


@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    rows=st.integers(1, 3),
    placeholders=st.integers(1, 8),
    deep_tokens=st.integers(0, 10),
    sets=st.integers(0, 6),
    count=st.integers(1, 3),
)
def test_reuse_equals_the_naive_path_with_gradients(
    text: TextEncoder,
    naive: TextEncoder,
    rows: int,
    placeholders: int,
    deep_tokens: int,
    sets: int,
    count: int,
) -> None:
    """Any size: deep prompts may reach into the suffix, and outnumber the blocks."""
    words = ["object.", "damaged object with a scratch.", "a b c d e f."][:count]
    context = draw(rows, placeholders, text.width, seed=1)
    deep = [draw(deep_tokens, text.width, seed=10 + i) for i in range(sets)] if deep_tokens else []
    compare(text, naive, context, words, deep)


def test_every_learned_part_gets_a_gradient(text: TextEncoder) -> None:
    tokens = text.tokenize(["X X X X X object."])
    embedded = text.embed_tokens(tokens)
    context = draw(2, 5, text.width, seed=1).requires_grad_()
    deep = [draw(4, text.width, seed=i).requires_grad_() for i in range(len(text.blocks) - 1)]
    prefix = torch.cat([embedded[:, :1].expand(2, -1, -1), context], 1)
    features = text.encode_prefixed(prefix, embedded[None, :, 6:], tokens.eot, deep)
    weight = draw(*features.shape, seed=3)
    for gradient in torch.autograd.grad((features * weight).sum(), [context, *deep]):
        assert gradient.abs().amax(-1).min() > 0


def test_many_suffixes_per_row_and_one_prefix(text: TextEncoder, naive: TextEncoder) -> None:
    """Image-conditioned suffixes [B, T, s, W] behind one shared prefix (FAPrompt's prior)."""
    tokens = text.tokenize(["X X X damaged object."])
    embedded = text.embed_tokens(tokens)
    suffix = embedded[None, :, 4:] + draw(3, 4, 1, text.width, seed=4)
    prefix = embedded[:, :4]
    eot = tokens.eot.expand(4)
    got = text.encode_prefixed(prefix, suffix, eot)
    assert got.shape == (3, 4, text.embed)
    expected = naive.encode_embeddings(
        torch.nn.functional.pad(join(prefix, suffix), (0, 0, 0, 77 - embedded.shape[1])), eot
    )
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    for b in range(3):  # rows of the batch do not touch each other
        alone = text.encode_prefixed(prefix, suffix[b : b + 1], eot)
        torch.testing.assert_close(alone[0], got[b], rtol=1e-5, atol=1e-5)


def test_a_prompt_that_ends_inside_the_prefix_is_encoded_too(text: TextEncoder) -> None:
    tokens = text.tokenize(["a b", "a b c d e f"])
    embedded = text.embed_tokens(tokens)
    got = text.encode_prefixed(embedded[:1, :5], embedded[None, :, 5:], tokens.eot)
    joined = torch.cat([embedded[:1, :5].expand(2, -1, -1), embedded[:, 5:]], 1)
    expected = text.encode_embeddings(joined, tokens.eot)
    torch.testing.assert_close(got[0], expected, rtol=1e-5, atol=1e-5)


def test_an_end_of_text_outside_the_prompt_is_refused(text: TextEncoder) -> None:
    tokens = text.tokenize(["one two three"])
    embedded = text.embed_tokens(tokens)
    with pytest.raises(ValueError, match="position 4 of prompts with 3 positions"):
        text.encode_embeddings(embedded[:, :3], tokens.eot)
    with pytest.raises(ValueError, match="position 4 of prompts with 4 positions"):
        text.encode_prefixed(embedded[:, :2], embedded[None, :, 2:4], tokens.eot)
    long = embedded[:, :1].expand(1, 90, -1)
    with pytest.raises(ValueError, match="context length 77"):
        text.encode_embeddings(long, tokens.eot + 80)


def test_leading_dimensions_are_kept(text: TextEncoder) -> None:
    tokens = text.tokenize(["one", "two words"])
    embedded = text.embed_tokens(tokens)
    stacked = torch.stack([embedded, embedded + 0.1])[:, None]
    got = text.encode_embeddings(stacked, tokens.eot)
    assert got.shape == (2, 1, 2, text.embed)
    again = text.encode_embeddings(embedded + 0.1, tokens.eot)
    torch.testing.assert_close(got[1, 0], again, rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------------------------ deep prompts
def test_deep_prompts_overwrite_only_their_positions() -> None:
    x = torch.arange(12.0).reshape(1, 6, 2)
    deep = [torch.full((2, 2), -1.0), torch.full((2, 2), -2.0)]
    assert overwrite(x, deep, 0, first=0) is x  # the first block keeps the prompt's own
    assert overwrite(x, deep, 3, first=0) is x  # no set left
    got = overwrite(x, deep, 1, first=0)
    assert torch.equal(got[:, 1:3], deep[0][None])
    assert torch.equal(got[:, [0, 3, 4, 5]], x[:, [0, 3, 4, 5]])
    late = overwrite(x, deep, 2, first=2)  # a suffix from position 2 on: one row is left
    assert torch.equal(late[:, :1], deep[1][None, 1:])
    assert torch.equal(late[:, 1:], x[:, 1:])


def test_a_set_acts_from_its_own_block_on(
    text: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Perturbing set i changes the input of block i+2 and of later ones, never an earlier one,
    and never the start token's row there."""
    tokens = text.tokenize(["X X X X object."])
    embedded = text.embed_tokens(tokens)
    deep = [draw(3, text.width, seed=i) for i in range(3)]
    inputs: list[Tensor] = []
    states = []
    norm = Block.norm

    def recording(block: Block, x: Tensor) -> Tensor:
        inputs.append(x)
        return norm(block, x)

    monkeypatch.setattr(Block, "norm", recording)
    for i in (None, 1):
        changed = [d + 1.0 if j == i else d for j, d in enumerate(deep)]
        text.encode_embeddings(embedded, tokens.eot, changed)
        states.append(list(inputs))
        inputs.clear()
    same = [torch.equal(a, b) for a, b in zip(*states)]
    assert same == [True, True, False, False]
    assert torch.equal(states[0][2][:, 0], states[1][2][:, 0])
    assert torch.equal(states[0][2][:, 4:], states[1][2][:, 4:])


def test_surplus_sets_are_ignored(text: TextEncoder) -> None:
    tokens = text.tokenize(["X X X X object."])
    embedded = text.embed_tokens(tokens)
    deep = [draw(3, text.width, seed=i) for i in range(8)]
    few = text.encode_embeddings(embedded, tokens.eot, deep[: len(text.blocks) - 1])
    assert torch.equal(text.encode_embeddings(embedded, tokens.eot, deep), few)


# ------------------------------------------------------------------- cache, batches, counters
def test_fixed_prompts_are_encoded_once(backbone: Backbone) -> None:
    text = TextEncoder(backbone.model, backbone._tokenize, chunk_tokens=2 * 77)
    first = text.encode_texts(["one", "two longer words", "one", "three"])
    assert text.counters.text_prompts == 3
    assert text.counters.text_calls == 2  # two prompts per chunk
    assert torch.equal(first[0], first[2])
    again = text.encode_texts(["three", "one"])
    assert text.counters.text_prompts == 3
    assert torch.equal(again, first[[3, 0]])
    alone = TextEncoder(backbone.model, backbone._tokenize).encode_texts(["three"])
    torch.testing.assert_close(alone, again[:1], rtol=1e-5, atol=1e-5)


def test_the_cache_is_bounded(backbone: Backbone) -> None:
    text = TextEncoder(backbone.model, backbone._tokenize, cache_size=2)
    got = text.encode_texts(["a", "b", "c"])
    assert len(text._cache) == 2
    torch.testing.assert_close(text.encode_texts(["a"]), got[:1], rtol=1e-5, atol=1e-5)


def test_counted_positions(text: TextEncoder, naive: TextEncoder) -> None:
    for encoder, expected in ((text, 2 * 5 + 2 * 3 * 6), (naive, 2 * 3 * 77)):
        tokens = encoder.tokenize(["X X X X a b c d e", "X X X X a", "X X X X a b"])
        embedded = encoder.embed_tokens(tokens)
        encoder.encode_prefixed(embedded[:2, :5], embedded[None, :, 5:], tokens.eot)
        assert encoder.counters.text_tokens == expected
        assert encoder.counters.text_prompts == 6


def test_weights_stay_frozen(backbone: Backbone, text: TextEncoder) -> None:
    tokens = text.tokenize(["X object."])
    embedded = text.embed_tokens(tokens).requires_grad_()
    text.encode_embeddings(embedded, tokens.eot).sum().backward()
    assert embedded.grad is not None
    assert all(p.grad is None for p in backbone.model.parameters())


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_takes_float32_contexts(
    make_backbone: Callable[..., Backbone], text: TextEncoder, precision: str
) -> None:
    low = make_backbone(precision=precision).text_encoder()
    context = draw(2, 3, text.width, seed=6)
    found = []
    for encoder in (text, low):
        tokens = encoder.tokenize(["X X X object.", "X X X damaged object."])
        embedded = encoder.embed_tokens(tokens)
        prefix = torch.cat([embedded[:1, :1].expand(2, -1, -1).float(), context], 1)
        found.append(encoder.encode_prefixed(prefix, embedded[None, :, 4:], tokens.eot).float())
    cosine = torch.nn.functional.cosine_similarity(found[0], found[1], dim=-1)
    assert cosine.min() > (0.999 if precision == "bf16" else 0.99999)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_the_cpu(make_backbone: Callable[..., Backbone]) -> None:
    backbone = make_backbone()
    expected = backbone.text_encoder().encode_texts(TEXTS)
    got = backbone.to("cuda").text_encoder().encode_texts(TEXTS)
    torch.testing.assert_close(got.cpu(), expected, rtol=1e-4, atol=1e-4)


def test_the_nearest_words_of_embeddings_are_the_words(backbone: Backbone) -> None:
    encoder = backbone.text_encoder()
    words = encoder.embed_tokens(encoder.tokenize(["metal nut with scratch"]))[0, 1:5]
    assert encoder.nearest_words(words + 1e-4) == ["metal", "nut", "with", "scratch"]


# ------------------------------------------------------------------- hooks of trained towers
def test_deep_tokens_of_rows_are_those_of_each_row_by_itself(text: TextEncoder) -> None:
    tokens = text.tokenize(["a photo of a cat", "a dog"])
    words = text.embed_tokens(tokens)
    deep = [torch.randn(3, 1, 2, text.width) for _ in range(2)]
    rows = words.expand(3, -1, -1, -1)
    together = text.encode_embeddings(rows, tokens.ends, deep)
    for i in range(3):
        alone = text.encode_embeddings(words, tokens.ends, [d[i, 0] for d in deep])
        torch.testing.assert_close(together[i], alone, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="do not fit prompts"):
        text.encode_embeddings(words, tokens.ends, [torch.randn(3, 1, 2, text.width)])


def test_adapters_final_rows_and_projection(text: TextEncoder) -> None:
    """They see what a block, the tower's last norm and its projection would see."""
    tokens = text.tokenize(["a photo of a cat", "a dog"])
    words = text.embed_tokens(tokens)
    seen: list[int] = []

    def adapter(layer: int, x: Tensor) -> Tensor:
        seen.append(layer)
        return x

    plain = text.encode_embeddings(words, tokens.ends)
    same = text.encode_embeddings(words, tokens.ends, adapters=adapter, before_final=lambda x: x)
    assert seen == list(range(1, len(text.blocks) + 1))
    torch.testing.assert_close(same, plain, rtol=0, atol=0)
    doubled = text.encode_embeddings(words, tokens.ends, before_final=lambda x: 2 * x)
    torch.testing.assert_close(doubled, plain, rtol=1e-4, atol=1e-4)  # a layer norm follows
    states = text.encode_embeddings(words, tokens.ends, projection=lambda x: x)
    assert states.shape == (2, text.width)
    whole = text.encode_embeddings(words, tokens.ends, adapters={1: lambda x: 0 * x})
    assert not torch.allclose(whole, plain)

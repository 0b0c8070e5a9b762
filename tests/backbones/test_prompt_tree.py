"""Prompts as a tree: by hand, and against every prompt run on its own."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from zsad.backbones import Backbone, TextEncoder
from zsad.backbones.prompt_tree import tree_of

PROMPTS = [
    "X X X abnormal bottle with broken large at top left.",
    "X X X abnormal bottle with broken large at top.",
    "X X X abnormal bottle with broken small at top left.",
    "X X X damaged bottle at top left.",
    "X X X abnormal bottle with broken large at top.",  # twice
    "X X X",
    "word " * 100,  # longer than the context
]


@pytest.fixture
def text(backbone: Backbone) -> TextEncoder:
    return TextEncoder(backbone.model, backbone._tokenize)


@pytest.fixture
def naive(backbone: Backbone) -> TextEncoder:
    return TextEncoder(backbone.model, backbone._tokenize, truncate=False, reuse=False)


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.3


def test_a_tree_by_hand() -> None:
    """0 5 6 9 and 0 5 7 9 share their first two tokens, and so does 0 5 9; one is there twice."""
    tree = tree_of([[0, 5, 6, 9], [0, 5, 7, 9], [0, 5, 9], [0, 5, 6, 9]])
    assert tree.ids.tolist() == [0, 5, 6, 9, 7, 9, 9]
    assert tree.position.tolist() == [0, 1, 2, 3, 2, 3, 2]
    assert tree.ends.tolist() == [3, 5, 6, 3]
    assert tree.visible.int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0],
        [1, 1, 0, 0, 1, 0, 0],
        [1, 1, 0, 0, 1, 1, 0],
        [1, 1, 0, 0, 0, 0, 1],
    ]


def test_learned_positions_are_shared_whatever_their_words() -> None:
    prompts = [[0, 5, 6, 4, 9], [0, 7, 8, 4, 9]]
    assert len(tree_of(prompts).ids) == 9
    tree = tree_of(prompts, learned=2)
    assert len(tree.ids) == 5
    assert tree.position.tolist() == [0, 1, 2, 3, 4]
    assert tree.ends.tolist() == [4, 4]


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    chosen=st.lists(st.sampled_from(PROMPTS), min_size=1, max_size=6),
    rows=st.integers(1, 3),
    learned=st.integers(0, 3),
)
def test_a_tree_equals_every_prompt_alone_with_gradients(
    text: TextEncoder, naive: TextEncoder, chosen: list[str], rows: int, learned: int
) -> None:
    results = []
    for encoder in (text, naive):
        context = draw(rows, learned, text.width, seed=1).requires_grad_() if learned else None
        tokens = encoder.tokenize(chosen)
        features = encoder.encode_tokens(tokens, context)
        gradient = torch.zeros(1)
        if context is not None:
            weight = draw(*features.shape, seed=9)
            (gradient,) = torch.autograd.grad((features * weight).sum(), [context])
        results.append((features.detach(), gradient))
    (got, got_gradient), (expected, expected_gradient) = results
    assert got.shape == (rows if learned else 1, len(chosen), text.embed)
    size = float(expected.square().mean().sqrt())
    torch.testing.assert_close(got / size, expected / size, rtol=0, atol=1e-5)
    size = float(expected_gradient.abs().max()) or 1.0
    torch.testing.assert_close(got_gradient / size, expected_gradient / size, rtol=0, atol=1e-5)


def test_words_without_a_context_are_open_clips(backbone: Backbone, text: TextEncoder) -> None:
    tokens = text.tokenize(PROMPTS)
    model = backbone.model
    expected = model.encode_text(tokens.ids)  # type: ignore[operator]
    size = float(expected.square().mean().sqrt())
    with torch.no_grad():
        got = text.encode_tokens(tokens)[0]
    torch.testing.assert_close(got / size, expected / size, rtol=0, atol=1e-5)


def test_rows_are_cut_to_the_chunk_and_do_not_touch(backbone: Backbone, text: TextEncoder) -> None:
    small = TextEncoder(backbone.model, backbone._tokenize, chunk_tokens=1)
    context = draw(3, 3, text.width, seed=2)
    tokens = text.tokenize(PROMPTS[:4])
    with torch.no_grad():
        together, alone = text.encode_tokens(tokens, context), small.encode_tokens(tokens, context)
    assert (text.counters.text_calls, small.counters.text_calls) == (1, 3)
    assert text.counters.text_tokens == small.counters.text_tokens
    torch.testing.assert_close(alone, together, rtol=1e-5, atol=1e-5)


def test_shared_beginnings_are_counted_once(text: TextEncoder, naive: TextEncoder) -> None:
    """[start X X X abnormal bottle with broken] large at top (left) . end, and small at top."""
    chosen = PROMPTS[:3]
    for encoder, expected in ((text, 8 + 3 + (2 + 1) + 2 + 6), (naive, 3 * 77)):
        with torch.no_grad():
            encoder.encode_tokens(encoder.tokenize(chosen))
        assert encoder.counters.text_tokens == expected
        assert encoder.counters.text_prompts == 3


def test_trees_are_kept_but_not_for_ever(
    text: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zsad.backbones.text.TREES", 2)
    for words in ("a b", "a c", "a d", "a d"):
        with torch.no_grad():
            text.encode_tokens(text.tokenize([words]))
    assert len(text._trees) == 2

"""Attention run by run is attention in one piece; it is used where a head scores, not elsewhere."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from zsad.backbones import Backbone, TextEncoder, load
from zsad.backbones import tree_attention as ta
from zsad.backbones.engines.heads import HeadEngine
from zsad.backbones.prompt_tree import tree_of

STATES = (
    "broken",
    "with a long scratch",
    "with a hole",
    "bent",
    "discoloured",
    "cut open",
    "dirty",
)
PLACES = ("top left", "top", "top right", "left", "middle", "right", "bottom left", "bottom right")
PROMPTS = [f"X X X bottle {s} at {p}." for s in STATES for p in PLACES]


@pytest.fixture
def text(backbone: Backbone) -> TextEncoder:
    return TextEncoder(backbone.model, backbone._tokenize)


def contexts(text: TextEncoder, images: int) -> Tensor:
    return torch.randn(images, 3, text.width, generator=torch.Generator().manual_seed(1)) * 0.3


def test_runs_see_what_their_nodes_see() -> None:
    rows = [(0, state, 20, place, 9) for state in range(5, 15) for place in range(30, 37)]
    tree = tree_of(rows).in_runs()
    assert tree.runs is not None
    for runs, visible in zip(tree.runs, (tree.visible, tree.visible[tree.ends])):
        found = torch.zeros(len(runs.mask) * ta.RUN, len(tree.ids), dtype=torch.bool)
        for i, (keys, mask) in enumerate(zip(runs.keys, runs.mask == 0)):
            for row, marks in enumerate(mask):
                found[i * ta.RUN + row, keys[marks]] = True
        assert torch.equal(found[: len(visible)], visible)
        assert bool((runs.mask == 0).any(-1).all())  # a row without a key would not be a number


def test_what_sees_nearly_everything_stays_in_one_piece() -> None:
    assert tree_of([tuple(range(60))]).in_runs().runs is None
    assert ta.runs_of(torch.ones(40, 40, dtype=torch.bool)) is None


@torch.no_grad()
@pytest.mark.parametrize("images", [1, 3, 40])  # 40: more than run at once
def test_features_are_those_of_one_piece(text: TextEncoder, images: int) -> None:
    tokens, context = text.tokenize(PROMPTS), contexts(text, images)
    whole = text.encode_tokens(tokens, context)
    with ta.used():
        found = text.encode_tokens(tokens, context)
    torch.testing.assert_close(found, whole, rtol=0, atol=2e-6 * float(whole.norm(dim=-1).max()))
    assert not torch.equal(found, whole)
    assert torch.equal(text.encode_tokens(tokens, context), whole)


def test_gradients_are_those_of_one_piece(text: TextEncoder) -> None:
    tokens, context = text.tokenize(PROMPTS), contexts(text, 2).requires_grad_()
    whole = text.encode_tokens(tokens, context)
    with ta.used():
        assert torch.equal(text.encode_tokens(tokens, context), whole)


@torch.no_grad()
def test_fixed_texts_are_kept_apart(text: TextEncoder) -> None:
    """What training reads does not depend on whether something was scored before."""
    with ta.used():
        found = text.encode_texts(PROMPTS)
    whole = text.encode_texts(PROMPTS)
    assert not torch.equal(found, whole)
    torch.testing.assert_close(found, whole, rtol=0, atol=2e-6 * float(whole.norm(dim=-1).max()))
    with ta.used():
        assert torch.equal(text.encode_texts(PROMPTS), found)


@torch.no_grad()
def test_heads_use_it_unless_all_is_left_to_torch() -> None:
    cpu = torch.device("cpu")
    backbone = load("zsad-tiny")
    engine = HeadEngine(backbone)
    assert not ta.wanted(cpu)
    with engine.active():
        assert ta.wanted(cpu)
        with torch.enable_grad():
            assert not ta.wanted(cpu)
        assert not ta.wanted(torch.device("cuda"))
    with backbone.engines.torch_unless_asked(), engine.active():
        assert not ta.wanted(cpu)
    assert not ta.wanted(cpu)

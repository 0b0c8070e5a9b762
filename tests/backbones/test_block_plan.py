"""Only what a request needs is computed."""

from __future__ import annotations

from zsad.backbones.block_plan import BlockNeed, Rows, plan
from zsad.types import Tap

FULL = BlockNeed(attention=Rows.ALL, output=Rows.ALL)


def test_the_class_token_alone_needs_one_row_of_the_last_block() -> None:
    assert plan([Tap("cls")], 3) == [FULL, FULL, BlockNeed(Rows.CLASS, Rows.CLASS)]


def test_blocks_after_the_last_tap_do_not_run() -> None:
    assert plan([Tap("tokens", 2)], 24) == [FULL, FULL]
    assert plan([Tap("pre_tokens"), Tap("window", 2)], 24) == []


def test_the_end_of_a_vv_path_needs_no_ordinary_attention() -> None:
    needs = plan([Tap("vv", 3, 2)], 4)
    assert [n.vv for n in needs] == [False, True, True]
    assert needs[-1] == BlockNeed(vv=True, starts=frozenset([2]))


def test_a_mid_tap_needs_attention_but_no_feed_forward() -> None:
    assert plan([Tap("mid", 1)], 4) == [FULL, BlockNeed(attention=Rows.ALL)]


def test_values_need_only_the_input_of_their_block() -> None:
    assert plan([Tap("values", 2)], 4) == [FULL, BlockNeed(values=True)]


def test_several_starts_share_the_attention_of_a_block() -> None:
    needs = plan([Tap("vv", 4, 2), Tap("vv", 4, 3), Tap("cls")], 4)
    assert [sorted(n.starts) for n in needs] == [[], [2], [2, 3], [2, 3]]
    assert needs[-1].attention is Rows.CLASS

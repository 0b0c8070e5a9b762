"""Reasons that say the same are one; a verdict gets the reasons that fit it."""

from __future__ import annotations

import pytest

from zsad.components.reasons import fitting, gist, merged, nth
from zsad.components.templates import STATES
from zsad.types import Explanation


def reason(text: str, label: str = "anomalous", note: str = "") -> Explanation:
    return Explanation(text, 0.5, label, note=note)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("damaged metal nut", "metal nut with flaw"),
        ("metal nut with a scratch", "scratches"),
        ("a scrape on the nut", "scratched metal nut"),
        ("flawless metal nut", "metal nut without damage"),
        ("metal nut", "perfect metal nut"),
        ("A cropped image of a damaged metal nut", "A medical image of a flawed metal nut"),
        ("An abnormal image of metal nut showing a torn flap", "a torn flap"),
    ],
)
def test_near_synonyms_have_one_gist(one: str, other: str) -> None:
    assert gist(one, "metal nut") == gist(other, "metal nut")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("damaged metal nut", "flawless metal nut"),
        ("metal nut with defect", "metal nut without defect"),
        ("a bent tooth", "a chipped tooth"),
        ("scratch", "crack"),
        ("a scratch on the left", "no scratch on the left"),
        ("hole", "stain"),
    ],
)
def test_what_differs_is_kept_apart(one: str, other: str) -> None:
    assert gist(one, "metal nut") != gist(other, "metal nut")


def test_winclip_s_states_are_two_reasons() -> None:
    """Seven words for a flawless and four for a damaged object say two things."""
    labels = ("normal", "anomalous")
    reasons = [
        reason(state.format("leather"), label)
        for label, states in zip(labels, STATES)
        for state in states
    ]
    found = merged(reasons, "leather")
    assert [r.label for r in found] == ["normal", "anomalous"]
    assert found[1].text == reasons[len(STATES[0])].text  # the best is the one that stays
    assert found[1].note.startswith("also: '")
    assert "and" in found[0].note  # more than are quoted


def test_merging_quotes_the_others_before_the_note() -> None:
    found = merged([reason("damaged nut", note="why"), reason("nut with flaw")], "nut")
    assert [(r.text, r.note) for r in found] == [("damaged nut", "also: 'nut with flaw'; why")]
    twice = merged([reason("scratch", note="why"), reason("scratch")], "nut")
    assert [(r.text, r.note) for r in twice] == [("scratch", "why")]


def test_what_differs_in_grammar_alone_is_not_quoted() -> None:
    texts = [
        "A cropped image of a damaged nut",
        "A close-up image of a damaged nut",
        "nut with flaw",
    ]
    (found,) = merged([reason(t) for t in texts], "nut")
    assert (found.text, found.note) == (texts[0], "also: 'nut with flaw'")


def test_regions_are_never_merged() -> None:
    same = [reason("leaking", "region"), reason("leaking", "region")]
    assert merged(same, "bottle") == same


def test_a_verdict_gets_the_reasons_that_fit() -> None:
    reasons = [
        reason("crack"),
        reason("fine", "normal"),
        reason("hole"),
        reason("there", "region"),
        reason("prompt", "prompt"),
        reason("good", "normal"),
    ]
    normal = fitting(reasons, anomalous=False, most=5)
    assert [(r.text, r.rank) for r in normal] == [("fine", 1), ("good", 2)]
    wrong = fitting(reasons, anomalous=True, most=2)
    assert [(r.text, r.rank) for r in wrong] == [("crack", 1), ("hole", 2), ("there", 1)]
    assert [r.text for r in fitting(reasons, None, 2)] == ["crack", "fine", "there"]
    # with a verdict on its parts alone nobody says that a picture is normal
    assert [r.text for r in fitting(reasons[1:2] + reasons[3:4], None, 2)] == ["there"]
    assert [r.text for r in fitting(reasons[1:2], None, 2)] == ["fine"]
    assert fitting([], None, 5) == fitting(reasons, True, 0) == []
    assert [r.rank for r in reasons] == [0] * 6  # the given ones are left alone


def test_ordinals() -> None:
    assert [nth(i) for i in (1, 2, 3, 4)] == ["", "second ", "third ", "4th "]

"""Prompt ensembles against a text encoder whose features are known."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from zsad.components.prompt_ensemble import encode_ensemble, fill, in_templates, rank_phrases


class Letters:
    """A text encoder whose feature counts the letters a, b and c."""

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        return torch.tensor([[float(t.count(letter)) for letter in "abc"] for t in texts])


def test_the_label_is_the_unit_mean_of_its_prompts() -> None:
    text, templates = Letters(), ("{}", "{}c")
    found = encode_ensemble((["a", "aaa"], ["b"]), text, templates)  # type: ignore[arg-type]
    assert (found.phrases, found.n_normal) == (["a", "aaa", "b"], 2)
    half, tenth = 0.5**0.5, 0.1**0.5
    # units of a, ac, aaa, aaac: (1, 0), (half, half), (1, 0), (3 tenth, tenth) in (a, c)
    normal = torch.tensor([2 + half + 3 * tenth, 0.0, half + tenth])
    torch.testing.assert_close(found.pair[0], normal / normal.norm())
    anomalous = torch.tensor([0.0, 1 + half, half])
    torch.testing.assert_close(found.pair[1], anomalous / anomalous.norm())
    torch.testing.assert_close(found.embeddings[2], found.pair[1])
    raw = encode_ensemble((["a", "aaa"], ["b"]), text, templates, unit_first=False)  # type: ignore[arg-type]
    torch.testing.assert_close(raw.pair[0], torch.tensor([8.0, 0.0, 2.0]) / 68**0.5)


def test_phrases_are_ranked_by_cosine_over_both_labels() -> None:
    found = encode_ensemble((["a", "ac"], ["b"]), Letters())  # type: ignore[arg-type]
    reasons = rank_phrases(torch.tensor([0.6, 0.8, 0.0]), found, 1, "why")  # of each label
    assert [(r.text, r.label, r.rank, r.note) for r in reasons] == [
        ("b", "anomalous", 1, "why"),
        ("a", "normal", 2, "why"),
    ]
    assert [r.similarity for r in reasons] == pytest.approx([0.8, 0.6])
    assert len(rank_phrases(torch.tensor([1.0, 0.0, 0.0]), found, 9)) == 3


def test_names_fill_both_sides() -> None:
    assert fill((["{}", "new {}"], ["{} with hole"]), "nut") == (
        ["nut", "new nut"],
        ["nut with hole"],
    )


def test_phrases_stand_in_every_template_phrase_by_phrase() -> None:
    said = in_templates(["nut", "a nut"], ["{}.", "a photo of {}."])
    assert said == ["nut.", "a photo of nut.", "a nut.", "a photo of a nut."]

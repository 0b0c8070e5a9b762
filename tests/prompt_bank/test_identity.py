"""A checkpoint's name follows the texts that its training read."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from zsad import registry
from zsad.checkpoints import TrainedOn
from zsad.prompt_bank.answers import AnswerStore
from zsad.prompt_bank.kinds import find_kind, image_query_of
from zsad.training.identity import knowledge
from zsad.types import Category


def test_answers_count_only_where_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZSAD_PROMPTS", str(tmp_path))
    entry = registry.method("kanoclip")
    data = TrainedOn("mvtec", "f", "test", "published", ("bottle",), ("a",))

    def of(vqa: str) -> dict[str, object]:
        return knowledge(entry.resolve(("test", {"knpl": {"kb": {"vqa": vqa}}})), data)

    before = of("auto")
    assert before["texts"]
    assert before == of("mask") == of("off")
    store = AnswerStore(tmp_path)
    store.put({"prompt": "p", "model": "m", "image": "00"}, "A dark pit.")
    assert of("auto") == of("endpoint") != before
    assert of("mask") == of("off") == before
    assert knowledge(registry.method("clip").resolve(), data) == {}


def test_only_answers_to_the_present_question_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training with answers to another question, of an earlier version, is not taken for one
    without answers, nor for one with answers to this question."""
    monkeypatch.setenv("ZSAD_PROMPTS", str(tmp_path))
    config = registry.method("kanoclip").resolve()
    data = TrainedOn("mvtec", "f", "test", "published", ("bottle",), ("a",))
    bottle = {"bottle": Category("mvtec", "bottle", "bottle")}
    none = knowledge(config, data, bottle)
    assert "answers" not in none
    store = AnswerStore(tmp_path)
    store.put({"prompt": "an older question", "model": "m", "image": "00"}, "A dark pit.")
    older = knowledge(config, data, bottle)
    assert older["answers"] == []
    query = image_query_of(find_kind("kanoclip"))(bottle["bottle"])
    for sample in (0, 1):  # of two answers about an image one is read, m = 1
        store.put(
            {"prompt": query, "model": "m", "image": "00", "sample": sample},
            f"A dark pit {sample}.",
        )
    (digest,) = knowledge(config, data, bottle)["answers"]
    assert digest == sha256(b"A dark pit 0.").hexdigest()

"""A checkpoint's name follows the texts that its training read."""

from __future__ import annotations

from pathlib import Path

import pytest

from zsad import registry
from zsad.checkpoints import TrainedOn
from zsad.prompt_bank.answers import AnswerStore
from zsad.training.identity import knowledge


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

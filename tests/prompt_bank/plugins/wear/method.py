"""CLIP whose anomalous prompts are the bank's words for what is worn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from zsad.components.prompt_ensemble import EnsembleFeatures, encode_ensemble
from zsad.methods.clip.method import Clip
from zsad.methods.clip.prompts import PromptPair
from zsad.prompt_bank.bank import bank
from zsad.types import Category

if TYPE_CHECKING:
    from zsad.backbones.text import TextEncoder


class Wear(Clip):
    name: ClassVar[str] = "wear"

    def prepare_text(
        self, categories: Sequence[Category], text: TextEncoder
    ) -> dict[str, EnsembleFeatures]:
        out = {}
        for category in categories:
            entry = bank().find("wear", category)
            assert entry is not None
            pair = PromptPair([f"a new {category.class_name}"], list(entry.texts["worn"]))
            out[category.key] = encode_ensemble(pair, text)
        return out

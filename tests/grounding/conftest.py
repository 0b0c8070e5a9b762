"""A text encoder for detectors that are built at their real size but for BERT."""

from __future__ import annotations

from pathlib import Path

import pytest

from zsad import torchvision_compat

WORDS = ("anomaly", "damage", "broken", "defect", "contamination", "crack")
SPECIAL = {
    "[PAD]": 0,
    "[UNK]": 100,
    "[CLS]": 101,
    "[SEP]": 102,
    "[MASK]": 103,
    ".": 1012,
    "?": 1029,
}


def write_vocabulary(folder: Path, numbers: dict[str, int]) -> None:
    """A vocabulary that has words at given places."""
    lines = [f"[unused{i}]" for i in range(max(numbers.values()) + 1)]
    for word, number in numbers.items():
        lines[number] = word
    (folder / "vocab.txt").write_text("\n".join(lines) + "\n")
    (folder / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "BertTokenizer", "do_lower_case": true}'
    )


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the vocabulary and configuration of a tiny BERT, and no weights.

    The tokens that part phrases stand where bert-base-uncased has them."""
    pytest.importorskip("transformers", reason="transformers is an optional extra")
    transformers = torchvision_compat.transformers
    folder = tmp_path_factory.mktemp("bert")
    write_vocabulary(folder, {**SPECIAL, **{word: 1030 + i for i, word in enumerate(WORDS)}})
    transformers.BertConfig(
        vocab_size=1030 + len(WORDS),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
    ).save_pretrained(folder)
    return folder

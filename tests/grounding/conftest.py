"""A text encoder for detectors that are built at their real size but for BERT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

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


def recipe(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights that follow from the shapes and a seed, in order: scaled by their inputs, so that
    activations neither fade nor grow, and nothing at its initial zeros and ones."""
    generator = torch.Generator().manual_seed(1)
    found = {}
    for name, value in state.items():
        noise = torch.randn(value.shape, generator=generator)
        if not value.is_floating_point():
            found[name] = value
        elif value.ndim > 1:
            found[name] = noise / value[0].numel() ** 0.5
        else:
            centre = 1.0 if name.endswith("weight") else 0.1 if "gamma" in name else 0.0
            found[name] = centre + 0.1 * noise
    return found


@pytest.fixture(scope="session")
def official(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A Swin-T file as the authors write one, and the loaded model of groundingdino-py."""
    pytest.importorskip("groundingdino", reason="groundingdino-py is an optional extra")
    from zsad.grounding import grounding_dino

    model = grounding_dino.build("swin_t", encoder).eval()
    model.load_state_dict(recipe(model.state_dict()))
    state = {f"module.{k}": v for k, v in model.state_dict().items()}
    state["module.label_enc.weight"] = torch.zeros(2)
    path = tmp_path_factory.mktemp("official") / "groundingdino_swint_ogc.pth"
    torch.save({"model": state, "epoch": 3}, path)
    return path, model

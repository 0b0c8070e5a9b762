"""transformers' Grounding DINO for real: a tiny saved model with random weights, then a picture."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from zsad import torchvision_compat
from zsad.errors import WeightsError
from zsad.grounding.interface import DetectorOptions, find

torchvision_compat.ensure()
transformers = pytest.importorskip("transformers", reason="transformers is an optional extra")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", "anomaly", "damage", "crack"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model: one encoder and one decoder layer, width 32, a tiny Swin and a tiny BERT."""
    place = tmp_path_factory.mktemp("dino")
    (place / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    transformers.BertTokenizer(str(place / "vocab.txt")).save_pretrained(place)
    swin = transformers.SwinConfig(
        image_size=64,
        embed_dim=16,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=4,
        out_indices=[2, 3, 4],
    )
    text = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
    )
    config = transformers.GroundingDinoConfig(
        backbone_config=swin,
        text_config=text,
        num_queries=9,
        encoder_layers=1,
        decoder_layers=1,
        d_model=32,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
    )
    torch.manual_seed(0)
    transformers.GroundingDinoForObjectDetection(config).save_pretrained(place)
    return place


def options(folder: Path, **changes: float) -> DetectorOptions:
    values = {"box_threshold": 0.0, "text_threshold": 0.0, **changes}
    return DetectorOptions(weights=str(folder), short_side=64, max_side=96, **values)  # type: ignore[arg-type]


def test_a_picture_becomes_boxes_with_known_words(folder: Path) -> None:
    handle = find("transformers", options(folder))
    assert handle.info["weights_sha256"]
    detect = handle.load()
    picture = Image.new("RGB", (90, 60), (90, 120, 150))
    answer = detect(picture, ["anomaly", "crack"])
    assert len(answer.boxes) == len(answer.scores) == len(answer.phrases) == 9
    assert all(0 <= v <= 1 for box in answer.boxes for v in box)
    assert all(0 <= s <= 1 for s in answer.scores)
    words = {w for phrase in answer.phrases for w in phrase.replace(".", " ").split()}
    assert words <= {"anomaly", "crack"}
    assert detect(picture, ["anomaly", "crack"]) == answer  # no randomness left


def test_a_threshold_drops_boxes(folder: Path) -> None:
    picture = Image.new("RGB", (90, 60), (90, 120, 150))
    everything = find("transformers", options(folder)).load()(picture, ["crack"])
    middle = sorted(everything.scores)[4]
    fewer = find("transformers", options(folder, box_threshold=middle)).load()(picture, ["crack"])
    assert 0 < len(fewer.boxes) < len(everything.boxes)
    assert min(fewer.scores) >= middle


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"config\.json is missing"):
        find("transformers", options(tmp_path))

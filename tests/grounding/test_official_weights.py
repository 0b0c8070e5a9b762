"""The authors' weight file in both packages: the same boxes; and what is no such file."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.grounding.conftest import WORDS, write_vocabulary
from zsad.errors import WeightsError
from zsad.grounding import dino, official_state, transformers_dino
from zsad.grounding.interface import DetectorOptions
from zsad.grounding.provider import require

CAPTION = "anomaly . crack . damage ."
SIZES = [(3, 200, 260), (3, 133, 400)]  # pixels; the second has stages smaller than a window


@pytest.mark.slow
def test_both_packages_give_the_same_boxes(official: tuple[Path, Any], encoder: Path) -> None:
    path, theirs = official
    options = DetectorOptions(weights=str(path), text_encoder=str(encoder), box_threshold=0.5)
    ours: Any = transformers_dino.handle(options).load()
    # In double precision: rounding would let proposals of nearly equal scores change places.
    theirs.double(), ours.model.double()
    text = ours.tokenizer(CAPTION, return_tensors="pt")

    def phrase(above: Tensor) -> str:
        return " ".join(map(str, above.nonzero().flatten().tolist()))

    for size in SIZES:
        image = Image.effect_noise((size[2], size[1]), 90).convert("RGB")
        pixels = dino.picture(image, min(size[1:]), 1333)[None].double()
        with torch.no_grad():
            expected = theirs(pixels, captions=[CAPTION])
            with ours.arithmetic:
                found = ours.model(pixel_values=pixels, **text)
        torch.testing.assert_close(found.pred_boxes, expected["pred_boxes"], atol=1e-4, rtol=0)
        torch.testing.assert_close(
            found.logits.sigmoid(), expected["pred_logits"].sigmoid(), atol=1e-4, rtol=0
        )
        assert float(expected["pred_boxes"].std(dim=1).min()) > 0.001  # boxes that differ
        answers = [
            dino.read_answer(logits[0], boxes[0], phrase, options)
            for logits, boxes in (
                (found.logits, found.pred_boxes),
                (expected["pred_logits"], expected["pred_boxes"]),
            )
        ]
        assert answers[0].phrases == answers[1].phrases
        assert len(answers[0].boxes) > 1


def test_small_boxes_are_those_of_the_authors_code() -> None:
    share = torch.tensor([0.0, 1e-4, 1e-3, 0.25, 0.9999])
    with transformers_dino.AuthorsArithmetic():
        found = torch.special.logit(share, eps=1e-5)
    known = torch.tensor([math.log(1e-3), math.log(1e-3 / 0.9999), math.log(1e-3 / 0.999)])
    torch.testing.assert_close(found[:3], known)
    torch.testing.assert_close(found[3:], torch.tensor([math.log(1 / 3), math.log(0.9999 / 1e-3)]))
    assert float(torch.special.logit(share, eps=1e-5)[0]) == pytest.approx(math.log(1e-5), abs=1e-3)


@pytest.mark.slow
def test_a_file_is_reported_and_a_part_of_it_refused(
    official: tuple[Path, Any], encoder: Path, tmp_path: Path
) -> None:
    path, _ = official
    lines = transformers_dino.key_report(path, str(encoder))
    assert lines[0] == "Grounding DINO, swin_t"
    assert lines[2].startswith("ignored: bert.pooler.dense.bias, ")
    state = torch.load(path, weights_only=True)["model"]
    part = tmp_path / "part.pth"
    torch.save({k: v for k, v in state.items() if "decoder.layers.5" not in k}, part)
    with pytest.raises(WeightsError, match=r"part\.pth: not a Grounding DINO state; \d+ tensors"):
        transformers_dino.build(part, encoder)


HEAD = {official_state.PATCH_EMBEDDING: torch.zeros(96, 3, 4, 4)}


@pytest.mark.parametrize(
    "wrapped",
    [
        HEAD,
        {"model": HEAD},
        {"state_dict": {f"module.{k}": v for k, v in HEAD.items()}},
        {"model_state_dict": {"model": {f"module.model.{k}": v for k, v in HEAD.items()}}},
    ],
)
def test_what_training_leaves_around_a_state_is_taken_off(tmp_path: Path, wrapped: Any) -> None:
    torch.save(wrapped, tmp_path / "a.pth")
    state = official_state.read_state(tmp_path / "a.pth")
    assert list(state) == [official_state.PATCH_EMBEDDING]
    assert official_state.swin_of(state, "a.pth").name == "swin_t"


def _torch(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


POINTER = (
    b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 692177251\n"
)
MMDET = {"state_dict": {"backbone.patch_embed.projection.weight": torch.zeros(2)}}
WIDE = {"model": {official_state.PATCH_EMBEDDING: torch.zeros(64, 3, 4, 4)}}


@pytest.mark.parametrize(
    "content,message",
    [
        (_torch({"model": HEAD})[:-300], "not a readable weight file"),
        (b"", "it is empty"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "an HTML or XML page"),
        (POINTER, "Git LFS"),
        (_torch({"weight": torch.zeros(2)}), "no Grounding DINO state"),
        (_torch(MMDET), "no Grounding DINO state"),
        (_torch(WIDE), "width 64 is neither Swin-T nor Swin-B"),
        (_torch({"model": {**HEAD, "feat_map.bias": torch.tensor([float("nan")])}}), "not finite"),
        (_torch({"model": {**HEAD, "hook": Path("x")}}), "objects other than tensors"),
    ],
)
def test_a_file_that_is_no_detector_is_named_in_one_line(
    encoder: Path, tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "dino.pth"
    path.write_bytes(content)
    options = {"weights": str(path), "text_encoder": str(encoder), "enabled": "auto"}
    with pytest.raises(WeightsError, match=message) as found:
        require(options, ["mvtec"], "filo")
    assert str(found.value).startswith(f"filo: {path}")
    assert "\n" not in str(found.value)


def test_a_vocabulary_whose_phrases_would_run_together_is_refused(
    encoder: Path, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text((encoder / "config.json").read_text())
    names = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", *WORDS)
    write_vocabulary(tmp_path, {word: i for i, word in enumerate(names)})
    options = DetectorOptions(weights="random", text_encoder=str(tmp_path))
    with pytest.raises(WeightsError, match=r"'\[CLS\]' is token 2 of this vocabulary, not 101"):
        transformers_dino.handle(options).load()

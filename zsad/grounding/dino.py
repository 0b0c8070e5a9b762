"""What every Grounding DINO shares: the picture it sees, and how its answer is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from zsad.grounding.interface import DetectorOptions
from zsad.types import Boxes

MEAN = (0.485, 0.456, 0.406)  # ImageNet
STD = (0.229, 0.224, 0.225)


def caption(phrases: Sequence[str]) -> str:
    """Join phrases to the text that Grounding DINO expects: lower case, each ended by a dot."""
    text = " . ".join(phrases).lower().strip()
    return text if text.endswith(".") else f"{text}."


def picture(image: Image.Image, short_side: int, max_side: int) -> Tensor:
    """Scale to ``short_side`` pixels (long side at most ``max_side``) and normalise: [3, H, W].

    The rule is DETR's, truncations included; bilinear with PIL's antialiasing.
    """
    width, height = image.size
    short, long = min(width, height), max(width, height)
    if long / short * short_side > max_side:
        short_side = round(max_side * short / long)
    if short != short_side:
        if width < height:
            size = (short_side, int(short_side * height / width))
        else:
            size = (int(short_side * width / height), short_side)
        image = image.resize(size, Image.Resampling.BILINEAR)
    values = torch.from_numpy(np.array(image.convert("RGB"), dtype=np.float32) / 255)
    return ((values - torch.tensor(MEAN)) / torch.tensor(STD)).permute(2, 0, 1)


def decoder(tokenizer: Any, ids: Sequence[int]) -> Callable[[Tensor], str]:
    """What :func:`read_answer` decodes tokens by: ``ids`` of the caption, as ``tokenizer`` made
    them; the positions behind them hold nothing."""

    def phrase(above: Tensor) -> str:
        tokens = [ids[i] for i in above.nonzero().flatten().tolist() if i < len(ids)]
        return str(tokenizer.decode(tokens, skip_special_tokens=True))

    return phrase


def read_answer(
    logits: Tensor,
    boxes: Tensor,
    phrase: Callable[[Tensor], str],
    options: DetectorOptions,
) -> Boxes:
    """Turn query logits [Q, S] over text tokens and boxes [Q, 4] into an answer.

    It holds every query above the box threshold, and the highest one in any case: whoever
    filters by area or by words can fall back on it.  ``phrase`` decodes the tokens [S] (bool)
    above the text threshold.
    """
    probabilities = logits.float().sigmoid().cpu()
    scores = probabilities.max(dim=1).values
    keep = scores > options.box_threshold
    keep[scores.argmax()] = True
    chosen = keep.nonzero().flatten()
    return Boxes(
        boxes.float().cpu()[chosen].tolist(),
        scores[chosen].tolist(),
        [phrase(probabilities[i] > options.text_threshold).strip() for i in chosen],
    )

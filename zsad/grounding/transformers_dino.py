"""Grounding DINO as the package transformers has it, from a local folder."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zsad.errors import WeightsError
from zsad.grounding import dino
from zsad.grounding.interface import DetectorOptions, Handle
from zsad.io import sha256_file
from zsad.io.names import at_home
from zsad.types import Boxes

if TYPE_CHECKING:
    from PIL.Image import Image

WEIGHTS = "model.safetensors"


def handle(options: DetectorOptions) -> Handle:
    """Say that the detector can be had, without loading it.  Raises :class:`WeightsError`."""
    if importlib.util.find_spec("transformers") is None:
        raise WeightsError("the package transformers is not installed; install zsad[grounding]")
    folder = at_home(options.weights)
    missing = [n for n in ("config.json", WEIGHTS) if not (folder / n).is_file()]
    if missing:
        raise WeightsError(
            f"grounding.weights={options.weights}: the detector 'transformers' needs the folder "
            f"of a saved model; {missing[0]} is missing there"
        )
    digest = sha256_file(folder / WEIGHTS)
    identity = (
        f"transformers/{digest}/{options.box_threshold}/{options.text_threshold}/"
        f"{options.short_side}/{options.max_side}"
    )
    info = {"detector": "transformers", "weights": folder.name, "weights_sha256": digest}
    return Handle(lambda: TransformersDino.load(options, folder), identity, info)


@dataclass
class TransformersDino:
    """A loaded detector: call it with a picture and phrases."""

    model: Any
    tokenizer: Any
    options: DetectorOptions

    @classmethod
    def load(cls, options: DetectorOptions, folder: Path) -> TransformersDino:
        """Load model and tokenizer from a folder, safetensors only."""
        from zsad.torchvision_compat import transformers

        model = transformers.AutoModelForZeroShotObjectDetection.from_pretrained(
            folder, local_files_only=True, use_safetensors=True
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            options.text_encoder or folder, local_files_only=True
        )
        return cls(model.to(options.device).eval(), tokenizer, options)

    @torch.no_grad()
    def __call__(self, image: Image, phrases: Sequence[str]) -> Boxes:
        """Detect: boxes as fractions of the image, scores in [0, 1], matched words."""
        pixels = dino.picture(image, self.options.short_side, self.options.max_side)
        text = self.tokenizer(dino.caption(phrases), return_tensors="pt").to(self.options.device)
        out = self.model(pixel_values=pixels[None].to(self.options.device), **text)
        ids = text["input_ids"][0].tolist()

        def phrase(above: Tensor) -> str:
            tokens = [ids[i] for i in above.nonzero().flatten().tolist() if i < len(ids)]
            return str(self.tokenizer.decode(tokens, skip_special_tokens=True))

        return dino.read_answer(out.logits[0], out.pred_boxes[0], phrase, self.options)

"""Grounding DINO through the package groundingdino-py (Liu et al. 2023).

Weights: :mod:`zsad.grounding.official_state`.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zsad import torchvision_compat
from zsad.errors import WeightsError, counted, few
from zsad.grounding import dino, official_state, weight_files
from zsad.grounding.interface import DetectorOptions, Handle
from zsad.grounding.official_state import UNUSED, read_state, swin_of
from zsad.types import Boxes

if TYPE_CHECKING:
    from PIL.Image import Image

CONFIGS = {"swin_t": "GroundingDINO_SwinT_OGC", "swin_b": "GroundingDINO_SwinB_cfg"}


def handle(options: DetectorOptions) -> Handle:
    """Say that the detector can be had, without loading it.  Raises :class:`WeightsError`."""
    if importlib.util.find_spec("groundingdino") is None:
        raise WeightsError(
            "the package groundingdino-py is not installed; install zsad[groundingdino], or set "
            "grounding=none or grounding=FILE"
        )
    encoder = weight_files.text_encoder(options.text_encoder)
    path = _file(weight_files.locate(options.weights), options)
    digest = weight_files.digest(path)
    identity = (
        f"groundingdino/{digest}/{options.box_threshold}/{options.text_threshold}/"
        f"{options.short_side}/{options.max_side}"
    )
    info = {
        "detector": "groundingdino-py",
        "weights": options.weights if path is None else path.name,
        "weights_sha256": digest,
        "stock": path is not None and path.name in weight_files.STOCK.values(),
    }

    def check() -> None:
        if path is not None:
            official_state.check(path)

    return Handle(lambda: GroundingDino.load(options, path, encoder), identity, info, check)


def _file(path: Path | None, options: DetectorOptions) -> Path | None:
    """The file; a folder is of the other detector.  Raises :class:`WeightsError`."""
    if path is not None and path.is_dir():
        raise WeightsError(
            f"grounding.weights={options.weights}: a folder that transformers saved; give the .pth "
            "file, or grounding.detector=transformers"
        )
    return path


@dataclass
class GroundingDino:
    """A loaded detector: call it with a picture and phrases."""

    model: Any
    options: DetectorOptions

    @classmethod
    def load(cls, options: DetectorOptions, path: Path | None, encoder: Path) -> GroundingDino:
        """Build the architecture that the weights imply, and load them."""
        state = None if path is None else read_state(path)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # for weights=random; others are overwritten
            model = build(
                swin_of(state, path).name if state is not None and path else "swin_t", encoder
            )
        if state is not None:
            report = load_state(model, state)
            if report.missing:
                raise WeightsError(
                    f"{path}: not a Grounding DINO state; "
                    f"{counted(len(report.missing), 'tensor is', 'tensors are')} "
                    f"missing, first '{report.missing[0]}'"
                )
        return cls(model.to(options.device).eval(), options)

    @torch.no_grad()
    def __call__(self, image: Image, phrases: Sequence[str]) -> Boxes:
        """Detect: boxes as fractions of the image, scores in [0, 1], matched words."""
        text = dino.caption(phrases)
        pixels = dino.picture(image, self.options.short_side, self.options.max_side)
        out = self.model(pixels[None].to(self.options.device), captions=[text])
        ids = self.model.tokenizer(text)["input_ids"]

        phrase = dino.decoder(self.model.tokenizer, ids)
        return dino.read_answer(out["pred_logits"][0], out["pred_boxes"][0], phrase, self.options)


# ----------------------------------------------------------------------------------- building
def build(architecture: str, encoder: Path) -> Any:
    """Return the untrained model; parameters are a function of torch's seed.

    ``encoder``: folder of BERT's configuration and vocabulary.  BERT's own weights need not be
    in it, since a detector's state carries them.
    """
    torchvision_compat.ensure()
    with contextlib.redirect_stdout(sys.stderr):  # the package prints while it is built
        models = importlib.import_module("groundingdino.models")
        values = vars(importlib.import_module(f"groundingdino.config.{CONFIGS[architecture]}"))
        settings = {k: v for k, v in values.items() if not k.startswith("_")}
        settings |= {
            "text_encoder_type": str(encoder),
            "use_checkpoint": False,  # saves memory in training, costs time here
            "use_transformer_ckpt": False,
        }
        with _bert_by_configuration():
            return models.build_model(SimpleNamespace(**settings))


@contextlib.contextmanager
def _bert_by_configuration() -> Iterator[None]:
    """Let the package build BERT from its configuration alone while the model is built.

    It would insist on pretrained weights, which the detector's state replaces anyway.
    """
    from zsad.torchvision_compat import transformers

    loader: Any = importlib.import_module("groundingdino.util.get_tokenlizer")
    original = loader.get_pretrained_language_model
    loader.get_pretrained_language_model = lambda folder: transformers.BertModel(
        transformers.BertConfig.from_pretrained(folder)
    )
    try:
        yield
    finally:
        loader.get_pretrained_language_model = original


# ------------------------------------------------------------------------------------ weights
@dataclass(frozen=True)
class KeyReport:
    """Which tensors of a file fit the model: names, and why others do not."""

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]

    def lines(self) -> list[str]:
        """The report in words."""
        out = [f"tensors taken: {len(self.matched)}"]
        for label, names in (("missing", self.missing), ("ignored", self.unexpected)):
            if names:
                out.append(f"{label}: {few(names)}")
        return out


def load_state(model: Any, state: Mapping[str, Tensor]) -> KeyReport:
    """Load what fits and report the rest; missing are only tensors that the answer needs."""
    own = {k: v.shape for k, v in model.state_dict().items()}
    fitting = {k: v for k, v in state.items() if k in own and own[k] == v.shape}
    missing = sorted(k for k in own if k not in fitting and not k.startswith(UNUSED))
    unexpected = sorted(k for k in state if k not in fitting)
    model.load_state_dict(fitting, strict=False)
    return KeyReport(tuple(sorted(fitting)), tuple(missing), tuple(unexpected))


def key_report(path: Path, text_encoder: str | None = None) -> list[str]:
    """Check a weight file against the architecture that it implies; return the report."""
    state = read_state(path)
    architecture = swin_of(state, path).name
    encoder = weight_files.text_encoder(text_encoder)
    report = load_state(build(architecture, encoder), state)
    return [f"Grounding DINO, {architecture}", *report.lines()]

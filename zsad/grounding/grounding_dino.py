"""Grounding DINO through the package groundingdino-py (Liu et al. 2023).

Weights are read with ``weights_only=True``: the published Swin-T and Swin-B files, fine-tuned
ones, with or without the wrappers that training scripts leave around a state.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zsad import torchvision_compat
from zsad.backbones.tensor_files import check_values, read_tensors
from zsad.backbones.weights import cache_folders
from zsad.errors import WeightsError
from zsad.grounding import dino
from zsad.grounding.interface import DetectorOptions, Handle
from zsad.io import sha256_file
from zsad.io.names import at_home
from zsad.types import Boxes

if TYPE_CHECKING:
    from PIL.Image import Image

STOCK = {"swin_t": "groundingdino_swint_ogc.pth", "swin_b": "groundingdino_swinb_cogcoor.pth"}
CONFIGS = {"swin_t": "GroundingDINO_SwinT_OGC", "swin_b": "GroundingDINO_SwinB_cfg"}
PATCH_EMBEDDING = "backbone.0.patch_embed.proj.weight"
ARCHITECTURES = {96: "swin_t", 128: "swin_b"}  # by the width of the patch embedding
UNUSED = ("label_enc.", "bert.embeddings.position_ids", "bert.pooler.")  # of the published files


def handle(options: DetectorOptions) -> Handle:
    """Say that the detector can be had, without loading it.  Raises :class:`WeightsError`."""
    if importlib.util.find_spec("groundingdino") is None:
        raise WeightsError(
            "the package groundingdino-py is not installed; install zsad[grounding], or set "
            "grounding=none or grounding=FILE"
        )
    encoder = dino.text_encoder_folder(options.text_encoder, cache_folders())
    path = None if options.weights == "random" else find_weights(options.weights)
    digest = "random" if path is None else _digest(path, path.stat().st_mtime_ns)
    identity = (
        f"groundingdino/{digest}/{options.box_threshold}/{options.text_threshold}/"
        f"{options.short_side}/{options.max_side}"
    )
    info = {
        "detector": "groundingdino-py",
        "weights": options.weights if path is None else path.name,
        "weights_sha256": digest,
        "stock": path is not None and path.name in STOCK.values(),
    }
    return Handle(lambda: GroundingDino.load(options, path, encoder), identity, info)


def find_weights(option: str) -> Path:
    """Return the weight file that ``grounding.weights`` names.  Raises :class:`WeightsError`."""
    if option != "stock":
        path = at_home(option)
        if not path.is_file():
            raise WeightsError(f"grounding.weights={option}: no such file")
        return path
    folders = cache_folders()
    for folder in folders:
        for name in STOCK.values():
            if (folder / name).is_file():
                return folder / name
    from huggingface_hub import try_to_load_from_cache

    for name in STOCK.values():
        hit = try_to_load_from_cache("ShilongLiu/GroundingDINO", name)
        if isinstance(hit, str):
            return Path(hit)
    raise WeightsError(
        f"no Grounding DINO weights here: put {STOCK['swin_t']} (its authors publish it) into "
        f"{folders[0]}, or set grounding.weights=FILE, grounding=FILE.json or grounding=none"
    )


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
            model = build(_architecture(state, path), encoder)
        if state is not None:
            report = load_state(model, state)
            if report.missing:
                raise WeightsError(
                    f"{path}: not a Grounding DINO state; {len(report.missing)} tensors are "
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

        def phrase(above: Tensor) -> str:
            tokens = [ids[i] for i in above.nonzero().flatten().tolist() if i < len(ids)]
            return str(self.model.tokenizer.decode(tokens, skip_special_tokens=True))

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
                more = f" and {len(names) - 3} more" if len(names) > 3 else ""
                out.append(f"{label}: {', '.join(names[:3])}{more}")
        return out


def is_state(state: Any) -> bool:
    """Whether a loaded file is a Grounding DINO state (of either package version)."""
    return isinstance(state, Mapping) and PATCH_EMBEDDING in _unwrapped(state)


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a weight file safely.  Raises :class:`WeightsError`."""
    raw = read_tensors(path)
    if not is_state(raw):
        raise WeightsError(f"{path}: no Grounding DINO state ('{PATCH_EMBEDDING}' is missing)")
    state = _unwrapped(raw)
    # positions and indices are whole numbers
    indices = {k for k, v in state.items() if isinstance(v, Tensor) and v.dtype == torch.int64}
    check_values(path, {k: v for k, v in state.items() if k not in indices})
    return state


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
    architecture = _architecture(state, path)
    encoder = dino.text_encoder_folder(text_encoder, cache_folders())
    report = load_state(build(architecture, encoder), state)
    return [f"Grounding DINO, {architecture}", *report.lines()]


def _unwrapped(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Strip what training scripts leave around a state: a "model" entry, "module." prefixes."""
    inner = state.get("model", state)
    if not isinstance(inner, Mapping):
        return {}
    return {str(k).removeprefix("module."): v for k, v in inner.items()}


def _architecture(state: Mapping[str, Tensor] | None, path: Path | None) -> str:
    if state is None:
        return "swin_t"
    width = int(state[PATCH_EMBEDDING].shape[0])
    if width not in ARCHITECTURES:
        raise WeightsError(f"{path}: patch embedding of width {width} is neither Swin-T nor Swin-B")
    return ARCHITECTURES[width]


@lru_cache(maxsize=8)
def _digest(path: Path, changed_ns: int) -> str:
    return sha256_file(path)

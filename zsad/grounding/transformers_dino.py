"""Grounding DINO as the package transformers has it: the detector that is used by default.

Weights: the authors' files, whose tensors are renamed (:mod:`zsad.grounding.official_state`), or
the folder of a model that transformers saved, safetensors only.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from zsad.errors import WeightsError, counted, few
from zsad.grounding import dino, official_state, weight_files
from zsad.grounding.interface import DetectorOptions, Handle
from zsad.types import Boxes

if TYPE_CHECKING:
    from PIL.Image import Image

# Tokens that part the phrases of a caption, by their numbers in the vocabulary that transformers'
# code has written into it (bert-base-uncased's).
SEPARATORS = {"[CLS]": 101, "[SEP]": 102, ".": 1012, "?": 1029}

BORDER = 1e-3  # of coordinates, as shares of the image; the authors' code


def handle(options: DetectorOptions) -> Handle:
    """Say that the detector can be had, without loading it.  Raises :class:`WeightsError`."""
    if importlib.util.find_spec("transformers") is None:
        raise WeightsError(
            "the package transformers is not installed; install zsad[grounding], or set "
            "grounding=none or grounding=FILE"
        )
    path = weight_files.locate(options.weights)
    if path is None or path.is_file():
        encoder = weight_files.text_encoder(options.text_encoder)
    else:
        missing = [n for n in weight_files.SAVED if not (path / n).is_file()]
        if missing:
            raise WeightsError(
                f"grounding.weights={options.weights}: the detector 'transformers' needs a weight "
                f"file, or the folder of a saved model; {missing[0]} is missing there"
            )
        encoder = Path(options.text_encoder or path)
    digest = weight_files.digest(path)
    info = {
        "detector": "transformers",
        "weights": options.weights if path is None else path.name,
        "weights_sha256": digest,
        "stock": path is not None and path.name in weight_files.STOCK.values(),
    }

    def check() -> None:
        if path is not None and path.is_file():
            official_state.check(path)

    return Handle(
        lambda: TransformersDino.load(options, path, encoder),
        identity(options, digest),
        info,
        check,
    )


def identity(options: DetectorOptions, digest: str) -> str:
    """What changes the detector's answers, in one line."""
    return (
        f"transformers/{digest}/{options.box_threshold}/{options.text_threshold}/"
        f"{options.short_side}/{options.max_side}"
    )


@dataclass
class TransformersDino:
    """A loaded detector: call it with a picture and phrases.

    ``arithmetic``: entered around the model; that of its authors for a file of theirs."""

    model: Any
    tokenizer: Any
    options: DetectorOptions
    arithmetic: AbstractContextManager[Any]

    @classmethod
    def load(cls, options: DetectorOptions, path: Path | None, encoder: Path) -> TransformersDino:
        """Load the weights and BERT's vocabulary.  Raises :class:`WeightsError`."""
        from zsad.torchvision_compat import transformers

        tokenizer = transformers.AutoTokenizer.from_pretrained(encoder, local_files_only=True)
        if path is not None and path.is_dir():
            model = transformers.AutoModelForZeroShotObjectDetection.from_pretrained(
                path, local_files_only=True, use_safetensors=True
            )
            return cls(model.to(options.device).eval(), tokenizer, options, nullcontext())
        _check_vocabulary(tokenizer, encoder)
        model = build(path, encoder)
        return cls(model.to(options.device).eval(), tokenizer, options, AuthorsArithmetic())

    @torch.no_grad()
    def __call__(self, image: Image, phrases: Sequence[str]) -> Boxes:
        """Detect: boxes as fractions of the image, scores in [0, 1], matched words."""
        pixels = dino.picture(image, self.options.short_side, self.options.max_side)
        text = self.tokenizer(dino.caption(phrases), return_tensors="pt").to(self.options.device)
        with self.arithmetic:
            out = self.model(pixel_values=pixels[None].to(self.options.device), **text)
        phrase = dino.decoder(self.tokenizer, text["input_ids"][0].tolist())

        return dino.read_answer(out.logits[0], out.pred_boxes[0], phrase, self.options)


class AuthorsArithmetic(TorchFunctionMode):
    """Within it the inverse sigmoid of coordinates stops at 0.001 from both borders.

    So it does in the authors' code; in transformers at 0.00001, which moves the borders of very
    small and very large boxes.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Replace the one function, and call all others."""
        if func is not torch.special.logit:
            return func(*args, **(kwargs or {}))
        share = args[0].clamp(0, 1)
        return torch.log(share.clamp(min=BORDER) / (1 - share).clamp(min=BORDER))


def build(path: Path | None, encoder: Path) -> Any:
    """The model with the weights of the authors' file; random ones for None, of a fixed seed.

    ``encoder``: folder of BERT's configuration; BERT's own weights stand in the file.
    Raises :class:`WeightsError` for a file that cannot be read, or lacks tensors.
    """
    from zsad.torchvision_compat import transformers

    if path is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            config = _config(official_state.SWINS[96], encoder)
            return transformers.GroundingDinoForObjectDetection(config)
    state = official_state.read_state(path)
    return _loaded(path, state, encoder)


def key_report(path: Path, text_encoder: str | None = None) -> list[str]:
    """Check a weight file of the authors against the model; return what was taken from it."""
    state = official_state.read_state(path)
    _loaded(path, state, weight_files.text_encoder(text_encoder))
    ignored = sorted(k for k in state if k.startswith(official_state.UNUSED))
    lines = [
        f"Grounding DINO, {official_state.swin_of(state, path).name}",
        f"tensors taken: {len(state) - len(ignored)}",
    ]
    if ignored:
        lines.append(f"ignored: {few(ignored)}")
    return lines


def _config(swin: official_state.Swin, encoder: Path) -> Any:
    from zsad.torchvision_compat import transformers

    return transformers.GroundingDinoConfig(
        backbone_config=transformers.SwinConfig(
            embed_dim=swin.width,
            depths=list(swin.depths),
            num_heads=list(swin.heads),
            window_size=swin.window,
            image_size=swin.image_size,
            out_indices=[2, 3, 4],
        ),
        text_config=transformers.BertConfig.from_pretrained(encoder),
    )


def _loaded(path: Path, state: Mapping[str, Tensor], encoder: Path) -> Any:
    from zsad.torchvision_compat import transformers

    config = _config(official_state.swin_of(state, path), encoder)
    kind = transformers.GroundingDinoForObjectDetection
    with _quiet(transformers):
        # by the names of published files, which every version of the package can read
        model, report = kind.from_pretrained(
            None,
            config=config,
            state_dict=official_state.renamed(state),
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    _check_complete(path, report)
    return model


def _check_complete(path: Path | None, report: Mapping[str, Any]) -> None:
    """Raise :class:`WeightsError` unless every tensor of the model came from the file."""
    odd = [str(k[0] if isinstance(k, (tuple, list)) else k) for k in report["mismatched_keys"]]
    lost = sorted({str(k) for k in report["missing_keys"]} | set(odd))
    if lost:
        raise WeightsError(
            f"{path}: not a Grounding DINO state; "
            f"{counted(len(lost), 'tensor is', 'tensors are')} missing, first "
            f"'{lost[0]}'"
        )


def _check_vocabulary(tokenizer: Any, encoder: Path) -> None:
    """Raise :class:`WeightsError` for a vocabulary with which phrases would run together."""
    for word, number in SEPARATORS.items():
        found = tokenizer.convert_tokens_to_ids(word)
        if found != number:
            raise WeightsError(
                f"{encoder}: '{word}' is token {found} of this vocabulary, not {number}; give "
                "grounding.text_encoder=FOLDER with that of bert-base-uncased"
            )


@contextlib.contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Keep the package's report of a load to itself: what is missing is an error of ours."""
    tell = transformers.utils.logging
    level, bar = tell.get_verbosity(), tell.is_progress_bar_enabled()
    tell.set_verbosity_error()
    tell.disable_progress_bar()
    try:
        yield
    finally:
        tell.set_verbosity(level)
        if bar:
            tell.enable_progress_bar()

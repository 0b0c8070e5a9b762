"""A loaded backbone: both towers, what is known about it, and what it did."""

from __future__ import annotations

import logging
import os
import typing
from dataclasses import replace
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from zsad.backbones import build, families
from zsad.backbones import weights as weight_files
from zsad.backbones.backbone_spec import require_fitting
from zsad.backbones.batch_size import window_tokens
from zsad.backbones.blocks import cast
from zsad.backbones.clip_vit import ImageEncoder
from zsad.backbones.counters import Counters
from zsad.backbones.devices import named_device
from zsad.backbones.engines.dispatch import Engines
from zsad.backbones.engines.interface import Examples
from zsad.backbones.host_memory import keep_freed_memory
from zsad.backbones.locate import FoundWeights
from zsad.backbones.precision import resolved, set_products
from zsad.backbones.specs import BackboneSpec, quarters
from zsad.backbones.specs import spec as find_spec
from zsad.backbones.tensor_files import naming
from zsad.backbones.text import TextEncoder
from zsad.backbones.torchscript import is_archive
from zsad.config import BackboneSettings
from zsad.config.backbone_settings import EngineName
from zsad.errors import RequestError, WeightsError
from zsad.types import BackboneInfo, EncoderVariant, FeatureRequest, ImageFeatures

log = logging.getLogger(__name__)

ACTIVATIONS = ("auto", "quick_gelu", "gelu")
ENGINES = typing.get_args(EngineName)
PRECISIONS = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "int8": torch.float32,  # of weights; linear layers are rounded in the engine's graph
}


class Backbone:
    """A frozen CLIP.  ``info``: sizes and provenance; ``counters``: the work done so far;
    ``engines``: who runs the encoder; ``figures``: the precision, as identities name it."""

    def __init__(
        self,
        model: nn.Module,
        info: BackboneInfo,
        *,
        vocab: int,
        engines: Engines | None = None,
        figures: str = "fp32",
    ) -> None:
        self.model = model
        self.info = info
        self.engines = engines or Engines(info)
        self.figures = figures
        self.counters = Counters()
        self._vocab = vocab
        self._image_encoders: dict[EncoderVariant, ImageEncoder] = {}
        self._text_encoders: dict[str, TextEncoder] = {}
        self._told: set[str] = set()  # texts that are longer than what is read

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def encode_image(self, images: Tensor, request: FeatureRequest) -> ImageFeatures:
        """Encode normalised images [B, 3, S, S] in one pass; return every tap of the request."""
        return self.image_encoder(request.variant).encode(images.to(self.device), request.taps)

    def image_encoder(self, variant: EncoderVariant | None = None) -> ImageEncoder:
        """Return the image tower under a variant; variants share the weights."""
        variant = variant or EncoderVariant()
        if variant not in self._image_encoders:
            visual: Any = self.model.visual
            self._image_encoders[variant] = ImageEncoder(
                visual,
                variant,
                self.counters,
                window_tokens=window_tokens(
                    self.info, self.device, visual.conv1.weight.element_size()
                ),
                engines=self.engines,
                linear=self.engines.packed,
            )
        return self._image_encoders[variant]

    def text_encoder(self, variant: EncoderVariant | None = None) -> TextEncoder:
        """Return the text tower under a variant (only its activation matters here)."""
        variant = variant or EncoderVariant()
        if variant.activation not in self._text_encoders:
            self._text_encoders[variant.activation] = TextEncoder(
                self.model,
                self._tokenize,
                variant,
                self.counters,
                linear=self.engines.packed,
            )
        return self._text_encoders[variant.activation]

    def read_part(self, text: str) -> str:
        """What of a text the model reads: all of it, or its first tokens with " ..." behind them.

        Start and end of text take two of the ``context_length`` positions."""
        most = self.info.context_length - 2
        if len(text) <= most:  # a token has at least one character
            return text
        from zsad.torchvision_compat import open_clip

        tokenizer: Any = open_clip.tokenizer._tokenizer  # the one behind open_clip.tokenize
        ids = tokenizer.encode(text)
        return text if len(ids) <= most else f"{tokenizer.decode(ids[:most]).strip()} ..."

    def _tell_cut(self, texts: list[str]) -> None:
        """Say once for a text that the model does not read to its end."""
        for text in texts:
            if text in self._told or (read := self.read_part(text)) == text:
                continue
            if not self._told:
                log.warning(
                    "a text is longer than its limit of %d tokens and is read as far as %r; "
                    "shorten the class name or the text (others are cut without a warning)",
                    self.info.context_length,
                    read[-80:],
                )
            self._told.add(text)

    def _tokenize(self, texts: list[str]) -> Tensor:
        from zsad.torchvision_compat import open_clip

        ids: Tensor = open_clip.tokenize(texts, self.info.context_length)
        full = ids[:, -1] != 0  # to the last position: what was cut is, and hardly anything else
        self._tell_cut([text for text, cut in zip(texts, full.tolist()) if cut])
        if int(ids.max()) >= self._vocab:
            raise WeightsError(
                f"backbone '{self.info.name}': its vocabulary has {self._vocab} entries, CLIP's "
                "tokenizer needs 49408; give other weights"
            )
        return ids

    def to(self, device: str | torch.device) -> Backbone:
        """Move the weights; cached text features and position tables are dropped."""
        self.model.to(device)
        self._image_encoders.clear()
        self.engines.forget()
        self._text_encoders.clear()
        return self


def load(
    name: str,
    *,
    weights: str | os.PathLike[str] | None = None,
    image_size: int = 0,
    precision: str = "fp32",
    device: str | torch.device = "cpu",
    offline: bool = False,
    compile: bool = False,
    activation: str = "auto",
    engine: str = "auto",
    engine_cache: bool = False,
    examples: Examples | None = None,
) -> Backbone:
    """Load a backbone by name.

    ``weights``: a file, ``"random"`` (a fixed seed, marked in ``info``) or None: bundled, cache,
    hub, in this order.  ``image_size`` in pixels, 0: the backbone's own.  ``precision``: fp32,
    tf32, bf16 or fp16, of weights and features, int8 (of linear layers, by OpenVINO), or auto:
    what suits the device.
    The name ``file`` builds the architecture that the state dict implies; ``activation`` says
    which one its weights were trained with (``quick_gelu``, what ``auto`` takes OpenAI's naming
    for, or ``gelu``: a state dict does not tell).
    ``engine``: who runs the encoder (``auto``, ``torch``, ``onednn``, ``openvino``);
    ``engine_cache``: OpenVINO's graphs are kept on disk, as int8's always are.  ``examples``: the
    pictures that int8 is calibrated on (:data:`zsad.data.calibration.EXAMPLES`).

    Raises :class:`RequestError` for an unknown name or option, :class:`WeightsError` for weights
    that are missing, unsafe or do not fit.
    """
    chosen = BackboneSettings(
        name,
        None if weights is None else os.fspath(weights),
        image_size,
        precision,  # type: ignore[arg-type]
        compile,
        activation,  # type: ignore[arg-type]
        engine,  # type: ignore[arg-type]
        engine_cache,
    )
    return load_chosen(chosen, device, offline, examples)


def load_chosen(
    chosen: BackboneSettings,
    device: str | torch.device = "cpu",
    offline: bool = False,
    examples: Examples | None = None,
) -> Backbone:
    """Load the backbone that the settings ``backbone.*`` name; see :func:`load`."""
    spec = find_spec(chosen.name)
    _require_known(chosen)
    keep_freed_memory()
    if spec.family:
        return families.family(spec.family).load(spec, chosen, device, offline)
    model, info, vocab = _built(spec, chosen, offline)
    where = named_device(device)
    used = resolved(chosen, str(where))
    engines = Engines(
        info,
        used.engine,
        used.precision,
        where.type,
        compile=used.compile,
        cache=used.engine_cache,
        examples=examples,
    )
    set_products(used.precision, where)
    # OpenVINO rounds by itself, from weights in float32.
    cast(model, torch.float32 if used.engine == "openvino" else PRECISIONS[used.precision])
    model.to(where)
    return Backbone(model, info, vocab=vocab, engines=engines, figures=used.figures)


def _require_known(chosen: BackboneSettings) -> None:
    """Raise :class:`RequestError` for a value that no option has."""
    for key, value, known in (
        ("precision", chosen.precision, ("auto", *PRECISIONS)),
        ("activation", chosen.activation, ACTIVATIONS),
        ("engine", chosen.engine, ENGINES),
    ):
        if value not in known:
            raise RequestError(f"backbone.{key}={value}: choose one of {', '.join(known)}")


def _built(
    spec: BackboneSpec, chosen: BackboneSettings, offline: bool
) -> tuple[nn.Module, BackboneInfo, int]:
    """A CLIP with its weights in float32 on the CPU, what is known of it, and the entries of its
    vocabulary.  Raises :class:`WeightsError`."""
    config = spec.model_config()
    if chosen.activation != "auto":
        if config is not None:
            raise RequestError(
                f"backbone.activation={chosen.activation}: backbone '{spec.name}' knows its own; "
                f"leave the key out, or give the file with backbone.name=file"
            )
        spec = replace(spec, activation=chosen.activation)
    state, found, tag = _weights(spec, chosen.weights, offline)
    if config is None:
        if state is None:
            raise WeightsError(
                "backbone 'file' takes its architecture from a file; give backbone.weights=FILE, "
                "or a named backbone with backbone.weights=random"
            )
        with naming(found.path or spec.name, "not a CLIP vision transformer"):
            config = build.config_of_state(state)
    trained = build.trained_activation(spec, config, tag)
    if state is None:
        model = build.build_model(spec, config, trained, None)
    else:
        with naming(found.path or spec.name, "no backbone can be built of it"):
            model = build.build_model(spec, config, trained, state)
    info = replace(
        describe(spec, config, chosen.image_size, model),
        activation=build.activation_in_use(model),
        **found.account(spec.demo),
        **preprocessing(spec, tag),
    )
    if info.activation != trained:
        raise WeightsError(
            f"backbone '{spec.name}' was built with {info.activation}, its weights need {trained}"
        )
    return model, info, int(config["text_cfg"].get("vocab_size", 49408))


def _weights(
    spec: BackboneSpec, weights: str | os.PathLike[str] | None, offline: bool
) -> tuple[weight_files.State | None, FoundWeights, str]:
    """Return the state (None: random), where it came from, and its tag.

    A file that is given for a named backbone is taken to hold the weights of the spec's tag.
    """
    found = weight_files.resolve(spec, weights, offline=offline)
    tag = found.tag if weights is None else spec.pretrained
    if found.path is None:
        return None, found, tag
    if found.source == "bundled":
        bundle = import_module(f"zsad.backbones.{spec.bundled}")
        return {k: v.float() for k, v in bundle.load_state().items()}, found, ""
    if weights is not None and not tag and is_archive(found.path):
        tag = "openai"  # nobody else publishes CLIP as TorchScript archives
    return weight_files.read_state(found.path), found, tag


def preprocessing(spec: BackboneSpec, tag: str) -> dict[str, Any]:
    """Return the mean, std and interpolation that the weights were trained with, where open_clip
    knows the weight tag; some of its models use others than OpenAI's."""
    from zsad.torchvision_compat import open_clip

    entry = open_clip.get_pretrained_cfg(spec.open_clip_model, tag) if tag else {}
    known = {k: entry[k] for k in ("mean", "std", "interpolation") if k in entry}
    return {k: tuple(v) if isinstance(v, (list, tuple)) else v for k, v in known.items()}


def describe(
    spec: BackboneSpec, config: dict[str, Any], image_size: int, model: nn.Module
) -> BackboneInfo:
    """Return what methods may know about a backbone.

    Raises :class:`RequestError` for an image size that does not fit the patches
    (:func:`zsad.backbones.backbone_spec.require_fitting`).
    """
    visual: Any = model.visual
    towers: Any = model
    patch = int(visual.patch_size[0])
    size = image_size or spec.image_size or int(config["vision_cfg"]["image_size"])
    require_fitting(size, patch)
    depth = len(visual.transformer.resblocks)
    return BackboneInfo(
        name=spec.name,
        title=spec.title,
        image_size=size,
        patch=patch,
        depth=depth,
        width=int(visual.conv1.out_channels),
        embed=int(visual.proj.shape[1]),
        text_width=int(towers.token_embedding.embedding_dim),
        text_depth=len(towers.transformer.resblocks),
        context_length=int(towers.context_length),
        stages=spec.stages or quarters(depth),
        mean=spec.mean,
        std=spec.std,
        interpolation=spec.interpolation,
        vv_first=spec.vv_first,
        demo=spec.demo,
        native_size=int(config["vision_cfg"]["image_size"]),
        logit_scale=float(towers.logit_scale.detach().exp()),
    )

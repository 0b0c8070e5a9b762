"""A backbone of another family than CLIP: an image tower, and no text tower."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from zsad.backbones.backbone import Backbone
from zsad.backbones.counters import Counters
from zsad.backbones.engines.dispatch import Engines
from zsad.backbones.towers import NoText, begin_pass
from zsad.errors import RequestError
from zsad.types import BackboneInfo, EncoderVariant, ImageFeatures, Tap

if TYPE_CHECKING:
    from zsad.backbones.clip_vit import ImageEncoder
    from zsad.backbones.text import TextEncoder

KINDS = ("cls", "tokens")


@dataclass(frozen=True)
class States:
    """What a family reads in one pass.  ``layers``: of each wanted block (1-based) its output
    [B, 1+L, D], class token first, other tokens than patches left out; ``final`` [B, D]: the class
    token behind the last norm, None if it was not asked for."""

    layers: dict[int, Tensor]
    final: Tensor | None = None


# (module, images [B, 3, H, W], wanted blocks, whether `final` is wanted)
Reader = Callable[[nn.Module, Tensor, list[int], bool], States]


class ImageOnlyTower:
    """An :class:`zsad.backbones.towers.ImageTower` of the taps :data:`KINDS`.

    The other taps are parts of CLIP.  Raises :class:`RequestError` for a variant that is CLIP's.
    """

    def __init__(
        self,
        module: nn.Module,
        read: Reader,
        info: BackboneInfo,
        variant: EncoderVariant,
        counters: Counters,
    ) -> None:
        plain = EncoderVariant()
        for key in ("activation", "pos_interp"):
            if (value := getattr(variant, key)) != getattr(plain, key):
                raise RequestError(
                    f"encoder.{key}={value}: is a way to run CLIP, and backbone '{info.name}' has "
                    f"one way; leave it out, and presets that set it"
                )
        self.module, self.read = module, read
        self.variant, self.counters, self.info = variant, counters, info
        self.patch, self.depth = info.patch, info.depth

    @property
    def dtype(self) -> torch.dtype:
        return next(self.module.parameters()).dtype

    @torch.no_grad()
    def encode(self, images: Tensor, taps: Iterable[Tap]) -> ImageFeatures:
        """Encode normalised images [B, 3, H, W] once and return the wanted taps.

        Raises :class:`RequestError` for a tap of CLIP, ``ValueError`` for a block that there is
        not or images of another size than the variant's.
        """
        taps = frozenset(taps)
        for tap in taps:
            self._check(tap)
        return ImageFeatures(begin_pass(self, images), self.taps_of(images, taps))

    def taps_of(self, images: Tensor, taps: Iterable[Tap]) -> dict[Tap, Tensor]:
        """Return the taps of normalised images [B, 3, H, W]."""
        taps = frozenset(taps)
        layers = sorted({tap.layer for tap in taps if tap.kind == "tokens"})
        found = self.read(self.module, images.to(self.dtype), layers, Tap("cls") in taps)
        out = {Tap("tokens", layer): found.layers[layer] for layer in layers}
        if found.final is not None:
            out[Tap("cls")] = found.final
        return out

    def _check(self, tap: Tap) -> None:
        if tap.kind not in KINDS:
            raise RequestError(
                f"backbone '{self.info.name}' has no features '{tap.kind}', which are CLIP's; "
                f"choose a CLIP such as vit-l-14-336"
            )
        if tap.kind == "tokens" and not 1 <= tap.layer <= self.depth:
            raise ValueError(f"tap {tuple(tap)}: layer must be in 1..{self.depth}")


class ImageOnlyBackbone(Backbone):
    """A frozen image tower.  What reads text from it is refused."""

    def __init__(self, module: nn.Module, info: BackboneInfo, read: Reader, figures: str) -> None:
        super().__init__(module, info, vocab=0, engines=Engines(info, "torch"), figures=figures)
        self._read = read
        self._towers: dict[EncoderVariant, ImageOnlyTower] = {}

    def image_encoder(self, variant: EncoderVariant | None = None) -> ImageEncoder:
        """The image tower under a variant.

        Typed as CLIP's, for methods that resume a pass of it: they read text, and so are refused.
        """
        variant = variant or EncoderVariant()
        if variant not in self._towers:
            self._towers[variant] = ImageOnlyTower(
                self.model, self._read, self.info, variant, self.counters
            )
        return cast("ImageEncoder", self._towers[variant])

    def text_encoder(self, variant: EncoderVariant | None = None) -> TextEncoder:
        """What stands where a text tower would be (:class:`NoText`)."""
        return cast("TextEncoder", NoText(self.info.name))

    def read_part(self, text: str) -> str:
        """All of it, because none of it is read."""
        return text

    def to(self, device: str | torch.device) -> ImageOnlyBackbone:
        """Move the weights."""
        super().to(device)
        return self

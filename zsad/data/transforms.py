"""Pixels to tensors: the papers' preprocessing of images, and the three mask policies."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from zsad.data.images import DECODING_RULES, nearest, read_mask
from zsad.errors import DataError
from zsad.on_device import constant
from zsad.types import BackboneInfo, EncoderVariant, FeatureRequest, Sample

_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


class Halves(NamedTuple):
    """The ``left`` and the ``right`` square [3, S, S] of an image, which overlap; the right one
    begins ``shift`` sides to the right of the left one, 0..1."""

    left: Tensor
    right: Tensor
    shift: float


@dataclass(frozen=True)
class Preprocess:
    """An RGB image to a normalised tensor [3, S, S].

    The image is resized to exactly ``size`` x ``size`` pixels with PIL's antialiasing filter
    (the proportions are not kept), scaled to 0..1 and normalised: the released code of
    AnomalyCLIP, FAPrompt and FiLo alike.  ``stored``: an image of any mode is resized as it is
    stored and becomes RGB afterwards, as theirs does: palettes by the nearest index, and what is
    transparent shows its colour.  ``halves``: it is to be taken through :meth:`squares`.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"
    stored: bool = False
    halves: bool = False

    def __post_init__(self) -> None:
        if self.interpolation not in _RESAMPLING:
            raise ValueError(
                f"interpolation '{self.interpolation}' is not one of: {', '.join(_RESAMPLING)}"
            )
        if self.size < 1:
            raise ValueError(f"size {self.size} must be a positive number of pixels")

    @classmethod
    def for_backbone(cls, info: BackboneInfo, image_size: int = 0) -> Preprocess:
        """The preprocessing that a backbone's weights were trained with, at its size or another."""
        size = image_size or info.image_size
        return cls(size, tuple(info.mean), tuple(info.std), info.interpolation)  # type: ignore[arg-type]

    @classmethod
    def for_variant(cls, info: BackboneInfo, variant: EncoderVariant) -> Preprocess:
        """The preprocessing of an encoder variant: as :meth:`for_backbone`, but for the filter or
        the mean and deviation and the decoding where the variant has its own."""
        made = cls.for_backbone(info, variant.image_size)
        if variant.resize != "weights":
            made = replace(made, interpolation=variant.resize)
        if variant.input == "unit":
            made = replace(made, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        return replace(made, stored=variant.decoding == "released")

    @classmethod
    def for_request(cls, info: BackboneInfo, request: FeatureRequest) -> Preprocess:
        """The preprocessing of what a method reads: that of its variant, and how pictures are
        framed."""
        made = cls.for_variant(info, request.variant)
        return replace(made, halves=request.frame == "halves")

    def squares(self, image: Image.Image) -> Halves:
        """A left and a right square [3, S, S] of an image whose height is brought to S pixels, its
        proportions kept (released AnoVL on VisA).

        Raises :class:`DataError` for an image that is upright, or wider than two squares.
        """
        if not image.height <= image.width <= 2 * image.height:
            raise DataError(
                f"{image.width} x {image.height} pixels: cannot be cut into a left and a right "
                f"square that cover it, which takes a width of one to two heights"
            )
        width = self.size * image.width // image.height
        whole = self(image, (self.size, width))
        shift = width - self.size
        left, right = whole[..., : self.size], whole[..., shift:]
        return Halves(left.contiguous(), right.contiguous(), shift / self.size)

    def __call__(self, image: Image.Image, shape: tuple[int, int] | None = None) -> Tensor:
        """``shape``: another (height, width) than the square's."""
        pixels = self.pixels(image, shape).contiguous()  # plane by plane the rest is faster
        mean = torch.tensor(self.mean).view(3, 1, 1)
        std = torch.tensor(self.std).view(3, 1, 1)
        return pixels.to(torch.float32).div_(255).sub_(mean).div_(std)

    def pixels(self, image: Image.Image, shape: tuple[int, int] | None = None) -> Tensor:
        """The resized image before it is normalised: uint8 [3, S, S]."""
        height, width = shape or (self.size, self.size)
        # a picture that is RGB already is not copied: it may be large
        resized = image if self.stored or image.mode == "RGB" else image.convert("RGB")
        if resized.size != (width, height):
            resized = resized.resize((width, height), _RESAMPLING[self.interpolation])
        return torch.from_numpy(np.array(resized.convert("RGB"))).permute(2, 0, 1)

    def normalised(self, pixels: Tensor) -> Tensor:
        """Normalise :meth:`pixels` [B, 3, S, S] where they lie: the values that an image gets that
        is prepared whole, bit for bit."""
        table = constant(normalised_values, self.mean, self.std, device=pixels.device)
        first = torch.arange(0, 3 * 256, 256, device=pixels.device).view(3, 1, 1)
        return table.take(pixels.long() + first)

    def brought(self, images: Tensor, device: torch.device) -> Tensor:
        """Images [B, 3, H, W] on ``device``, normalised there where they are of 8 bits."""
        there = images.to(device, non_blocking=True)
        return self.normalised(there) if there.dtype == torch.uint8 else there

    def describe(self) -> dict[str, Any]:
        """Everything about it that changes numbers, for the record of a run."""
        values = {k: v for k, v in asdict(self).items() if k != "halves" or v}
        rules = DECODING_RULES | (
            {"alpha": "dropped after resizing"} if values.pop("stored") else {}
        )
        return {**values, "decoding": rules}


def normalised_values(mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Every value of 8 bits, normalised as in each channel: float32 [3 * 256]."""
    values = torch.arange(256, dtype=torch.float32).div_(255).expand(3, -1)
    return ((values - torch.tensor(mean)[:, None]) / torch.tensor(std)[:, None]).flatten()


@dataclass(frozen=True)
class MaskPolicy:
    """How a mask is brought to the working size.

    ``bilinear``: as released, bilinear with antialiasing, then above one half.  ``whole``: the
    same, then only what is wholly marked (released MuSc).  ``nearest``: nearest neighbour.
    ``native``: the mask keeps its own size and maps are to be brought to it.
    """

    resize: Literal["bilinear", "whole", "nearest", "native"] = "bilinear"

    def __post_init__(self) -> None:
        if self.resize not in ("bilinear", "whole", "nearest", "native"):
            raise ValueError(
                f"mask policy '{self.resize}' is not bilinear, whole, nearest or native"
            )

    @property
    def native(self) -> bool:
        """Whether masks keep their own size."""
        return self.resize == "native"

    def __call__(self, mask: np.ndarray, size: int) -> np.ndarray:
        """Bool [H, W] to bool [S, S] (or unchanged under ``native``)."""
        if self.native or mask.shape == (size, size):
            return mask
        if self.resize == "nearest":
            return nearest(mask, (size, size))
        grey = Image.fromarray(mask.astype(np.uint8) * 255)
        share = np.asarray(grey.resize((size, size), Image.Resampling.BILINEAR))  # of 255
        return share == 255 if self.resize == "whole" else share > 127

    def read(self, sample: Sample, size: int, seen_hw: tuple[int, int] | None = None) -> np.ndarray:
        """The mask of a sample under this policy; zeros for one without a mask.  ``seen_hw``: see
        :func:`zsad.data.images.read_mask`."""
        if sample.mask is None and not self.native:
            return np.zeros((size, size), dtype=bool)
        return self(read_mask(sample, seen_hw=seen_hw), size)

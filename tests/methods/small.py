"""What tests of methods ask of a small backbone, or of one that exists in name only."""

from __future__ import annotations

import torch
from torch import Tensor

from zsad.backbones import Backbone
from zsad.method import Method, feature_request
from zsad.types import BackboneInfo, Category, FeatureRequest, ImageFeatures, ScoreContext, Tap

BOTTLE = Category("mvtec", "bottle", "bottle")
NUT = Category("mvtec", "metal_nut", "metal nut")


def hand_info(image_size: int, depth: int, width: int, embed: int, patch: int = 10) -> BackboneInfo:
    """Describe a backbone for features that are made by hand."""
    return BackboneInfo(
        name="hand",
        title="made by hand",
        image_size=image_size,
        patch=patch,
        depth=depth,
        width=width,
        embed=embed,
        text_width=embed,
        text_depth=2,
        context_length=77,
        stages=tuple(depth * i // 4 for i in (1, 2, 3, 4)),
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    )


def encode(method: Method, backbone: Backbone, images: Tensor, *more: Tap) -> ImageFeatures:
    """Encode images for ``method``, with further taps."""
    request = feature_request(method, 0)
    return backbone.encode_image(images, FeatureRequest(request.taps | set(more), request.variant))


def context(method: Method, backbone: Backbone, *categories: Category) -> ScoreContext:
    """Prepare the text of one category per image, and lend both encoders."""
    variant = feature_request(method, 0).variant
    encoder = backbone.text_encoder(variant)
    with torch.no_grad():
        text = method.prepare_text(list(dict.fromkeys(categories)), encoder)
    return ScoreContext(
        list(categories),
        text,
        text_encoder=encoder,
        image_encoder=backbone.image_encoder(variant),
    )

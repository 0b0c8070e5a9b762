"""DINOv2 and DINOv3 (Oquab et al., 2023; Simeoni et al., 2025), as timm has them: images alone.

Weights are timm's conversions of the publishers' files.  None has been at hand here: what runs is
tested with random values against timm's own passes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zsad.backbones.backbone_spec import BackboneSpec, Sizes
from zsad.backbones.families.image_family import ImageFamily

if TYPE_CHECKING:
    from torch import Tensor, nn

    from zsad.backbones.image_only import States

# timm's pretrained_cfg of these models: ImageNet's mean and deviation
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
SHAPES = {"s": ("small", 12, 384), "b": ("base", 12, 768), "l": ("large", 24, 1024)}
# version -> patch and native size in pixels, weight tag, size in pixels that is taken here
VERSIONS = {"dinov2": (14, 518, "lvd142m", 448), "dinov3": (16, 256, "lvd1689m", 448)}


class Dino(ImageFamily):
    """Vision transformers that learnt from pictures without texts or labels."""

    name = "dino"

    def specs(self) -> list[BackboneSpec]:
        """Small, base and large of both versions, at AnomalyDINO's 448 pixels."""
        found = []
        for version, (patch, native, tag, size) in VERSIONS.items():
            for letter, (word, depth, width) in SHAPES.items():
                model = f"vit_{word}_patch{patch}_{version}"
                found.append(
                    BackboneSpec(
                        name=f"{version}-vit-{letter}-{patch}",
                        title=f"{version.replace('dino', 'DINO')} ViT-{letter.upper()}/{patch}",
                        summary="images alone, for methods that read no text (timm)",
                        weights_file=f"{model}.{tag}.safetensors",
                        hub_repo=f"timm/{model}.{tag}",
                        image_size=size,
                        mean=MEAN,
                        std=STD,
                        family=self.name,
                        model=model,
                        sizes=Sizes(native, patch, depth, width),
                    )
                )
        return found

    def module(self, spec: BackboneSpec) -> nn.Module:
        """timm's module; its position table is resized to the pictures at hand (bicubic)."""
        from zsad.torchvision_compat import timm

        model: nn.Module = timm.create_model(spec.model, pretrained=False, dynamic_img_size=True)
        return model

    def read(self, module: nn.Module, images: Tensor, layers: list[int], final: bool) -> States:
        """The class token and the patches of every wanted block; registers are left out."""
        import torch

        from zsad.backbones.image_only import States

        model: Any = module
        found = model.forward_intermediates(
            images,
            indices=[layer - 1 for layer in layers],
            return_prefix_tokens=True,
            norm=False,
            stop_early=not final,
            output_fmt="NLC",
            intermediates_only=not final,
        )
        last, states = found if final else (None, found)
        tokens = [torch.cat([prefix[:, :1], patches], 1) for patches, prefix in states]
        return States(dict(zip(layers, tokens)), None if last is None else last[:, 0])


FAMILY = Dino()

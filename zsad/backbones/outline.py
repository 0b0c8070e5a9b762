"""The sizes of a backbone as its model file states them, without any weights.  No torch."""

from __future__ import annotations

from zsad.backbones import families
from zsad.backbones.specs import quarters
from zsad.backbones.specs import spec as find_spec
from zsad.errors import WeightsError
from zsad.types import BackboneInfo


def outline(name: str) -> BackboneInfo:
    """What methods may know about a backbone whose weights are not at hand.

    Sizes in pixels are those of the spec, or the model file's own.  Where the weights come from
    is empty.  Raises :class:`WeightsError` for ``file``, whose sizes are those of a file, and
    :class:`zsad.errors.RequestError` for an unknown name.
    """
    spec = find_spec(name)
    if spec.family:
        return families.family(spec.family).outline(spec)
    config = spec.model_config()
    if config is None:
        raise WeightsError(
            f"backbone '{name}' takes its sizes from a file; give --weights FILE, or a named one"
        )
    vision, text = config["vision_cfg"], config["text_cfg"]
    native, depth = int(vision["image_size"]), int(vision["layers"])
    return BackboneInfo(
        name=spec.name,
        title=spec.title,
        image_size=spec.image_size or native,
        patch=int(vision["patch_size"]),
        depth=depth,
        width=int(vision["width"]),
        embed=int(config["embed_dim"]),
        text_width=int(text["width"]),
        text_depth=int(text["layers"]),
        context_length=int(text.get("context_length", 77)),
        stages=spec.stages or quarters(depth),
        mean=spec.mean,
        std=spec.std,
        interpolation=spec.interpolation,
        activation=spec.activation or ("quick_gelu" if config.get("quick_gelu") else "gelu"),
        vv_first=spec.vv_first,
        demo=spec.demo,
        native_size=native,
    )

"""Builds open_clip's CLIP module from a model file and a state dict, in full precision.

open_clip's own builder for OpenAI state dicts rounds the weights to half precision on the way;
this one takes the values as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from zsad.backbones.specs import BackboneSpec
from zsad.errors import RequestError, WeightsError
from zsad.torchvision_compat import open_clip

QuickGELU = open_clip.transformer.QuickGELU
ResidualAttentionBlock = open_clip.transformer.ResidualAttentionBlock
VisionTransformer = open_clip.transformer.VisionTransformer
HEAD_WIDTH = 64  # of every CLIP that OpenAI released, in both towers
Config = dict[str, Any]


def config_of_state(state: Mapping[str, Tensor]) -> Config:
    """Return the open_clip model config that a state dict in OpenAI's naming implies.

    Heads are width // 64, at least one.  Raises :class:`WeightsError` for another kind of model.
    """
    try:
        width, _, patch, _ = state["visual.conv1.weight"].shape
        table = len(state["visual.positional_embedding"])
        text_width = len(state["ln_final.weight"])
        vision: Config = {
            "image_size": patch * round((table - 1) ** 0.5),
            "layers": _blocks(state, "visual.transformer.resblocks."),
            "width": width,
            "head_width": width // max(1, width // HEAD_WIDTH),
            "patch_size": patch,
            "mlp_ratio": _mlp_ratio(state, "visual.transformer.resblocks.0.", width),
        }
        text: Config = {
            "context_length": len(state["positional_embedding"]),
            "vocab_size": len(state["token_embedding.weight"]),
            "width": text_width,
            "heads": max(1, text_width // HEAD_WIDTH),
            "layers": _blocks(state, "transformer.resblocks."),
            "mlp_ratio": _mlp_ratio(state, "transformer.resblocks.0.", text_width),
        }
        embed = state["text_projection"].shape[1]
    except (KeyError, ValueError) as error:
        raise WeightsError(
            f"weights: not a CLIP vision transformer in OpenAI's naming ({error}); name the "
            "architecture with --backbone instead of 'file'"
        ) from None
    return {"embed_dim": embed, "vision_cfg": vision, "text_cfg": text}


def _blocks(state: Mapping[str, Tensor], prefix: str) -> int:
    return len({k[len(prefix) :].split(".")[0] for k in state if k.startswith(prefix)})


def _mlp_ratio(state: Mapping[str, Tensor], prefix: str, width: int) -> float:
    return len(state[f"{prefix}mlp.c_fc.weight"]) / width


def trained_activation(spec: BackboneSpec, config: Config, tag: str) -> str:
    """Return the activation that the weights were trained with: "quick_gelu" or "gelu".

    A wrong one does not fail, it only costs accuracy, so what the spec says is checked against
    the weight tag and the model file.  Raises :class:`WeightsError` where they disagree.
    """
    known = "quick_gelu" if config.get("quick_gelu") else ""
    if tag:
        by_tag = open_clip.get_pretrained_cfg(spec.open_clip_model, tag)
        # open_clip rule: OpenAI weights always need QuickGELU; others where the entry says so
        if tag == "openai" or by_tag.get("quick_gelu"):
            known = "quick_gelu"
        known = known or "gelu"
    if known and spec.activation and known != spec.activation:
        raise WeightsError(
            f"backbone '{spec.name}': its spec says activation {spec.activation}, but the weights "
            f"'{tag or 'of the model file'}' were trained with {known}; correct the spec"
        )
    return spec.activation or known or "gelu"


def build_model(
    spec: BackboneSpec, config: Config, activation: str, state: Mapping[str, Tensor] | None
) -> nn.Module:
    """Return a frozen open_clip CLIP in evaluation mode, float32.

    ``state`` None: open_clip's random initialisation with a fixed seed.  The position table may
    have another grid than the config says.  Raises :class:`WeightsError` if names or shapes do
    not fit.
    """
    model_config = {**config, "vision_cfg": dict(config["vision_cfg"])}
    if state is not None and "visual.positional_embedding" in state:
        side = round((len(state["visual.positional_embedding"]) - 1) ** 0.5)
        model_config["vision_cfg"]["image_size"] = side * int(
            model_config["vision_cfg"].get("patch_size") or 1
        )
    if state is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = _construct(model_config, activation)
    else:
        with torch.device("meta"):  # the values come from the state; initialise nothing
            model = _construct(model_config, activation)
        _load(model, state, spec)
    check_architecture(spec, model)
    return model.requires_grad_(False).eval()


def _construct(config: Config, activation: str) -> nn.Module:
    keys = ("embed_dim", "vision_cfg", "text_cfg")
    model: nn.Module = open_clip.CLIP(
        **{k: config[k] for k in keys}, quick_gelu=activation == "quick_gelu"
    )
    return model


def _load(model: nn.Module, state: Mapping[str, Tensor], spec: BackboneSpec) -> None:
    wanted = model.state_dict()
    given = {k: v for k, v in state.items() if k in wanted}
    if "logit_scale" in wanted:
        scale = given.get("logit_scale", torch.tensor(100.0).log())
        given["logit_scale"] = scale.reshape(wanted["logit_scale"].shape)
    missing = [k for k in wanted if k not in given]
    extra = sorted(k for k in state if k not in wanted)
    shapes = [k for k in given if given[k].shape != wanted[k].shape]
    if missing or shapes or extra:
        what = (
            f"{missing[0]} is missing ({len(missing)} in all)"
            if missing
            else f"{shapes[0]} is {tuple(given[shapes[0]].shape)}, not "
            f"{tuple(wanted[shapes[0]].shape)}"
            if shapes
            else f"{extra[0]} is unknown to it ({len(extra)} in all)"
        )
        raise WeightsError(
            f"the weights do not fit backbone '{spec.name}': {what}; choose the backbone that the "
            "file was made for, or `--backbone file`"
        )
    model.load_state_dict({k: v.contiguous() for k, v in given.items()}, assign=True)
    for name, buffer in model.named_buffers():
        if buffer.is_meta:  # the causal mask, which is not stored
            parent = model.get_submodule(name.rpartition(".")[0])
            mask = torch.full(buffer.shape, float("-inf")).triu_(1)
            setattr(parent, name.rpartition(".")[2], mask)


def check_architecture(spec: BackboneSpec, model: nn.Module) -> None:
    """Raise :class:`RequestError` for an open_clip model that the encoders cannot run."""
    visual = model.visual
    reason = ""
    if not isinstance(visual, VisionTransformer):
        reason = f"its image tower is a {type(visual).__name__}, not open_clip's VisionTransformer"
    elif visual.attn_pool is not None or visual.pool_type != "tok" or visual.final_ln_after_pool:
        reason = "its image tower does not read the class token"
    elif not all(isinstance(b, ResidualAttentionBlock) for b in visual.transformer.resblocks):
        reason = "its image blocks are not standard residual attention blocks"
    elif not all(
        isinstance(b, ResidualAttentionBlock)
        for b in model.get_submodule("transformer.resblocks").children()
    ):
        reason = "its text blocks are not standard residual attention blocks"
    elif model.attn_mask is None or model.text_pool_type not in ("argmax", "eos"):
        reason = "its text tower is not causal with an end-of-text feature"
    elif model.text_projection is None:
        reason = "its text tower has no projection"
    if reason:
        raise RequestError(
            f"backbone '{spec.name}' cannot be used: {reason}; choose a CLIP vision transformer, "
            "e.g. ViT-B-16"
        )


def activation_in_use(model: nn.Module) -> str:
    """Return the activation that a built model really runs with."""
    visual: Any = model.visual
    quick = isinstance(visual.transformer.resblocks[0].mlp.gelu, QuickGELU)
    return "quick_gelu" if quick else "gelu"

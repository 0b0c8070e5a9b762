"""Grounding DINO's weights as its authors publish them: read safely, renamed for transformers.

Files are read with ``weights_only=True``: the published Swin-T and Swin-B files, fine-tuned ones,
with or without the wrappers that training scripts leave around a state.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zsad.backbones.tensor_files import check_values, read_tensors
from zsad.errors import WeightsError

PATCH_EMBEDDING = "backbone.0.patch_embed.proj.weight"
UNUSED = ("label_enc.", "bert.embeddings.position_ids", "bert.pooler.")  # of the published files
# what training scripts wrap a state in, and put before every name
WRAPPERS = ("model", "state_dict", "model_state_dict", "ema_state_dict")
_PREFIXES = re.compile(r"((module|model)\.)+")


@dataclass(frozen=True)
class Swin:
    """An image backbone.  ``width``: of its patch embedding, by which a state is told."""

    name: str
    width: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    window: int
    image_size: int  # that it was pre-trained at; pixels


SWINS = {
    s.width: s
    for s in (
        Swin("swin_t", 96, (2, 2, 6, 2), (3, 6, 12, 24), 7, 224),
        Swin("swin_b", 128, (2, 2, 18, 2), (4, 8, 16, 32), 12, 384),
    )
}

# From the authors' names to those of the files that transformers publishes; applied in order.
_SWIN = "model.backbone.conv_encoder.model."
_NAMES = [
    (re.compile(old), new)
    for old, new in (
        (r"^bert\.", "model.text_backbone."),
        (r"^feat_map\.", "model.text_projection."),
        (r"^input_proj\.", "model.input_proj_vision."),
        (r"^transformer\.level_embed$", "model.level_embed"),
        (r"^transformer\.tgt_embed\.", "model.query_position_embeddings."),
        (r"^transformer\.enc_out_bbox_embed\.", "model.encoder_output_bbox_embed."),
        (r"^transformer\.enc_output", "model.enc_output"),
        # decoder
        (r"^transformer\.decoder\.norm\.", "model.decoder.layer_norm."),
        (r"^transformer\.decoder\.ref_point_head\.", "model.decoder.reference_points_head."),
        (r"^transformer\.decoder\.", "model.decoder."),
        (r"^(model\.decoder\.layers\.\d+)\.ca_text\.", r"\1.encoder_attn_text."),
        (r"^(model\.decoder\.layers\.\d+)\.catext_norm\.", r"\1.encoder_attn_text_layer_norm."),
        (r"^(model\.decoder\.layers\.\d+)\.cross_attn\.", r"\1.encoder_attn."),
        (r"^(model\.decoder\.layers\.\d+)\.norm1\.", r"\1.encoder_attn_layer_norm."),
        (r"^(model\.decoder\.layers\.\d+)\.norm2\.", r"\1.self_attn_layer_norm."),
        (r"^(model\.decoder\.layers\.\d+)\.norm3\.", r"\1.final_layer_norm."),
        (r"^(model\.decoder\.layers\.\d+)\.linear(\d)\.", r"\1.fc\2."),
        # encoder: three kinds of layers
        (r"^transformer\.encoder\.layers\.(\d+)\.", r"model.encoder.layers.\1.deformable_layer."),
        (r"\.deformable_layer\.norm1\.", ".deformable_layer.self_attn_layer_norm."),
        (r"\.deformable_layer\.norm2\.", ".deformable_layer.final_layer_norm."),
        (
            r"^transformer\.encoder\.text_layers\.(\d+)\.",
            r"model.encoder.layers.\1.text_enhancer_layer.",
        ),
        (r"\.text_enhancer_layer\.norm1\.", ".text_enhancer_layer.layer_norm_before."),
        (r"\.text_enhancer_layer\.norm2\.", ".text_enhancer_layer.layer_norm_after."),
        (r"^(model\.encoder\.layers\..*)\.linear(\d)\.", r"\1.fc\2."),
        (
            r"^transformer\.encoder\.fusion_layers\.(\d+)\.",
            r"model.encoder.layers.\1.fusion_layer.",
        ),
        (r"\.gamma_v$", ".vision_param"),
        (r"\.gamma_l$", ".text_param"),
        (r"\.layer_norm_v\.", ".layer_norm_vision."),
        (r"\.layer_norm_l\.", ".layer_norm_text."),
        (r"\.attn\.(values_|out_)?v_proj\.", r".attn.\1vision_proj."),
        (r"\.attn\.(values_|out_)?l_proj\.", r".attn.\1text_proj."),
        # image backbone
        (r"^backbone\.0\.patch_embed\.proj\.", f"{_SWIN}embeddings.patch_embeddings.projection."),
        (r"^backbone\.0\.patch_embed\.norm\.", f"{_SWIN}embeddings.norm."),
        (r"^backbone\.0\.norm1\.", f"{_SWIN}hidden_states_norms.stage2."),
        (r"^backbone\.0\.norm2\.", f"{_SWIN}hidden_states_norms.stage3."),
        (r"^backbone\.0\.norm3\.", f"{_SWIN}hidden_states_norms.stage4."),
        (r"^backbone\.0\.layers\.", f"{_SWIN}encoder.layers."),
        (r"(\.blocks\.\d+)\.norm1\.", r"\1.layernorm_before."),
        (r"(\.blocks\.\d+)\.norm2\.", r"\1.layernorm_after."),
        (r"(\.blocks\.\d+)\.mlp\.fc1\.", r"\1.intermediate.dense."),
        (r"(\.blocks\.\d+)\.mlp\.fc2\.", r"\1.output.dense."),
        (r"(\.blocks\.\d+)\.attn\.proj\.", r"\1.attention.output.dense."),
        (r"(\.blocks\.\d+)\.attn\.", r"\1.attention.self."),
    )
]
# The end of a name whose value holds query, key and value, one below the other.
_STACKED = re.compile(r"\.(?:in_proj_|qkv\.)(weight|bias)\Z")


def is_state(state: Any) -> bool:
    """Whether a loaded file is a Grounding DINO state (of either package version)."""
    return isinstance(state, Mapping) and PATCH_EMBEDDING in _unwrapped(state)


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a weight file safely, by the authors' names.  Raises :class:`WeightsError`."""
    raw = read_tensors(path)
    if not is_state(raw):
        raise WeightsError(
            f"{path}: no Grounding DINO state ('{PATCH_EMBEDDING}' is missing); give the .pth file "
            f"as its authors publish it, or a folder that transformers saved"
        )
    state = _unwrapped(raw)
    # positions and indices are whole numbers
    indices = {k for k, v in state.items() if isinstance(v, Tensor) and v.dtype == torch.int64}
    check_values(path, {k: v for k, v in state.items() if k not in indices})
    return state


def check(path: Path) -> None:
    """Raise :class:`WeightsError` unless a file is a readable state of a known backbone."""
    swin_of(read_state(path), path)


def swin_of(state: Mapping[str, Tensor], path: Path | str) -> Swin:
    """The image backbone of a state.  Raises :class:`WeightsError` for another than both."""
    width = int(state[PATCH_EMBEDDING].shape[0])
    if width not in SWINS:
        raise WeightsError(f"{path}: patch embedding of width {width} is neither Swin-T nor Swin-B")
    return SWINS[width]


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state by the names of transformers' published files; what is not used is left out.

    Stacked projections of queries, keys and values (3 D rows) become three of D rows each.
    """
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        if name.startswith(UNUSED):
            continue
        for old, new in _NAMES:
            name = old.sub(new, name)
        stacked = _STACKED.search(name)
        if stacked is None:
            found[name] = value
            continue
        for part, rows in zip(("query", "key", "value"), value.chunk(3)):
            found[f"{name[: stacked.start()]}.{part}.{stacked[1]}"] = rows.contiguous()
    return found


def _unwrapped(state: Mapping[str, Any]) -> dict[str, Any]:
    """Strip what training scripts leave around a state: entries and prefixes, one in another."""
    for _ in range(3):
        inner = next((state[w] for w in WRAPPERS if isinstance(state.get(w), Mapping)), None)
        if inner is None:
            break
        state = inner
    names = {str(k): v for k, v in state.items()}
    before = next((k[: -len(PATCH_EMBEDDING)] for k in names if k.endswith(PATCH_EMBEDDING)), "")
    if _PREFIXES.fullmatch(before):
        names = {k.removeprefix(before): v for k, v in names.items()}
    return names

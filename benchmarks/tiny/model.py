"""The model of zsad-tiny as it is trained: CLIP with OpenAI's parameter names, plus training taps.

open_clip runs the finished weights; this file trains them.  It differs in what training needs: the
dense outputs of several depths in one pass, token subsets, position interpolation per step.
A test compares its outputs with open_clip's.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zsad.io import parse_json

Config = dict[str, Any]


def read_config() -> Config:
    """The open_clip model file of zsad-tiny."""
    text = (files("zsad.backbones") / "tiny" / "config.json").read_text("utf-8")
    config: Config = parse_json(text, "tiny/config.json")
    return config


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(
        self, y: Tensor, mask: Tensor | None, vv: bool
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        """Attention output, the v-v output (None unless asked for), v itself, all [B, N, D]; and
        the attention of the first token to the others, one row per head [B, H, N - 1]."""
        b, n, d = y.shape
        qkv = F.linear(y, self.in_proj_weight, self.in_proj_bias)
        q, k, v = qkv.view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)

        def attend(a: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
            # Written out: on a CPU the backward pass of torch's fused attention is far slower.
            scores = (a * self.scale) @ c.transpose(-1, -2)
            if mask is not None:
                scores = scores + mask
            weights = scores.softmax(-1)
            heads = (weights @ v).transpose(1, 2).reshape(b, n, d)
            return self.out_proj(heads), weights[:, :, 0, 1:]

        out, first = attend(q, k)
        return out, attend(v, v)[0] if vv else None, qkv[..., 2 * d :], first


class Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = Mlp(width)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, vv: bool = False
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        a, b, v, first = self.attn(self.ln_1(x), mask, vv)
        x = x + a
        return x + self.mlp.c_proj(F.gelu(self.mlp.c_fc(self.ln_2(x)))), b, v, first


class Tower(nn.Module):
    def __init__(self, width: int, layers: int, heads: int) -> None:
        super().__init__()
        blocks = nn.ModuleList([Block(width, heads) for _ in range(layers)])
        self.resblocks = cast(Sequence[Block], blocks)  # to a type checker a list of any modules
        for block in self.resblocks:
            nn.init.normal_(block.attn.in_proj_weight, std=width**-0.5)
            nn.init.normal_(block.attn.out_proj.weight, std=width**-0.5 * (2 * layers) ** -0.5)
            nn.init.normal_(block.mlp.c_fc.weight, std=(2 * width) ** -0.5)
            nn.init.normal_(block.mlp.c_proj.weight, std=width**-0.5 * (2 * layers) ** -0.5)
            for linear in (block.attn.out_proj, block.mlp.c_fc, block.mlp.c_proj):
                nn.init.zeros_(linear.bias)


class Visual(nn.Module):
    def __init__(
        self, size: int, patch: int, width: int, layers: int, embed: int, vv_start: int
    ) -> None:
        super().__init__()
        self.side, self.vv_start = size // patch, vv_start
        scale = width**-0.5
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(scale * torch.randn(width))
        self.positional_embedding = nn.Parameter(scale * torch.randn(1 + self.side**2, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Tower(width, layers, width // 64)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(scale * torch.randn(width, embed))

    def embed(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> tokens with position [B, 1+L, D], before ``ln_pre``."""
        patches = self.conv1(images)
        h = patches.shape[-1]
        position: Tensor = self.positional_embedding
        if h != self.side:
            table = position[1:].view(1, self.side, self.side, -1).permute(0, 3, 1, 2)
            table = F.interpolate(
                table, (h, h), mode="bicubic", antialias=True, align_corners=False
            )
            position = torch.cat([position[:1], table.flatten(2)[0].T])
        tokens = patches.flatten(2).transpose(1, 2)
        return (
            torch.cat([self.class_embedding.to(tokens.dtype).expand(len(tokens), 1, -1), tokens], 1)
            + position
        )

    def project(self, x: Tensor) -> Tensor:
        projected: Tensor = self.ln_post(x) @ self.proj
        return projected

    def forward(
        self, tokens: Tensor, dense: tuple[int, ...] = ()
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Class embedding [B, E] and, for ``dense`` layers, patch embeddings [B, L, E]: of the
        ordinary path, and at the last layer also of the v-v path and of the values; besides, under
        "attention", the class token's attention in the last two layers [B, 2, H, L]."""
        x = self.ln_pre(tokens)
        out: dict[str, Tensor] = {}
        path: Tensor | None = None
        last = len(self.transformer.resblocks)
        looks: list[Tensor] = []
        for layer, block in enumerate(self.transformer.resblocks, 1):
            if dense and layer == self.vv_start:
                path = x
            x, vv, v, first = block(x, None, path is not None)
            if path is not None and vv is not None:
                path = path + vv
            if dense and layer >= last - 1:
                looks.append(first)
            if layer in dense and layer != last:
                out[f"layer {layer}"] = self.project(x[:, 1:])
            if dense and layer == last:
                out["values"] = self.project(block.attn.out_proj(v[:, 1:]))
        final = self.project(x)
        if dense and path is not None:
            out["last"] = final[:, 1:]
            out["v-v"] = self.project(path[:, 1:])
            out["attention"] = torch.stack(looks, 1)
        return final[:, 0], out


class TinyClip(nn.Module):
    """Both towers, parameter names as OpenAI's."""

    def __init__(self, config: Config, vv_start: int = 6) -> None:
        super().__init__()
        vision, text, embed = config["vision_cfg"], config["text_cfg"], config["embed_dim"]
        self.visual = Visual(
            vision["image_size"],
            vision["patch_size"],
            vision["width"],
            vision["layers"],
            embed,
            vv_start,
        )
        width = text["width"]
        self.transformer = Tower(width, text["layers"], text["heads"])
        self.token_embedding: nn.Module = nn.Embedding(text["vocab_size"], width)
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(text["context_length"], width))
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(width**-0.5 * torch.randn(width, embed))
        self.logit_scale = nn.Parameter(torch.tensor(2.6593))  # ln(1 / 0.07)

    def encode_text(self, ids: Tensor) -> Tensor:
        """Token ids [T, S], zero-padded after the end of text (the largest id) -> [T, E]."""
        length = ids.shape[1]
        x = self.token_embedding(ids) + self.positional_embedding[:length]
        mask = torch.full((length, length), float("-inf")).triu(1)
        for block in self.transformer.resblocks:
            x, *_ = block(x, mask)
        features: Tensor = self.ln_final(x[torch.arange(len(ids)), ids.argmax(1)])
        return features @ self.text_projection

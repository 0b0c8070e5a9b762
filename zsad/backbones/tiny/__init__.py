"""Gives the weights of ``zsad-tiny``, the demonstration CLIP that this project trained itself.

``weights.safetensors`` holds float16 tensors in OpenAI's naming.  Of the 49,408 word embeddings it
holds only the rows that were trained (``token_embedding.rows``, ids in ``token_embedding.ids``);
the others never changed from their start values and are regenerated here.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import numpy as np
import torch
from torch import Tensor

VOCABULARY = 49408
_SEED = 20_260
_STD = 0.02
_DRAWN = 1 << 18  # values at a time


def start_embeddings(width: int, rows: int = VOCABULARY) -> Tensor:
    """Word embeddings [rows, width] before training: uniform, standard deviation 0.02.

    Drawn from the raw stream of PCG64, which numpy guarantees not to change."""
    stream = np.random.PCG64(_SEED)
    table = np.empty(rows * width, dtype=np.float32)
    for part in np.split(table, range(_DRAWN, len(table), _DRAWN)):  # to save memory
        unit = (stream.random_raw(len(part)) >> np.uint64(11)).astype(np.float64) / 2.0**53  # 0..1
        part[:] = (unit - 0.5) * (12**0.5 * _STD)
    return torch.from_numpy(table.reshape(rows, width))


def pack(state: dict[str, Tensor], trained: Tensor) -> dict[str, Tensor]:
    """The tensors to store for a full state dict whose word embeddings changed at ``trained``."""
    packed = {
        k: v.detach().to(torch.float16).contiguous()
        for k, v in state.items()
        if k != "token_embedding.weight"
    }
    packed["token_embedding.ids"] = trained.to(torch.int32)
    packed["token_embedding.rows"] = (
        state["token_embedding.weight"][trained].detach().to(torch.float16)
    )
    return packed


def unpack(packed: dict[str, Tensor]) -> dict[str, Tensor]:
    """The full float32 state dict, OpenAI's naming, of what :func:`pack` stored."""
    state = {k: v.float() for k, v in packed.items() if not k.startswith("token_embedding.")}
    rows = packed["token_embedding.rows"].float()
    table = start_embeddings(rows.shape[1])
    table[packed["token_embedding.ids"].long()] = rows
    state["token_embedding.weight"] = table
    return state


def load_state(path: Any = None) -> dict[str, Tensor]:
    """The full state dict of the bundled weights, float32, OpenAI's naming."""
    from safetensors.torch import load

    source = path if path is not None else files(__name__) / "weights.safetensors"
    return unpack(load(source.read_bytes()))

"""States whose numbers are packed in a few bits: tensors of codes and scales, and back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from zsad.backbones.tensor_files import naming
from zsad.checkpoints.packing import GROUP, SCALES, PackedTensor, Packing, packed, unpacked
from zsad.errors import WeightsError

FEWEST_PACKED = 1024  # numbers of a tensor that is worth packing


def packed_state(state: Mapping[str, Tensor], bits: int) -> tuple[dict[str, Tensor], str]:
    """Tensors of codes and of scales, and how to read them."""
    tensors: dict[str, Tensor] = {}
    how: dict[str, PackedTensor] = {}
    for name, value in state.items():
        if value.numel() < FEWEST_PACKED:
            tensors[name] = value
            continue
        codes, scales = packed(value.float().numpy(), bits)
        tensors[name], tensors[f"{name}{SCALES}"] = map(torch.from_numpy, (codes, scales))
        how[name] = PackedTensor(bits, GROUP, tuple(value.shape))
    return tensors, Packing(tensors=how).text()


def unpacked_state(path: Path, state: dict[str, Tensor], packing: Packing) -> dict[str, Tensor]:
    """The state that a file stands for.  Raises :class:`WeightsError` for what does not fit."""
    state = dict(state)
    for name, how in packing.tensors.items():
        codes, scales = state.pop(name, None), state.pop(f"{name}{SCALES}", None)
        if codes is None or scales is None:
            raise WeightsError(
                f"checkpoint {path}: '{name}' is to be packed, and its codes or scales are not "
                "there; the file is damaged, get it again"
            )
        with naming(path, f"'{name}' cannot be unpacked"):
            values = unpacked(path, name, how, codes.numpy(), scales.numpy())
        state[name] = torch.from_numpy(values)
    return state

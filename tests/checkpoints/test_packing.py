"""Packed numbers: what is stored is what is read, and close to what was given."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from zsad.checkpoints.account import CheckpointMeta, numbers_of
from zsad.checkpoints.packing import KEY, PackedTensor, packed, unpacked
from zsad.checkpoints.states import DIGEST, load_any, save
from zsad.errors import WeightsError

META = CheckpointMeta("coop", {"preset": "default"}, "zsad-tiny", "", (), {})
STATE = {"heads": torch.linspace(-1, 1, 40 * 50).view(40, 50), "few": torch.tensor([0.1, 0.2])}


def test_a_known_answer() -> None:
    """Two groups of two: 4 bits, zero at 8, the lower half of a byte first."""
    how = PackedTensor(4, 2, (2, 2))
    codes = np.array([8 + 7 | (8 - 7) << 4, 8 + 1 | 8 << 4], np.uint8)
    found = unpacked("x", "t", how, codes, np.array([0.5, 2.0], np.float16))
    assert found.tolist() == [[3.5, -3.5], [2.0, 0.0]]


def test_codes_run_over_the_borders_of_bytes() -> None:
    how = PackedTensor(3, 4, (4,))  # codes 0..3 from the lowest bit on: 000 100 010 110
    found = unpacked("x", "t", how, np.array([0b10001000, 0b110], np.uint8), np.ones(1, np.float16))
    assert found.tolist() == [-4.0, -3.0, -2.0, -1.0]


@given(
    st.integers(2, 8),
    st.integers(1, 70),
    st.lists(st.floats(-1000, 1000, width=32), max_size=200),
)
def test_numbers_come_back_within_half_a_step(bits: int, group: int, values: list[float]) -> None:
    given_ = np.array(values, np.float32)
    how = PackedTensor(bits, group, given_.shape)
    codes, scales = packed(given_, bits, group)
    found = unpacked("x", "t", how, codes, scales)
    largest = 2 ** (bits - 1) - 1
    for start in range(0, len(given_), group):
        part, back = given_[start : start + group], found[start : start + group]
        step = np.abs(part).max() / largest
        # Never worse than plain rounding to the unshrunk scale, rounded to half precision itself.
        bound = np.sqrt(len(part)) * (0.5 * step + 1e-3 * np.abs(part).max() + 1e-6)
        assert np.linalg.norm(part - back) <= bound
    again = packed(found, bits, group)
    assert unpacked("x", "t", how, *again).shape == found.shape


def test_a_packed_state_is_small_and_loads_alike_every_time(tmp_path: Path) -> None:
    path = save(tmp_path / "s.safetensors", STATE, META, bits=4)
    first, second = load_any(path), load_any(path)
    assert first.meta == META
    assert path.stat().st_size < save(tmp_path / "h", STATE, META).stat().st_size - 6500
    for name, value in STATE.items():
        assert first.state[name].shape == value.shape
        assert torch.equal(first.state[name], second.state[name])
        torch.testing.assert_close(first.state[name], value, rtol=0, atol=0.5 / 7)
    assert torch.equal(first.state["few"], STATE["few"])  # few numbers stay as they are
    assert numbers_of(path) == 40 * 50 + 2


def test_numbers_that_cannot_be_packed() -> None:
    for bad in (np.inf, np.nan, 1e8):
        with pytest.raises(ValueError, match="cannot be packed"):
            packed(np.array([bad], np.float32), 4)


def changed(path: Path, target: Path, **values: object) -> Path:
    """The file with other words in the packing of its one packed tensor, or of all."""
    with safe_open(path, "pt") as file:
        header = dict(file.metadata())
    packing = json.loads(header[KEY])
    packing["kind"] = values.pop("kind", packing["kind"])
    packing["tensors"]["heads"] |= values
    save_file(load_file(path), target, {**header, KEY: json.dumps(packing)})
    return target


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"kind": "arithmetic-9"}, "packed as 'arithmetic-9', which this version does not know"),
        ({"bits": 9}, r"bits=9 must lie in 2\.\.8"),
        ({"bits": 3}, "of 3 bits needs 750 codes, the file holds uint8"),
        ({"group": 10**12}, r"group=1000000000000 must lie in 1\.\.4096"),
        ({"group": 65}, r"needs 31 scales, the file holds float16 \(32,\)"),
        ({"shape": [10**9, 10**9]}, "needs 500,000,000,000,000,000 codes"),
        ({"shape": [-40, -50]}, "no side of a shape lies below 0"),
        ({"shape": [40, "50"]}, "how its tensors are packed cannot be read"),
    ],
)
def test_what_a_header_claims_is_not_believed(
    values: dict[str, object], said: str, tmp_path: Path
) -> None:
    path = changed(save(tmp_path / "a", STATE, META, bits=4), tmp_path / "b", **values)
    with pytest.raises(WeightsError, match=said):
        load_any(path)


def test_codes_without_scales_and_scales_that_are_no_numbers(tmp_path: Path) -> None:
    path = save(tmp_path / "a", STATE, META, bits=4)
    with safe_open(path, "pt") as file:
        header = dict(file.metadata())
    del header[DIGEST]  # as a careful forger would
    tensors = load_file(path)
    scales = tensors.pop("heads:scales")
    save_file(tensors, tmp_path / "without", header)
    with pytest.raises(WeightsError, match="'heads' is to be packed, and its codes or scales"):
        load_any(tmp_path / "without")
    scales[3] = torch.inf
    save_file({**tensors, "heads:scales": scales}, tmp_path / "infinite", header)
    with pytest.raises(WeightsError, match="'heads' holds values that are not finite"):
        load_any(tmp_path / "infinite")

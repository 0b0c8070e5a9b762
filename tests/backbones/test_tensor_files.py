"""What a file says about its tensors is not believed, and every refusal names the file."""

from __future__ import annotations

import io
import json
import pickle
import resource
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from zsad.backbones import load
from zsad.backbones.tensor_files import is_finite, read_tensors, tensors_in
from zsad.backbones.weights import read_state
from zsad.errors import WeightsError

State = dict[str, Tensor]
KEY = "visual.ln_post.weight"


def refused(path: Path, action: Callable[[], Any]) -> str:
    with pytest.raises(WeightsError) as error:
        action()
    text = str(error.value)
    assert "\n" not in text
    assert str(path) in text
    return text


def _quantised(t: Tensor) -> Tensor:
    return torch.quantize_per_tensor(t, 0.1, 0, torch.qint8)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.to(torch.int8), "holds int8 values"),
        (lambda t: t > 0, "holds bool values"),
        (lambda t: t.to(torch.complex64), "holds complex64 values"),
        (lambda t: t.to_sparse(), "sparse"),
        (lambda t: t[None].to_sparse_csr(), "sparse"),
        (_quantised, "quantised"),
        (lambda t: t.to("meta"), "without values"),
        (lambda t: t * float("nan"), "not finite"),
        (lambda t: t / 0, "not finite"),
        (lambda t: torch.zeros(1).expand(10**14), "claims more values than the file holds"),
        (lambda t: torch.zeros(1).expand(t.shape), "claims more values than the file holds"),
    ],
)
def test_only_dense_finite_floating_weights_are_taken(
    clip_state: State, tmp_path: Path, change: Callable[[Tensor], Tensor], words: str
) -> None:
    path = tmp_path / "odd.pt"
    torch.save({**clip_state, KEY: change(clip_state[KEY])}, path)
    text = refused(path, lambda: read_state(path))
    assert words in text
    assert KEY in text


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("visual.conv1.weight", (0, 3, 8, 8)),
        ("visual.conv1.weight", (64,)),
        ("visual.conv1.weight", (64, 3, 0, 0)),
        ("visual.positional_embedding", (0, 64)),
        ("visual.positional_embedding", ()),
        ("ln_final.weight", (0,)),
        ("ln_final.weight", ()),
        ("text_projection", (5,)),
        ("token_embedding.weight", (0, 0)),
        ("visual.transformer.resblocks.0.mlp.c_fc.weight", (1, 1)),
        ("positional_embedding", ()),
    ],
)
def test_shapes_that_are_none_of_a_clip(
    clip_state: State, tmp_path: Path, key: str, shape: tuple[int, ...]
) -> None:
    path = tmp_path / "shape.pt"
    torch.save({**clip_state, key: torch.ones(shape)}, path)
    refused(path, lambda: load("file", weights=path))
    refused(path, lambda: load("ViT-B-32", weights=path))


def test_half_precision_is_floating(clip_state: State, tmp_path: Path) -> None:
    path = tmp_path / "half.pt"
    torch.save({k: v.half() for k, v in clip_state.items()}, path)
    state = read_state(path)
    assert all(v.dtype == torch.float32 for v in state.values())
    assert torch.equal(state[KEY], clip_state[KEY].half().float())


def test_a_sum_that_overflows_is_no_infinity() -> None:
    assert is_finite(torch.full((9,), 6e4, dtype=torch.float16))
    assert not is_finite(torch.tensor([1.0, float("inf"), -float("inf")]))
    assert is_finite(torch.zeros(0))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is empty"),
        (bytes(700), "nothing but zeros"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer"),
        (b"\n<!DOCTYPE html>\n<html><body>404</body></html>", "an HTML or XML page"),
        (b"\xef\xbb\xbf<html>", "an HTML or XML page"),
        (b'{"error": "Access to this model is restricted"}', "it is text: '{"),
        (b"Entry not found", "it is text: 'Entry not found'"),
        ("na\u00efve ".encode() * 200, "it is text: 'na\u00efve"),
        (b"\x1f\x8b\x08\0\0", "a gzip file"),
        (b"\x89PNG\r\n\x1a\n\0\0", "a PNG picture"),
    ],
)
@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_what_is_saved_as_weights_is_called_what_it_is(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert words in refused(path, lambda: read_tensors(path))


# -------------------------------------------------------------------------- lying headers
def safetensors(header: Any, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    "content",
    [
        safetensors({"a": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4]}}, bytes(4)),
        safetensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 400]}}, bytes(4)),
        safetensors({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, bytes(4)),
        safetensors({"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
        safetensors({"a": 5}, b""),
        safetensors(b"{" + b"[" * 100_000, b""),
        struct.pack("<Q", 1 << 60) + b"{}",
        struct.pack("<Q", 2) + b"{",
    ],
)
def test_headers_that_lie(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "lie.safetensors"
    path.write_bytes(content)
    refused(path, lambda: read_tensors(path))


def test_a_file_packed_to_nothing_is_not_unpacked(tmp_path: Path) -> None:
    plain, path = io.BytesIO(), tmp_path / "bomb.pt"
    torch.save({"a": torch.zeros(30 << 20)}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name in source.namelist():
            out.writestr(name, source.read(name))
    assert path.stat().st_size < 1 << 20
    assert "bytes that unpack to" in refused(path, lambda: read_tensors(path))


def test_containers_that_hold_themselves_come_to_an_end(tmp_path: Path) -> None:
    ring: list[Any] = [torch.ones(2)]
    ring.append(ring)
    doubled: Any = [torch.zeros(1)]
    for _ in range(64):  # 2**64 paths
        doubled = [doubled, doubled]
    assert [name.split(".")[0] for name, _ in tensors_in({"a": ring, "b": doubled})] == ["a", "b"]
    path = tmp_path / "ring.pt"
    torch.save({"a": ring, "b": doubled}, path)
    refused(path, lambda: read_state(path))


def test_a_pickle_of_other_things_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "numpy.pt"
    path.write_bytes(pickle.dumps({"a": np.zeros(3)}))
    refused(path, lambda: read_tensors(path))


def test_a_length_beyond_all_memory_is_the_fault_of_the_file(tmp_path: Path) -> None:
    """Forty bytes that announce a text of 4 GB, where less memory can be had."""
    path = tmp_path / "announced.pt"
    path.write_bytes(
        b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}q\x00(X\xff\xff\xff\xff"
    )
    old = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, old[1]))
    try:
        with pytest.raises(WeightsError, match="it claims more values than its") as caught:
            read_tensors(path)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, old)
    assert str(path) in str(caught.value)


def test_folders_and_missing_files(tmp_path: Path) -> None:
    assert "not a file" in refused(tmp_path, lambda: read_tensors(tmp_path))
    gone = tmp_path / "gone"
    assert "no such file" in refused(gone, lambda: read_tensors(gone))


def test_a_module_that_layers_share_is_counted_once(tmp_path: Path) -> None:
    """Released files repeat it under the name of every layer; without end it is refused."""
    shared = torch.randn(1000, 10)
    path = tmp_path / "shared.pt"
    torch.save({f"layers.{i}.weight": shared for i in range(4)}, path)
    assert len(read_tensors(path)) == 4
    torch.save({f"layers.{i}.weight": shared for i in range(40)}, path)
    refused(path, lambda: read_tensors(path))


def test_places_beyond_a_pickle_are_not_made(tmp_path: Path) -> None:
    """A TorchScript archive of 300 bytes filled four gigabytes with places for its objects."""
    path = tmp_path / "script.pt"
    for put in (b"r\xff\xff\xff\x0f", b"p268435455\n"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a/data.pkl", b"\x80\x02}" + put + b".")
            archive.writestr("a/constants.pkl", b"\x80\x02).")
        with pytest.raises(WeightsError, match=r"script.pt: .*more objects than it has bytes"):
            read_state(path)

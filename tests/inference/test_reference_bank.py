"""Reference banks: the same scores as the pictures, bound to what they were made for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import zsad
from zsad.errors import DataError, RequestError
from zsad.inference.reference_bank import read_account

FEW = {"overrides": {"shots": 2}}


def loaded(method: str, **options: Any) -> Any:
    return zsad.load_method(
        method, backbone="zsad-tiny", device="cpu", **{"image_size": 64, **options}
    )


def picture(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(90, 130, (64, 96, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


NORMAL = [picture(1), picture(2)]


@pytest.mark.parametrize("method", ["patchcore", "winclip", "alfa"])
def test_a_bank_gives_what_its_pictures_give(method: str, tmp_path: Path) -> None:
    expected = loaded(method, **FEW).predict(picture(5), "nut", references=NORMAL)[0]
    path = loaded(method, **FEW).save_bank(tmp_path / "a.bank", NORMAL, "nut")
    other = loaded(method, **FEW)
    other.load_bank(path, "nut")
    found = other.predict(picture(5), "nut")[0]
    assert found.image_score == expected.image_score
    np.testing.assert_array_equal(found.anomaly_map, expected.anomaly_map)
    assert read_account(path).shots == 2
    with pytest.raises(RequestError, match="--bank holds the references"):
        other.predict(picture(5), "nut", references=NORMAL)
    with pytest.raises(RequestError, match="--bank: is of 'nut', not of 'bolt'"):
        other.predict(picture(5), "bolt")


def test_a_population_is_compared_with_later(tmp_path: Path) -> None:
    """One picture with a bank of others scores as it does among them."""
    together = loaded("musc").predict([picture(5), *NORMAL], "nut")[0]
    path = loaded("musc").save_bank(tmp_path / "a.bank", NORMAL, "nut")
    alone = loaded("musc")
    alone.load_bank(path, "nut")
    found = alone.predict([picture(5)], "nut")[0]
    assert found.image_score == pytest.approx(together.image_score, abs=1e-5)
    np.testing.assert_allclose(found.anomaly_map, together.anomaly_map, atol=1e-5)
    assert "bank" in found.explanations[0].text


@pytest.mark.parametrize(
    ("options", "class_name", "key"),
    [
        ({"image_size": 128}, "nut", "image_size"),
        ({}, "bolt", "class_name"),
        ({"overrides": {"shots": 2, "layers": "penultimate"}}, "nut", "layers"),
        ({"weights": "random"}, "nut", "weights"),
        ({"precision": "bf16"}, "nut", "precision"),
        ({"tiles": 2}, "nut", "tiles"),
        ({"method": "winclip"}, "nut", "method"),
    ],
)
def test_a_bank_of_something_else_is_refused(
    options: dict[str, Any], class_name: str, key: str, tmp_path: Path
) -> None:
    path = loaded("patchcore", **FEW).save_bank(tmp_path / "a.bank", NORMAL, "nut")
    method = loaded(**{"method": "patchcore", **FEW, **options})
    with pytest.raises(RequestError, match=f"was made for {key}"):
        method.load_bank(path, class_name)
    with pytest.raises(RequestError, match=r"holds 2 pictures, and patchcore\.shots is 1"):
        loaded("patchcore").load_bank(path, "nut")


def test_a_damaged_or_foreign_file_is_refused(tmp_path: Path) -> None:
    method = loaded("patchcore", **FEW)
    whole = method.save_bank(tmp_path / "a.bank", NORMAL, "nut").read_bytes()
    path = tmp_path / "b.bank"

    def refused(content: bytes, message: str) -> None:
        path.write_bytes(content)
        with pytest.raises(DataError, match=message) as caught:
            method.load_bank(path, "nut")
        assert "--save-bank" in str(caught.value)

    refused(b"", "not a reference bank")
    refused(whole[: len(whole) // 2], "damaged")
    refused(whole[:-4] + b"\0\0\1\1", "do not match their digest")
    refused(b"\x80\x04" + whole, "not a reference bank")
    torch.save({"a": torch.zeros(3)}, path)
    refused(path.read_bytes(), "not a reference bank")
    save_file({"a": torch.zeros(3)}, path)
    refused(path.read_bytes(), "format unknown")
    tensors = load_file(tmp_path / "a.bank")
    save_file(tensors, path, {"format": "zsad-reference-bank-1", "account": json.dumps({"a": 1})})
    refused(path.read_bytes(), "its header")
    with pytest.raises(DataError, match="no such file"):
        method.load_bank(tmp_path / "absent", "nut")


def test_who_keeps_no_bank(tmp_path: Path) -> None:
    for method, message in (("clip", "keeps no bank"), ("winclip", "loaded for 0 reference")):
        with pytest.raises(RequestError, match=message):
            loaded(method).save_bank(tmp_path / "a", NORMAL, "nut")

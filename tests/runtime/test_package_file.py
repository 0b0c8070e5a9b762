"""A package that is damaged, changed, newer or no package at all is refused in one line."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from zsad.errors import RequestError
from zsad.runtime import package_file

PARTS = {"model.onnx": b"graph" * 40}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "part.zsad"
    file.write_bytes(package_file.write(file, {"format": "onnx", "zsad": "0.1.0"}, PARTS))
    return file


def repacked(path: Path, compression: int = zipfile.ZIP_STORED, **members: Any) -> None:
    """Write the members anew; None leaves one out."""
    with zipfile.ZipFile(path) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    held |= {name.replace("__", "."): content for name, content in members.items()}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, content in held.items():
            if content is not None:
                archive.writestr(name, content)
    path.write_bytes(out.getvalue())


def manifest(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        found: dict[str, Any] = json.loads(archive.read("zsad.json"))
    return found


def test_what_was_written_is_read(path: Path) -> None:
    contents = package_file.read(path)
    assert contents.parts == PARTS
    assert contents.manifest["zsad"] == "0.1.0"
    again = package_file.write(path, {"format": "onnx", "zsad": "0.1.0"}, PARTS)
    assert path.read_bytes() == again  # equal content, equal file


def refused(path: Path, words: str) -> None:
    with pytest.raises(RequestError, match=words) as error:
        package_file.read(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


def test_a_changed_graph_is_refused(path: Path) -> None:
    repacked(path, model__onnx=b"other" * 40)
    refused(path, r"model\.onnx is damaged or was changed")


def test_a_changed_description_is_refused(path: Path) -> None:
    told = manifest(path)
    told["class_name"] = "another"
    repacked(path, zsad__json=json.dumps(told))
    refused(path, r"zsad\.json is damaged or was changed")


def test_a_newer_package_says_so(path: Path) -> None:
    told = manifest(path) | {"package": package_file.FORMAT + 1, "zsad": "9.9"}
    repacked(path, zsad__json=json.dumps(told))
    refused(path, r"written by a newer zsad \(9\.9, format 3\).*update zsad")


def test_other_members_are_refused(path: Path) -> None:
    repacked(path, evil__py=b"import os")
    refused(path, "holds what its description does not name")


def test_packed_members_are_refused(path: Path) -> None:
    """They could be of any size once unpacked."""
    repacked(path, zipfile.ZIP_DEFLATED)
    refused(path, "is damaged or was changed")


@pytest.mark.parametrize("content", [b"", b"no zip at all", b"PK\x03\x04" + b"\0" * 40])
def test_what_is_no_package_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    refused(path, "not a package")


def test_every_cut_and_every_flipped_byte_is_noticed(path: Path) -> None:
    whole = path.read_bytes()
    right = package_file.read(path)
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place])
        refused(path, "part.zsad")
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        with contextlib.suppress(RequestError):  # but for bytes of the archive that nobody reads
            assert package_file.read(path) == right


def test_absent_files_and_folders(tmp_path: Path) -> None:
    refused(tmp_path / "none.zsad", "no such file")
    refused(tmp_path, "is a folder")

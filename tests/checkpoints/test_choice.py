"""Pictures of one's own have no target: one file is meant, or none."""

from __future__ import annotations

from pathlib import Path

import pytest

from zsad.checkpoints.choice import single
from zsad.errors import RequestError


def test_one_file_is_taken_whoever_wrote_it(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(b"nobody knows")
    for value in (path, str(path), tmp_path, f"local-dir:{tmp_path}"):
        assert single(value, "filo").path == path
    assert single(path, "filo").record() == {"checkpoint": "a.pth", "trained_on": []}


def test_several_files_and_targets_are_refused(tmp_path: Path) -> None:
    for name in ("a.pth", "b.pth"):
        (tmp_path / name).write_bytes(name.encode())
    with pytest.raises(RequestError) as caught:
        single(tmp_path, "filo")
    assert str(caught.value).endswith(
        "none of its files is known to be of filo: a.pth (what it was trained on is not known), "
        "b.pth (what it was trained on is not known); name one file"
    )
    with pytest.raises(RequestError, match="pictures of your own belong to no target"):
        single({"visa": tmp_path / "a.pth"}, "filo")
    with pytest.raises(RequestError, match=r"checkpoint=no.pth: no such file or folder"):
        single("no.pth", "filo")

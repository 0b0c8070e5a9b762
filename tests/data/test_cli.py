"""``zsad data check`` and ``zsad data prepare`` from the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.data.miniatures import write_miniature
from zsad.cli.main import main


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder in which everything is sound."""
    written = write_miniature("br35h", tmp_path)
    folder = tmp_path / f"things-{tmp_path.name}"  # definitions are known by name in a process
    folder.mkdir()
    (written.folder / "no").rename(folder / "normal")
    (written.folder / "yes").rename(folder / "anomalous")
    return folder


def _json(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_sound_dataset_exits_with_0(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", f"folder:{own}"]) == 0
    out = capsys.readouterr().out
    assert "test: 4 normal, 4 anomalous" in out
    assert out.rstrip().endswith(f"{own.name}: ok")


def test_other_counts_than_published_exit_with_3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_miniature("headct", tmp_path)
    root = ["--data-root", str(tmp_path)]
    assert main(["data", "check", "headct", *root, "--json"]) == 3
    document = _json(capsys)
    (report,) = document["datasets"]
    assert (report["n_normal"], report["n_anomalous"]) == (3, 3)
    assert report["published"] == [100, 100]
    assert not report["ok"]
    assert report["opened"] == 6
    assert report["variant"] == "whole"
    assert [f["severity"] for f in report["findings"]] == ["error"]


def test_several_datasets_one_of_them_absent(
    tmp_path: Path, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = ["--data-root", str(tmp_path)]
    assert main(["data", "check", f"folder:{own},isic", *root, "--json"]) == 3
    document = _json(capsys)
    assert [r["ok"] for r in document["datasets"]] == [True]
    assert [f["dataset"] for f in document["failed"]] == ["isic"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["check", "mvtek"], "did you mean 'mvtec'"),
        (["check", "isic"], "not found in"),
        (["check", "isic", "--archive", "a.zip"], "--archive belongs to"),
        (["prepare", "isic"], "ISBI2016|part 1 of the 2016 challenge"),
        (["prepare", "isic,lag"], "takes one dataset, not 2"),
        (["prepare", "isic", "--variant", "whole"], "belong to `zsad data check`"),
        (["check", "sdd", "--variant", "thrids"], "did you mean 'thirds'"),
    ],
)
def test_wrong_requests_exit_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    import re

    assert main(["data", *words, "--data-root", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert re.search(message, captured.err)
    assert captured.err.count("\n") == 1
    assert not captured.out


def test_prepare_extracts_into_a_new_data_root(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = write_miniature("kvasir", tmp_path / "download")
    archive = tmp_path / "kvasir-seg.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(p for p in written.folder.rglob("*") if p.is_file()):
            file.write(path, path.relative_to(tmp_path / "download"))
    data = tmp_path / "data"
    words = ["--data-root", str(data)]
    assert main(["data", "prepare", "kvasir", *words, "--archive", str(archive), "--json"]) == 0
    document = _json(capsys)
    assert document["files"] == 9
    assert (document["n_normal"], document["n_anomalous"]) == (0, 4)
    assert main(["data", "prepare", "kvasir", *words]) == 0  # it is there: nothing to do
    assert "0 normal and 4 anomalous" in capsys.readouterr().out


def test_torch_is_not_imported(tmp_path: Path) -> None:
    write_miniature("headct", tmp_path)
    code = (
        "import sys; from zsad.cli.main import main; "
        f"assert main(['data', 'check', 'headct', '--data-root', {str(tmp_path)!r}]) == 3; "
        "assert 'torch' not in sys.modules"
    )
    root = Path(__file__).resolve().parents[2]
    env = {**os.environ, "PYTHONPATH": str(root)}
    subprocess.run([sys.executable, "-c", code], check=True, env=env, capture_output=True)

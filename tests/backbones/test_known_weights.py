"""Weights are what their content says, whatever their name and place say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.backbones.hub import COMMIT, serving
from zsad.backbones import known_weights, load
from zsad.backbones.locate import locate
from zsad.backbones.specs import spec
from zsad.backbones.weights import resolve
from zsad.io import sha256_file

ROOT = Path(__file__).resolve().parents[2]
TRAP = "timm/vit_base_patch16_plus_clip_240.laion400m_e31"
HUB = f"{TRAP}@{COMMIT[:12]}"
FETCH = """
import dataclasses, json
from zsad.backbones.specs import spec
from zsad.backbones.weights import resolve
found = resolve(spec("vit-b-16-plus-240"), None, offline=False)
print(json.dumps({**dataclasses.asdict(found), "path": str(found.path)}))
"""


@pytest.fixture(scope="module")
def fetched(
    files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """The cache of a hub client after open_clip fetched a backbone through it, and what was found:
    real client code against a hub on the loopback."""
    folder = tmp_path_factory.mktemp("hub")
    content = files["oc.safetensors"].read_bytes()
    with serving({f"{TRAP}/open_clip_model.safetensors": content}) as address:
        env = {
            **{k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")},
            "HF_ENDPOINT": address,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_CACHE": str(folder / "hub"),
            "HF_HUB_DISABLE_XET": "1",
            "HOME": str(folder),
            "ZSAD_CACHE": str(folder / "zsad"),
            "PYTHONPATH": str(ROOT),
        }
        run = subprocess.run(
            [sys.executable, "-c", FETCH],
            env=env,
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        )
    return folder / "hub", json.loads(run.stdout.splitlines()[-1])


@pytest.fixture
def hub(
    fetched: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Path:
    """The snapshot of the fetched file, in what is this process's hub cache from now on."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(fetched[0]))
    monkeypatch.setenv("ZSAD_CACHE", str(tmp_path))
    return Path(fetched[1]["path"])


def test_what_the_hub_serves_is_named_by_repository_and_commit(
    fetched: tuple[Path, dict[str, Any]],
) -> None:
    """open_clip's list gives the tag e32 the repository of e31: both names are said."""
    _, found = fetched
    assert found["origin"]["grade"] == "hub"
    assert found["source"] == f"hub:{HUB}"
    assert found["tag"] == "laion400m_e32"
    asked = "asked for ViT-B-16-plus-240/laion400m_e32"
    assert found["origin"]["note"] == f"{asked}, loaded {HUB}"


def test_a_file_of_the_hub_is_no_unknown_one(hub: Path) -> None:
    info = load("file", weights=hub).info
    assert (info.weights_grade, info.weights_name, info.banner) == ("hub", HUB, "")
    # The same file under another name of backbone: both names stand in every output.
    found = locate(spec("vit-l-14-336"), hub)
    assert found is not None
    assert found.origin.note == f"asked for ViT-L-14-336/openai, loaded {HUB}"


def test_a_changed_blob_is_unknown(hub: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """The cache's folder, repository and commit are right, and the content is not."""
    from huggingface_hub import constants

    inside = hub.relative_to(constants.HF_HUB_CACHE)
    blob = tmp_path / "hub" / hub.resolve().relative_to(Path(constants.HF_HUB_CACHE).resolve())
    blob.parent.mkdir(parents=True)
    content = bytearray(hub.read_bytes())
    content[-1] ^= 1  # one bit of one weight
    blob.write_bytes(content)
    other = tmp_path / "hub" / inside
    other.parent.mkdir(parents=True)
    other.symlink_to(blob)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    info = load("file", weights=other).info
    assert info.weights_grade == "unknown"
    assert info.banner.startswith(f"unknown weights: {hub.name}, sha256 {info.weights_sha256[:12]}")


def test_a_copy_outside_of_the_cache_is_unknown(hub: Path, tmp_path: Path) -> None:
    """So is a whole folder that looks like the hub's cache, and lies elsewhere."""
    place = tmp_path / hub.parent.parent.parent.name
    blob = place / "blobs" / sha256_file(hub)
    blob.parent.mkdir(parents=True)
    blob.write_bytes(hub.read_bytes())
    copy = place / "snapshots" / COMMIT / hub.name
    copy.parent.mkdir(parents=True)
    copy.symlink_to(blob)
    for path in (blob, copy):
        assert known_weights.origin(path, sha256_file(path)).grade == "unknown"


def test_a_name_is_no_evidence(files: dict[str, Path], tmp_path: Path, monkeypatch: Any) -> None:
    """A real weight file in the cache folder, under the name of OpenAI's."""
    monkeypatch.setenv("ZSAD_WEIGHTS", str(tmp_path))
    (tmp_path / "ViT-L-14-336px.pt").write_bytes(files["jit.pt"].read_bytes())
    found = resolve(spec("vit-l-14-336"), None, offline=True)
    assert found.origin == known_weights.Origin("unknown")
    assert found.source == "file:ViT-L-14-336px.pt"


OPENAI = "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02"
E31 = "8fb26589b9a8bab2e7a683d280e48df89b8e742f3a82132707282620b36facba"


@pytest.mark.parametrize(
    ("digest", "asked", "grade", "name", "note"),
    [
        (OPENAI, ("ViT-L-14-336", "openai"), "known", "ViT-L-14-336/openai", ""),
        (OPENAI, ("ViT-L-14-336-quickgelu", "openai"), "known", "ViT-L-14-336/openai", ""),
        (OPENAI, ("", ""), "known", "ViT-L-14-336/openai", ""),
        (
            E31,
            ("ViT-B-16-plus-240", "laion400m_e32"),
            "known",
            "ViT-B-16-plus-240/laion400m_e31",
            "asked for ViT-B-16-plus-240/laion400m_e32, loaded ViT-B-16-plus-240/laion400m_e31",
        ),
        (OPENAI[:-1] + "3", ("ViT-L-14-336", "openai"), "unknown", "", ""),
    ],
)
def test_published_files_are_known_by_hash(
    digest: str, asked: tuple[str, str], grade: str, name: str, note: str
) -> None:
    found = known_weights.origin(Path("any.pt"), digest, *asked)
    assert (found.grade, found.name, found.note) == (grade, name, note)


def test_the_table_is_whole() -> None:
    """Hashes are whole and told once; the files that the specs name are in it."""
    rows = known_weights.table()
    hashes = [row.sha256 for row in rows if row.sha256]
    assert len(set(hashes)) == len(hashes) == 17
    assert all(len(h) == 64 and set(h) <= set("0123456789abcdef") for h in hashes)
    assert all(bool(row.sha256) != bool(row.repository) for row in rows)
    named = {row.file for row in rows}
    for name in ("vit-l-14-336", "vit-b-16-plus-240"):
        assert spec(name).weights_file in named


def test_the_table_is_that_of_the_notes(shared_dir: Path) -> None:
    import csv

    path = shared_dir / "spec" / "clip_weights.csv"
    with path.open(encoding="utf-8", newline="") as file:
        facts = {r["sha256"]: (r["model"], r["tag"]) for r in csv.DictReader(file)}
    ours = {row.sha256: (row.model, row.tag) for row in known_weights.table() if row.sha256}
    assert ours == {h: v for h, v in facts.items() if len(h) == 64 and v[0] != "all"}


def test_random_and_demonstration_weights_are_said() -> None:
    banner = known_weights.banner
    assert "random" in banner(known_weights.Origin("random"), False, "random", "")
    assert "demonstration" in banner(known_weights.Origin("bundled"), True, "bundled", "")
    both = banner(known_weights.Origin("unknown"), True, "file:mine.pt", "ab" * 32)
    assert "demonstration" in both
    assert "unknown weights: mine.pt, sha256 abababababab" in both
    assert banner(known_weights.Origin("known", "x/y"), False, "file:x", "ab") == ""

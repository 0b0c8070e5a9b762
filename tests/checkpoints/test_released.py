"""Released files are known by what they hold, whatever they are called."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from zsad.checkpoints import released
from zsad.checkpoints.released import Content, ReleasedFile, content_of, recognise, released_files
from zsad.registry import list_backbones, list_datasets, methods

# Of the authors' repositories: git's id of the file at its path, and what train.sh trained it on.
KNOWN = {
    "c90f1d9d92d158b436a8fc193f984d4cec8b1fc8": ("9_12_4_multiscale/epoch_15.pth", "visa"),
    "72adc786e031b49ea288ba5f815f0d38cf158708": ("9_12_4_multiscale_visa/epoch_15.pth", "mvtec"),
    "e14e74abcc188afeb2d4a0212ab75d5f66b9a4e9d6b2aa64854a05001dfe5773": (
        "filo_train_on_mvtec.pth",
        "mvtec",
    ),
    "90b45c23a8154274182625ef341b88252220321ddd3bd02a14936daad85486da": (
        "grounding_train_on_mvtec.pth",
        "mvtec",
    ),
}


@pytest.mark.parametrize("digest", KNOWN)
def test_the_table_says_what_a_file_was_trained_on(digest: str) -> None:
    sha, blob = (digest, "") if len(digest) == 64 else ("", digest)
    row = released.by_content(Content(sha, blob))
    assert row is not None
    assert (row.file, " ".join(row.trained_on)) == KNOWN[digest]
    assert row.official
    assert row.saw(row.trained_on[0])
    assert not row.serves_target(row.trained_on[0])
    assert row.serves_target({"mvtec": "visa", "visa": "mvtec"}[row.trained_on[0]])


def test_the_table_is_whole() -> None:
    rows = released_files()
    hashes = [h for r in rows for h in (r.content.sha256, r.content.git_blob) if h]
    assert len(rows) == 87
    assert len(set(hashes)) == len(hashes)
    assert all(len(h) in (40, 64) for h in hashes)
    hosted = [r for r in rows if r.method in methods()]
    assert {r.method for r in hosted} >= {"filo", "anomalyclip", "aprilgan"}
    known = {*list_datasets(), released.ANY}
    for row in hosted:
        assert set(row.trained_on) | set(row.serves) <= known, row.file
        assert row.backbone in list_backbones()
        assert row.preset in methods()[row.method].presets
    # One file of each method for each direction is what its authors evaluate.
    for method in ("filo", "anomalyclip", "aprilgan", "adaptclip"):
        official = [r for r in hosted if r.method == method and r.official]
        assert sorted(r.trained_on for r in official) == [("mvtec",), ("visa",)]
    adaclip = {r.trained_on for r in hosted if r.method == "adaclip" and r.official}
    assert {("mvtec", "cvc_colondb"), ("visa", "cvc_clinicdb")} <= adaclip
    # No hash of theirs is published: their READMEs say how such a file is imported.
    assert not {"vcpclip", "bayespfl", "aaclip"} & {r.method for r in hosted}


def test_a_file_has_the_ids_that_git_and_sha256sum_give(tmp_path: Path) -> None:
    path = tmp_path / "a b.pth"
    path.write_bytes(bytes(range(256)) * 5000)
    git = subprocess.run(["git", "hash-object", path], capture_output=True, text=True, check=True)
    assert content_of(path).git_blob == git.stdout.strip()
    before = content_of(path)
    path.write_bytes(b"something else")
    assert content_of(path) != before
    assert recognise(path) is None


def test_what_an_evaluation_does_otherwise_is_named() -> None:
    row = next(r for r in released_files() if r.file == "filo_train_on_visa.pth")
    same = {"backbone": "vit-l-14-336", "image_size": 518, "preset": "released"}
    assert row.misfits(same) == []
    assert row.misfits({**same, "image_size": 240, "preset": "default"}) == [
        "image size 240, not 518",
        "preset default, not released",
    ]
    assert row.serves_words == "mvtec"


def test_a_third_party_or_another_epoch_is_not_what_the_authors_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = {r.file: r for r in released_files()}
    assert not rows["9_12_4_multiscale/epoch_3.pth"].official
    assert not rows["mvtec/vit_large_14_518/epoch_15.pth"].official
    stock: ReleasedFile = rows["groundingdino_swint_ogc.pth"]
    assert stock.serves_words == "every dataset"
    assert stock.serves_target("mvtec")

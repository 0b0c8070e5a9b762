"""Archives: whole ones end in place, unsafe and broken ones leave nothing behind."""

from __future__ import annotations

import hashlib
import io
import stat
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from tests.data.miniatures import write_miniature
from zsad.data import prepare as module
from zsad.data.catalog import load_spec
from zsad.data.prepare import extract, prepare, where_to_get
from zsad.errors import DataError, RequestError


def _zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def _tar(path: Path, *entries: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for info, content in entries:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def _everything_below(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def _packed(tmp_path: Path, name: str, kind: str) -> Path:
    """A miniature packed as it is distributed."""
    write_miniature(name, tmp_path / "source")
    path = tmp_path / f"download.{kind}"
    files = [p for p in sorted((tmp_path / "source").rglob("*")) if p.is_file()]
    if kind == "zip":
        return _zip(path, {str(p.relative_to(tmp_path / "source")): p.read_bytes() for p in files})
    with tarfile.open(path, "w") as archive:
        for p in files:
            archive.add(p, p.relative_to(tmp_path / "source"))
    return path


@pytest.mark.parametrize(("name", "kind"), [("mpdd", "zip"), ("visa", "tar"), ("kvasir", "zip")])
def test_a_downloaded_archive_becomes_a_dataset(tmp_path: Path, name: str, kind: str) -> None:
    root = tmp_path / "data"
    prepared = prepare(name, root, _packed(tmp_path, name, kind))
    assert prepared.files == len(_everything_below(root / name))
    assert prepared.index.problems == ()
    assert prepared.index.counts() == load_counts(tmp_path / "source", name)
    assert [p.name for p in root.iterdir()] == [name]  # nothing temporary is left
    again = prepare(name, root)
    assert (again.files, again.index.fingerprint) == (0, prepared.index.fingerprint)


def load_counts(root: Path, name: str) -> tuple[int, int]:
    from zsad.data.index import load_index

    return load_index(name, root).counts()


@pytest.mark.parametrize(
    "member", ["../outside.txt", "a/../../outside.txt", "/absolute.txt", "C:\\x.txt", "..\\out.txt"]
)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_no_path_outside_the_target(tmp_path: Path, member: str, kind: str) -> None:
    archive = tmp_path / "evil"
    if kind == "zip":
        _zip(archive, {"good.txt": b"1", member: b"2"})
    else:
        _tar(archive, (tarfile.TarInfo("good.txt"), b"1"), (tarfile.TarInfo(member), b"2"))
    with pytest.raises(DataError, match="leads out of the target folder"):
        extract(archive, tmp_path / "deep" / "target")
    assert _everything_below(tmp_path) == ["evil"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_no_links_and_devices_in_a_tar(tmp_path: Path, kind: bytes) -> None:
    info = tarfile.TarInfo("link")
    info.type, info.linkname = kind, "/etc/passwd"
    archive = _tar(tmp_path / "evil.tar.gz", (tarfile.TarInfo("a"), b"1"), (info, b""))
    with pytest.raises(DataError, match="link is a link or device"):
        extract(archive, tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_no_links_in_a_zip(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(DataError, match="link is a link"):
        extract(tmp_path / "evil.zip", tmp_path / "target")


def test_limits_hold_whatever_the_archive_claims(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(3_000_000))
    with pytest.raises(DataError, match="more than 1,000,000 bytes"):
        extract(bomb, tmp_path / "target", max_bytes=1_000_000)
    many = _zip(tmp_path / "many.zip", {f"{i}": b"" for i in range(11)})
    with pytest.raises(DataError, match="more than 10 files"):
        extract(many, tmp_path / "target", max_files=10)
    assert _everything_below(tmp_path) == ["bomb.zip", "many.zip"]


def test_broken_archives_name_themselves(tmp_path: Path) -> None:
    whole = _packed(tmp_path, "kvasir", "zip").read_bytes()
    cut = tmp_path / "cut.zip"
    cut.write_bytes(whole[: len(whole) // 2])
    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes(whole[:200] + bytes(60) + whole[260:])
    seven = tmp_path / "images.7z"
    seven.write_bytes(b"7z\xbc\xaf\x27\x1c" + bytes(50))
    with pytest.raises(DataError, match=r"cut\.zip"):
        extract(cut, tmp_path / "target")
    with pytest.raises(DataError, match=r"damaged\.zip"):
        extract(damaged, tmp_path / "target")
    with pytest.raises(DataError, match=r"images\.7z.*`7z x`"):
        extract(seven, tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_existing_files_are_never_replaced(tmp_path: Path) -> None:
    target = tmp_path / "target"
    extract(_zip(tmp_path / "1.zip", {"a/1": b"1"}), target)
    extract(_zip(tmp_path / "2.zip", {"a/2": b"2"}), target)  # a second archive of the same set
    with pytest.raises(DataError, match="exists already"):
        extract(_zip(tmp_path / "3.zip", {"a/0": b"0", "a/1": b"changed"}), target)
    assert _everything_below(target) == ["a/1", "a/2"]
    assert (target / "a" / "1").read_bytes() == b"1"


def test_checksums_where_known(tmp_path: Path) -> None:
    archive = _packed(tmp_path, "kvasir", "zip")
    spec = load_spec("kvasir")
    assert spec.archive is not None
    right = hashlib.sha256(archive.read_bytes()).hexdigest()
    for digest, fine in ((right, True), ("0" * 64, False)):
        known = replace(spec, archive=replace(spec.archive, sha256={archive.name: digest}))
        if fine:
            assert prepare(known, tmp_path / "data", archive).files > 0
        else:
            with pytest.raises(DataError, match="SHA-256"):
                prepare(known, tmp_path / "other", archive)


def test_a_missing_archive_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"VisA_20220922\.tar.*spot-diff"):
        prepare("visa", tmp_path)
    with pytest.raises(RequestError, match=r"nothere\.zip: no such file"):
        prepare("visa", tmp_path, tmp_path / "nothere.zip")
    with pytest.raises(RequestError, match="--data-root"):
        prepare("visa", None)
    spec = load_spec("elpv")
    assert "pip install elpv-dataset" in where_to_get(spec)


def test_an_archive_of_the_usual_name_is_found(tmp_path: Path) -> None:
    archive = _packed(tmp_path, "kvasir", "zip")
    (tmp_path / "data").mkdir()
    archive.rename(tmp_path / "data" / "kvasir-seg.zip")
    assert prepare("kvasir", tmp_path / "data").files > 0


def test_a_whole_package_needs_no_archive() -> None:
    pytest.importorskip("elpv_dataset", reason="the package elpv-dataset is not installed")
    prepared = prepare("elpv", None)
    assert prepared.files == 0
    assert prepared.index.counts() == (377, 715)


def test_a_bomb_is_measured_by_its_own_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RATIO_FROM", 100_000)
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(2_000_000))
    with pytest.raises(DataError, match=r"holds more than [\d,]+ bytes; refused"):
        extract(bomb, tmp_path / "target")
    assert _everything_below(tmp_path) == ["bomb.zip"]


def test_one_archive_of_several_datasets(tmp_path: Path) -> None:
    """Each dataset takes its own folder out of it, however deep the archive wraps it."""
    write_miniature("cvc_colondb", tmp_path / "a")
    write_miniature("cvc_colondb", tmp_path / "b")
    (tmp_path / "b" / "CVC-ColonDB").rename(tmp_path / "a" / "CVC-ClinicDB")
    archive = tmp_path / "Polyp_DataSet.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(p for p in (tmp_path / "a").rglob("*") if p.is_file()):
            file.write(path, Path("Polyp_DataSet") / path.relative_to(tmp_path / "a"))
    for name, folder in (("cvc_colondb", "CVC-ColonDB"), ("cvc_clinicdb", "CVC-ClinicDB")):
        done = prepare(name, tmp_path / "data", archive)
        assert done.index.root == tmp_path / "data" / name / "Polyp_DataSet" / folder
        assert done.index.counts() == (0, 4)


def test_an_archive_of_a_common_name_is_not_taken_for_ours(tmp_path: Path) -> None:
    (tmp_path / "archive.zip").write_bytes(b"of some other dataset")
    with pytest.raises(RequestError, match="dataset br35h is not in"):
        prepare("br35h", tmp_path)

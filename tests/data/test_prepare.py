"""Archives: whole ones end in place, unsafe and broken ones leave nothing behind."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import stat
import tarfile
import zipfile
from collections.abc import Callable
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
    behead = tmp_path / "tail.zip"
    behead.write_bytes(whole[10:])
    with pytest.raises(DataError, match=r"cut\.zip: neither.*begins as a zip, but its end is miss"):
        extract(cut, tmp_path / "target")
    with pytest.raises(DataError, match=r"tail\.zip: broken or unreadable archive"):
        extract(behead, tmp_path / "target")
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


def test_an_extraction_that_was_killed_is_finished_by_the_same_command(tmp_path: Path) -> None:
    """At every file that may be moved last, into a folder that holds something else as well."""
    content = {f"a/{i}": bytes([i]) for i in range(5)}
    archive = _zip(tmp_path / "a.zip", content)
    for moved in range(len(content) + 1):
        target = tmp_path / f"target-{moved}"
        (target / "a").mkdir(parents=True)
        (target / "mine").write_bytes(b"mine")
        for name in list(content)[:moved]:
            (target / name).write_bytes(content[name])
        extract(archive, target)
        assert _everything_below(target) == [*content, "mine"]
        assert all((target / name).read_bytes() == value for name, value in content.items())
        assert (target / "mine").read_bytes() == b"mine"
    assert not [p for p in tmp_path.iterdir() if "partial" in p.name]


def test_what_is_in_the_way_of_an_archive_is_said_before_anything_moves(tmp_path: Path) -> None:
    archive = _zip(tmp_path / "a.zip", {"a/1": b"1", "b/c/2": b"2"})
    for way in ("b", "b/c"):
        target = tmp_path / way.replace("/", "-")
        (target / way).parent.mkdir(parents=True)
        (target / way).write_bytes(b"a file")
        with pytest.raises(DataError, match="is not a folder; remove it"):
            extract(archive, target)
        assert _everything_below(target) == [way]
    (tmp_path / "folder" / "a" / "1").mkdir(parents=True)
    with pytest.raises(DataError, match="exists already with other content"):
        extract(archive, tmp_path / "folder")


# ------------------------------------------------------------------------ bounds of headers
def _headers(kind: bytes, size: int, count: int = 1) -> bytes:
    info = tarfile.TarInfo("h")
    info.type, info.size = kind, size
    record = b"%d k=" % size
    body = record + b"v" * (size - len(record) - 1) + b"\n"
    return (info.tobuf(tarfile.USTAR_FORMAT) + body + bytes(-size % 512)) * count


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize(
    ("kind", "size", "count"),
    [
        (tarfile.XHDTYPE, 3 << 20, 1),
        (tarfile.XGLTYPE, 3 << 20, 1),
        (tarfile.GNUTYPE_LONGNAME, 3 << 20, 1),
        (tarfile.GNUTYPE_LONGLINK, 3 << 20, 1),
        (tarfile.XHDTYPE, 1 << 19, 4),
        (tarfile.XHDTYPE, 512, 3000),
        (tarfile.XGLTYPE, 512, 3000),
    ],
)
def test_headers_of_a_tar_have_a_bound(
    tmp_path: Path, kind: bytes, size: int, count: int, pack: Callable[[bytes], bytes]
) -> None:
    archive = tmp_path / "bomb.tar"
    archive.write_bytes(pack(_headers(kind, size, count) + bytes(1024)))
    with pytest.raises(DataError, match=r"bomb\.tar: ") as error:
        extract(archive, tmp_path / "target")
    assert "\n" not in str(error.value)
    assert _everything_below(tmp_path) == ["bomb.tar"]


def test_a_header_within_the_bound_is_read(tmp_path: Path) -> None:
    name = "/".join(["folder"] * 100) + "/file"
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        with tarfile.open(tmp_path / "long.tar", "w:xz", format=form) as archive:
            info = tarfile.TarInfo(name)
            info.size = 3
            archive.addfile(info, io.BytesIO(b"abc"))
        extract(tmp_path / "long.tar", tmp_path / f"{form}")
        assert (tmp_path / f"{form}" / name).read_bytes() == b"abc"


def test_the_directory_of_a_zip_has_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = _zip(tmp_path / "many.zip", {f"{'n' * 200}/{i}": b"" for i in range(2000)})
    monkeypatch.setenv("ZSAD_MAX_ARCHIVE_FILES", "400")
    with pytest.raises(DataError, match=r"many\.zip: holds a header or directory"):
        extract(archive, tmp_path / "target")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<!doctype html><title>Sign in</title>", "it is an HTML or XML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "it is a Git LFS pointer"),
        (b"", "it is empty"),
        (bytes(2000), "holds no files|nothing but zeros"),
    ],
)
def test_what_is_saved_as_an_archive_is_called_what_it_is(
    tmp_path: Path, content: bytes, words: str
) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.zip: .*({words})"):
        extract(tmp_path / "a.zip", tmp_path / "target")


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


def _lzma_alone(path: Path, window: int) -> None:
    """A tar in an ``.lzma`` file that asks for a window of so many bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tape:
        info = tarfile.TarInfo("folder/a.txt")
        info.size = 7
        tape.addfile(info, io.BytesIO(b"content"))
    packed = bytearray(lzma.compress(buffer.getvalue(), format=lzma.FORMAT_ALONE))
    packed[1:5] = window.to_bytes(4, "little")
    path.write_bytes(packed)


def test_the_window_of_an_archive_has_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A header of 13 bytes makes LZMA set up a window of up to 4 GB."""
    path = tmp_path / "a.tar.lzma"
    _lzma_alone(path, 3 << 30)
    with pytest.raises(DataError, match=r"a.tar.lzma: it was packed with a window of more than"):
        extract(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    _lzma_alone(path, 1 << 23)
    extract(path, tmp_path / "out")
    assert (tmp_path / "out" / "folder" / "a.txt").read_text() == "content"
    monkeypatch.setenv("ZSAD_MAX_ARCHIVE_WINDOW", "1_000_000")
    with pytest.raises(DataError, match="ZSAD_MAX_ARCHIVE_WINDOW raises the limit"):
        extract(path, tmp_path / "other")

    zipped = tmp_path / "a.zip"
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.txt", "content")
    with pytest.raises(DataError, match=r"a.zip: member a.txt was packed with a window"):
        extract(zipped, tmp_path / "other")
    monkeypatch.delenv("ZSAD_MAX_ARCHIVE_WINDOW")
    extract(zipped, tmp_path / "zip")
    assert (tmp_path / "zip" / "a.txt").read_text() == "content"


def test_streams_of_xz_are_read_as_lzma_reads_them(tmp_path: Path) -> None:
    """Several streams in one file, padded or not, seeking, other bytes behind, a file cut short."""
    from zsad.data.lzma_files import XzReader

    texts = [bytes(range(256)) * 2000, b"", b"more" * 50_000]
    content = b"".join(lzma.compress(t) for t in texts)
    path = tmp_path / "a.xz"
    for behind in (b"", b"not a stream"):
        path.write_bytes(content + behind)
        with lzma.open(path) as theirs, XzReader.open(path) as ours:
            assert ours.read() == theirs.read() == b"".join(texts)
            for place in (300_000, 5, 711_999, 10**9):
                assert ours.seek(place) == theirs.seek(place)
                assert ours.read(9) == theirs.read(9)
    path.write_bytes((b"\0" * 70_000).join(lzma.compress(t) for t in texts))
    with XzReader.open(path) as padded:  # which lzma takes for the end
        assert padded.read() == b"".join(texts)
    path.write_bytes(lzma.compress(texts[0])[:-20])
    with XzReader.open(path) as cut, pytest.raises(EOFError):
        cut.read()

"""Folders of one's own: every file has one role, whatever the layout, the names and the strays."""

from __future__ import annotations

import itertools
import json
import os
import random
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zsad.cli.main import main
from zsad.data import catalog
from zsad.data.catalog import select_datasets
from zsad.data.index import DatasetIndex, load_index
from zsad.data.indexers.own_folder import Understood, understand
from zsad.data.indexers.words import kind_of
from zsad.errors import DataError, RequestError


@pytest.fixture(autouse=True)
def _forget_own_datasets() -> Iterator[None]:
    with catalog.own_forgotten():
        yield


def put(path: Path, grey: int = 9) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() in (".png", ".jpg", ".bmp"):
        Image.fromarray(np.full((6, 6), grey, np.uint8)).save(path)
    else:
        path.write_text("no picture")


def tree(home: Path, *names: str) -> Understood:
    for name in names:
        put(home / name)
    return understand(home)


def roles(found: Understood) -> dict[str, str]:
    return {e.path: e.role for e in found.account.entries}


def labels(found: Understood) -> dict[str, tuple[str, int, str]]:
    return {p.path: (p.category, p.label, p.split) for p in found.pictures}


def index(home: Path) -> DatasetIndex:
    return load_index(select_datasets(f"folder:{home}")[0])


# -------------------------------------------------------------------------- known answers
@pytest.mark.parametrize("good", ["good", "normal", "OK", "Ok", "Normal", "no_defect"])
@pytest.mark.parametrize("bad", ["bad", "NG", "Defect", "anomalous", "not good", "KO"])
@pytest.mark.parametrize("above", ["", "test/", "val/", "Test/images/", "test_public/"])
def test_names_of_the_classes(tmp_path: Path, good: str, bad: str, above: str) -> None:
    found = tree(tmp_path, f"{above}{good}/1.png", f"{above}{bad}/1.png", f"train/{good}/2.png")
    assert labels(found) == {
        f"{above}{good}/1.png": ("", 0, "test"),
        f"{above}{bad}/1.png": ("", 1, "test"),
        f"train/{good}/2.png": ("", 0, "train"),
    }


def test_train_and_val_are_no_categories(tmp_path: Path) -> None:
    found = tree(tmp_path, "train/good/1.png", "val/good/1.png", "val/bad/1.png")
    assert found.categories == [""]
    assert sorted(labels(found).values()) == [("", 0, "test"), ("", 0, "train"), ("", 1, "test")]
    # beside a test part, the validation part is not tested
    found = tree(tmp_path, "test/good/1.png", "test/bad/1.png")
    assert roles(found)["val/bad/1.png"] == "left out"
    assert sum(split == "test" for _, _, split in labels(found).values()) == 2


def test_the_layout_of_mvtec_ad_2(tmp_path: Path) -> None:
    found = tree(
        tmp_path,
        "can/train/good/1.png",
        "can/validation/good/1.png",
        "can/test_public/good/1.png",
        "can/test_public/bad/1.png",
        "can/test_public/ground_truth/bad/1_mask.png",
        "can/test_private/1.png",
    )
    assert found.categories == ["can"]
    assert found.account.counts() == {
        "normal": 1, "anomalous": 1, "training": 1, "mask": 1, "left out": 2, "no role": 0,
    }  # fmt: skip


def test_categories_below_the_split(tmp_path: Path) -> None:
    found = tree(
        tmp_path,
        "train/nut/good/1.png",
        "test/nut/good/1.png",
        "test/nut/scratch/1.png",
        "ground_truth/nut/scratch/1_mask.png",
        "test/bolt/good/1.png",
    )
    assert found.categories == ["bolt", "nut"]
    assert labels(found)["test/nut/scratch/1.png"] == ("nut", 1, "test")
    assert not found.account.without_role


def test_sub_folders_on_both_sides(tmp_path: Path) -> None:
    found = tree(
        tmp_path, "normal/1.png", "normal/cam1/1.png", "normal/cam2/a/1.png", "bad/x/cam1/1.png"
    )
    assert sorted(p.label for p in found.pictures) == [0, 0, 0, 1]


def test_masks_in_some_categories_only(tmp_path: Path) -> None:
    names = [f"{c}/test/{k}/1.png" for c in "ab" for k in ("good", "bad")]
    for order in ("ab", "ba"):
        home = tmp_path / order
        masks = f"{order[1]}/ground_truth/bad/1_mask.png"
        tree(home, *names, masks)
        samples = [s for s in index(home).samples if s.label]
        assert {s.category: s.mask is not None for s in samples} == {
            order[0]: False,
            order[1]: True,
        }


@pytest.mark.parametrize(
    "mask",
    ["0.png", "0_mask.png", "0-mask.png", "0.mask.png", "0 mask.png", "0_MASK.bmp", "0mask.png"]
    + ["0_seg.png", "0_segmentation.png", "0_label.png", "0_gt.png", "0_ground_truth.png"]
    + ["mask_0.png", "gt_0.png", "label-0.png", "0_anomaly_mask.png", "0.png.png", "000.png"],
)
@pytest.mark.parametrize("folder", ["masks", "ground_truth/bad", "Ground Truth", "gt", "bad/masks"])
def test_names_of_masks(tmp_path: Path, mask: str, folder: str) -> None:
    found = tree(tmp_path, "good/0.png", "bad/0.png", f"{folder}/{mask}")
    assert [p.masks for p in found.pictures if p.label] == [(f"{folder}/{mask}",)]
    assert not found.account.without_role


@pytest.mark.parametrize("mask", ["0_mask.png", "0_seg.bmp", "mask_0.png", "0-mask.png"])
def test_masks_beside_their_pictures(tmp_path: Path, mask: str) -> None:
    found = tree(tmp_path, "good/0.png", f"good/{mask}", "bad/0.png", f"bad/{mask}")
    assert len(found.pictures) == 2
    assert [p.masks for p in found.pictures if p.label] == [(f"bad/{mask}",)]
    assert found.masks_of_normal == [(f"good/{mask}", "good/0.png")]


def test_flat_masks_of_many_types(tmp_path: Path) -> None:
    found = tree(
        tmp_path, "ok/1.png", "ng/hole/h.png", "ng/dent/d.png", "masks/h.png", "masks/d_mask.png"
    )
    assert {p.path: p.masks for p in found.pictures if p.label} == {
        "ng/dent/d.png": ("masks/d_mask.png",),
        "ng/hole/h.png": ("masks/h.png",),
    }


def test_a_name_that_two_types_share_is_not_guessed(tmp_path: Path) -> None:
    found = tree(tmp_path, "ok/1.png", "ng/hole/1.png", "ng/dent/1.png", "masks/1.png")
    (stray,) = found.account.without_role
    assert "ng/" in stray.reason


def test_a_folder_of_masks_for_each_picture(tmp_path: Path) -> None:
    found = tree(
        tmp_path,
        "test/good/1.png",
        "test/logical/1.png",
        "ground_truth/logical/1/000.png",
        "ground_truth/logical/1/001.png",
    )
    (bad,) = (p for p in found.pictures if p.label)
    assert bad.masks == ("ground_truth/logical/1/000.png", "ground_truth/logical/1/001.png")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("overview.png", "says neither"),
        ("extra/1.png", "extra/ says neither"),
        ("test/1.png", "says neither"),
        ("good/bad/1.png", "both normal and anomalous"),
        ("bad/x_gt.png", "named like a mask"),
        ("masks/other.png", "no picture has that name"),
        ("other/good/1.png", "lies beside"),
    ],
)
def test_a_picture_without_a_role_is_refused(tmp_path: Path, name: str, reason: str) -> None:
    found = tree(tmp_path, "good/1.png", "bad/1.png", name)
    (stray,) = found.account.without_role
    assert stray.path == name
    assert reason in stray.reason
    with pytest.raises(RequestError, match="1 picture has no role") as error:
        select_datasets(f"folder:{tmp_path}")
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_unknown_types_are_defects_only_beside_something_normal(tmp_path: Path) -> None:
    found = tree(tmp_path, "test/intakt/1.png", "test/kaputt/1.png")
    assert not found.pictures
    assert all("normal or a defect" in e.reason for e in found.account.without_role)
    found = tree(tmp_path, "train/good/1.png")
    assert sum(p.label for p in found.pictures) == 2


def test_what_is_left_out_and_why(tmp_path: Path) -> None:
    strays = {
        ".DS_Store": "hidden",
        "good/._1.png": "hidden",
        "__MACOSX/good/1.png": "hidden",
        "good/Thumbs.db": "not a picture",
        "readme.txt": "annotation",
        "bad/1.heat.png": "own output",
        "bad/1.mask.png": "own output",
        "overview.png.json": "annotation",
    }
    found = tree(tmp_path, "good/1.png", "bad/1.png", *strays)
    reasons = {e.path: e.reason for e in found.account.entries if e.role == "left out"}
    assert reasons.keys() == strays.keys()
    assert all(reasons[name].startswith(why) for name, why in strays.items())
    assert len(found.pictures) == 2


def test_a_text_with_the_name_of_a_picture_is_not_one(tmp_path: Path) -> None:
    tree(tmp_path, "good/1.png", "bad/1.png")
    (tmp_path / "plan.png").write_text("no picture")
    (tmp_path / "good" / "scan").write_bytes((tmp_path / "good" / "1.png").read_bytes())
    found = understand(tmp_path)
    assert roles(found)["plan.png"] == "left out"
    assert roles(found)["good/scan"] == "left out"
    assert "rename it" in " ".join(found.notes)


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    tree(tmp_path / "set", "good/1.png")
    put(tmp_path / "elsewhere" / "2.png")
    (tmp_path / "set" / "bad").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "bad" / "again").symlink_to(tmp_path / "set")
    found = understand(tmp_path / "set")
    assert labels(found) == {"good/1.png": ("", 0, "test"), "bad/2.png": ("", 1, "test")}


def test_a_folder_is_read_where_it_lies_not_through_a_link(tmp_path: Path) -> None:
    """``anomalous/loop -> ../normal`` made defects of all normal pictures, since it came first."""
    tree(tmp_path, "normal/1.png", "anomalous/2.png")
    (tmp_path / "anomalous" / "loop").symlink_to(tmp_path / "normal")
    (tmp_path / "normal" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    found = understand(tmp_path)
    # a link that leads nowhere is a picture that cannot be read, and not left out
    assert {p: v[1] for p, v in labels(found).items()} == {
        "normal/1.png": 0, "normal/gone.png": 0, "anomalous/2.png": 1,
    }  # fmt: skip
    assert "1 linked folder is read where" in found.notes[0]
    assert "anomalous/loop is normal" in found.notes[0]
    with pytest.raises(DataError, match=r"1 of 3 files missing .first: normal/gone.png"):
        index(tmp_path)


def test_sets_and_numbers_of_a_part_are_no_categories(tmp_path: Path) -> None:
    found = tree(
        tmp_path, "train_1/good/1.png", "Training Set/good/1.png", "test_set/good/1.png",
        "test_set/bad/1.png", "dev/bad/1.png",
    )  # fmt: skip
    assert found.categories == [""]
    assert labels(found) == {
        "train_1/good/1.png": ("", 0, "train"), "Training Set/good/1.png": ("", 0, "train"),
        "test_set/good/1.png": ("", 0, "test"), "test_set/bad/1.png": ("", 1, "test"),
    }  # fmt: skip


def test_what_may_be_a_part_or_a_category_is_refused(tmp_path: Path) -> None:
    names = ("train_cam1/good/1.png", "test_cam1/good/1.png", "test_cam1/bad/1.png")
    found = tree(tmp_path / "a", *names)
    assert set(roles(found).values()) == {"no role"}
    assert "may be a category or the test part" in found.account.entries[0].reason
    given = understand(tmp_path / "a", {"train_cam1": "train", "test_cam1": "test"})
    assert sorted(v[2] for v in labels(given).values()) == ["test", "test", "train"]
    tube = tree(tmp_path / "b", "test_tube/good/1.png", "test_tube/bad/1.png", "bolt/good/1.png")
    assert tube.categories == ["bolt", "test_tube"]


def test_masks_of_tested_normal_pictures(tmp_path: Path) -> None:
    """``ground_truth/good`` was refused where ``train/good`` has the same names."""
    found = tree(
        tmp_path, "train/good/0.png", "test/good/0.png", "test/bad/0.png",
        "ground_truth/good/0_mask.png", "ground_truth/bad/0_mask.png",
    )  # fmt: skip
    assert not found.problems
    assert found.mask_of == {
        "ground_truth/good/0_mask.png": "test/good/0.png",
        "ground_truth/bad/0_mask.png": "test/bad/0.png",
    }


# ----------------------------------------------------------------------------- properties
LAYOUTS = (
    ("{c}/{good}", "{c}/{bad}", "{c}/masks", "{c}/train"),
    ("{c}/test/{good}", "{c}/test/{bad}", "{c}/ground_truth/{bad}", "{c}/train/{good}"),
    ("{c}/val/{good}", "{c}/val/{bad}", "{c}/val/gt", "{c}/Train/{good}"),
    ("test/{c}/{good}", "test/{c}/{bad}", "masks/{c}/{bad}", "train/{c}/{good}"),
    ("{c}/images/{good}/cam1", "{c}/images/{bad}/cam2", "{c}/labels", "{c}/reference"),
)
STRAYS = ("", "notes.md", ".hidden/1.png", "extra.png", "{c}/unknown/1.png", "{c}/Thumbs.db")


def grown(home: Path, seed: int, names: list[str]) -> dict[str, tuple[str, str]]:
    """A tree drawn by ``seed``; returns what its pictures are meant to be: (category, role)."""
    draw = random.Random(seed)
    layout = draw.choice(LAYOUTS)
    good, bad = draw.choice(["good", "OK", "normal"]), draw.choice(["bad", "NG", "defect"])
    naming = draw.choice(["{}.png", "{}_mask.png", "mask_{}.png", "{}-seg.png"])
    stray = draw.choice(STRAYS)
    masked = {slot: draw.random() < 0.5 for slot in range(len(names))}
    counts = {slot: (draw.randint(1, 3), draw.randint(1, 3)) for slot in range(len(names))}
    meant: dict[str, tuple[str, str]] = {}
    for slot, name in enumerate(names):
        folders = [part.format(c=name, good=good, bad=bad) for part in layout]
        for i in range(counts[slot][0]):
            meant[f"{folders[0]}/g{i}.png"] = (name, "normal")
        for i in range(counts[slot][1]):
            meant[f"{folders[1]}/b{i}.png"] = (name, "anomalous")
            if masked[slot]:
                meant[f"{folders[2]}/{naming.format(f'b{i}')}"] = (name, "mask")
        meant[f"{folders[3]}/t.png"] = (name, "training")
    if stray:
        path = stray.format(c=names[0])
        if not (path.endswith("unknown/1.png") and "test/{c}" in layout[0]):
            outside = path.endswith(("md", "db")) or path.startswith(".")
            meant[path] = ("?", "left out" if outside else "no role")
    for path in meant:
        put(home / path)
    return meant


@pytest.mark.parametrize("seed", range(40))
def test_the_account_adds_up_for_any_tree(tmp_path: Path, seed: int) -> None:
    names = ["01", "metal_nut", "zipper"]
    meant = grown(tmp_path / "set", seed, names)
    found = understand(tmp_path / "set")
    files = [p for p in (tmp_path / "set").rglob("*") if p.is_file()]
    assert len(found.account.entries) == len(files) == sum(found.account.counts().values())
    assert roles(found) == {path: role for path, (_, role) in meant.items()}
    assert {p.path: p.category for p in found.pictures} == {
        path: name
        for path, (name, role) in meant.items()
        if role in ("normal", "anomalous", "training")
    }
    used = [p.path for p in found.pictures] + [m for p in found.pictures for m in p.masks]
    assert len(used) == len(set(used))


@pytest.mark.parametrize("seed", range(12))
def test_a_permutation_of_category_names_changes_nothing(tmp_path: Path, seed: int) -> None:
    names = ["01", "metal_nut", "zipper"]
    seen = set()
    for order in itertools.permutations(names):
        home = tmp_path / "-".join(order)
        grown(home, seed, list(order))
        found = understand(home)
        number = {name: str(i) for i, name in enumerate(order)}
        summary = sorted(
            (number.get(e.category, e.category), e.role, e.path.rpartition("/")[2])
            for e in found.account.entries
        )
        seen.add(json.dumps([summary, len(found.problems)]))
    assert len(seen) == 1


# ------------------------------------------------------------------------ the command line
def recommended(text: str) -> list[list[str]]:
    """The zsad commands in backticks of a message, as words."""
    return [shlex.split(c)[1:] for c in text.split("`")[1::2] if c.startswith("zsad ")]


@pytest.mark.parametrize(
    "names",
    [
        ("normal/1.png", "anomalous/1.png", "masks/other.png"),
        ("normal/1.png", "anomalous/1.png", "anomalous/2.png", "masks/1.png"),
        ("test/1.png",),
        ("normal/1.png", "anomalous/1.png", "a b/x'y.png", "over[1].png"),
        ("photos/1.png",),
    ],
)
def test_recommended_commands_work_when_pasted(
    tmp_path: Path, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    home = tmp_path / "my parts"
    tree(home, *names)
    monkeypatch.chdir(tmp_path)
    with pytest.raises((RequestError, DataError)) as refused:
        index(home)
    commands = recommended(str(refused.value))
    assert commands
    for words in commands:
        catalog.forget_own()
        code = main(words)
        said = capsys.readouterr()
        # What is wrong with the folder is said again; the command itself is understood.
        assert code in (0, 2, 3)
        assert "what every file was taken for" in said.out or "files in all" in said.out
        for word in ("unknown", "unexpected", "internal", "no such"):
            assert word not in said.err


def test_a_written_definition_is_the_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home, target = tmp_path / "metal_nut", tmp_path / "my.yaml"
    tree(home, "good/1.png", "bad/1.png", "gt/1.png")
    before = index(home)
    catalog.forget_own()
    assert main(["data", "check", str(home), "--write", str(target)]) == 0
    catalog.forget_own()
    after = load_index(str(target))
    assert after.fingerprint == before.fingerprint
    assert after.categories == before.categories
    assert main(["data", "check", str(home), "--write", str(target)]) == 2
    assert "is there already" in capsys.readouterr().err
    target.write_text(target.read_text().replace("prompt: metal nut", "prompt: wing nut"))
    catalog.forget_own()
    assert load_index(str(target)).fingerprint != before.fingerprint


def test_what_a_folder_cannot_say(tmp_path: Path) -> None:
    from zsad.config import FolderSettings

    tree(tmp_path / "01", "good/1.png", "bad/1.png", "gt/1.png")
    word = f"folder:{tmp_path / '01'}"
    plain = index(tmp_path / "01")
    seen = {plain.fingerprint}
    for settings in (
        FolderSettings(class_name="wing nut"),
        FolderSettings(mask_threshold=127),
        FolderSettings(bits=12),
    ):
        found = load_index(select_datasets(word, settings)[0])
        seen.add(found.fingerprint)
        assert found.categories["01"].class_name == (settings.class_name or "01")
        (bad,) = (s for s in found.samples if s.label)
        assert bad.mask_threshold == (settings.mask_threshold or 0)
        assert {s.bits for s in found.samples} == {settings.bits}
    assert len(seen) == 4


def test_the_account_stands_in_dry_run_and_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "set"
    tree(home, "a/good/1.png", "a/bad/1.png", "a/notes.txt", "b/good/1.png")
    (home / "c" / "good").mkdir(parents=True)
    words = ["bench", "--methods", "clip", "--datasets", f"folder:{home}", "--backbone"]
    words += ["zsad-tiny", "--device", "cpu", "--results", str(tmp_path / "r")]
    assert main([*words, "--dry-run"]) == 0
    planned = capsys.readouterr().out
    assert "a/bad/: 1 anomalous" in planned
    assert "4 files in all" in planned
    assert "not there: c" in planned
    assert main([*words, "--json"]) == 0
    said = capsys.readouterr()
    assert "a/bad/: 1 anomalous" in said.err
    document = json.loads(said.out)
    assert document["accounts"]["set"]["files"] == 4
    assert document["missing"] == {"set": ["c"]}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("good_2", "normal"), ("OK1", "normal"), ("NG3", "other"), ("bad-01", "other"),
        ("bad_mask", "mask"), ("mask_bad", "mask"), ("good gt", "mask"),
        ("With Defects", "anomalous"),
        ("without_defects", "normal"), ("hole_2", "other"), ("label_printer", "other"),
        ("2", "other"),
        ("mask_holder", "other"),
        ("train_set", "train"), ("Testing Data", "test"), ("val2", "val"), ("evaluation", "test"),
        ("test_tube", "other"), ("trainer", "other"), ("trainset_01", "train"),
    ],
)  # fmt: skip
def test_names_with_numbers_and_masks_of_a_class(name: str, kind: str) -> None:
    assert kind_of(name) == kind


def test_a_test_folder_that_may_be_normal_is_not_a_defect(tmp_path: Path) -> None:
    """``test/good_old`` was taken for a type of defect that is called so."""
    for folder in ("test/good", "test/good_old", "test/hole"):
        put(tmp_path / "part" / folder / "0.png")
    with pytest.raises(
        RequestError, match=r"'good_old' may be normal \(it says good\) or a defect"
    ):
        select_datasets(f"folder:{tmp_path / 'part'}")
    found = tree(tmp_path / "b", *(f"test/{n}/0.png" for n in ("good", "clean", "unlabelled", "x")))
    assert [e.path for e in found.account.without_role] == [
        "test/clean/0.png",
        "test/unlabelled/0.png",
    ]


def test_a_definition_holds_no_name_that_is_not_utf8(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """YAML would hold half a character, which no reader takes."""
    home, target = tmp_path / "set", tmp_path / "my.yaml"
    for name in (b"cafe", b"caf\xe9"):
        tree(home / os.fsdecode(name), "good/1.png", "bad/1.png")
    assert main(["data", "check", str(home), "--write", str(target)]) == 2
    assert r"the name 'caf\xe9' is not UTF-8" in capsys.readouterr().err
    assert not target.exists()

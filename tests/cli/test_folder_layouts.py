"""Folders as people lay them out: ``data check``, ``bench --dry-run`` and ``predict`` say the same
of every file, and refuse the same folders in the same words."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from zsad.cli.main import main
from zsad.data import catalog
from zsad.data.indexers.left_out import left_out


@dataclass(frozen=True)
class Layout:
    """``files`` of a folder.  ``says``: the account, or a piece of the line that refuses it."""

    name: str
    files: tuple[str, ...]
    says: dict[str, int] | str = field(default_factory=dict)


def layout(name: str, files: str, says: str = "", **counts: int) -> Layout:
    return Layout(name, tuple(files.split()), says or counts)


LAYOUTS = [
    layout("plain", "normal/1.png anomalous/1.png", normal=1, anomalous=1),
    layout("good and bad", "good/1.png good/2.png bad/1.png", normal=2, anomalous=1),
    layout("shouted", "OK/1.PNG NG/1.JPG", normal=1, anomalous=1),
    layout("only good", "ok/1.png ok/2.png", normal=2),
    layout("only defects", "defect/1.png", anomalous=1),
    layout("tested", "test/good/1.png test/bad/1.png", normal=1, anomalous=1),
    layout("tested, normal", "test/normal/1.png test/crack/1.png", normal=1, anomalous=1),
    layout("tested, ok", "Test/Ok/1.png Test/Ng/1.png", normal=1, anomalous=1),
    layout("trained", "train/good/1.png test/good/1.png test/hole/1.png",
           normal=1, anomalous=1, training=1),
    layout("train/normal", "train/normal/1.png test/normal/1.png test/bad/1.png",
           normal=1, anomalous=1, training=1),
    layout("validated", "train/good/1.png val/good/1.png val/bad/1.png",
           normal=1, anomalous=1, training=1),
    layout("validated beside a test", "val/good/1.png test/good/1.png test/bad/1.png",
           normal=1, anomalous=1, left_out=1),
    layout("MVTec AD 2", "can/train/good/1.png can/test_public/good/1.png "
           "can/test_public/bad/1.png can/test_public/ground_truth/bad/1_mask.png "
           "can/test_private/1.png", normal=1, anomalous=1, training=1, mask=1, left_out=1),
    layout("MVTec AD", "nut/train/good/1.png nut/test/good/1.png nut/test/bent/1.png "
           "nut/ground_truth/bent/1_mask.png", normal=1, anomalous=1, training=1, mask=1),
    layout("categories below", "test/a/good/1.png test/a/bad/1.png test/b/good/1.png",
           normal=2, anomalous=1),
    layout("categories above", "a/good/1.png a/bad/1.png b/good/1.png b/bad/1.png",
           normal=2, anomalous=2),
    layout("numbered", "01/ok/1.png 01/ko/1.png 02/ok/1.png 02/ko/1.png", normal=2, anomalous=2),
    layout("cameras", "normal/1.png normal/cam1/1.png normal/cam2/1.png bad/cam1/1.png",
           normal=3, anomalous=1),
    layout("cameras in a test", "test/good/a/1.png test/good/b/1.png test/bad/a/1.png",
           normal=2, anomalous=1),
    layout("types", "good/1.png bad/hole/1.png bad/dent/2.png", normal=1, anomalous=2),
    layout("masks", "good/1.png bad/1.png masks/1.png", normal=1, anomalous=1, mask=1),
    layout("flat masks", "good/1.png bad/hole/1.png bad/dent/2.png masks/1.png masks/2.png",
           normal=1, anomalous=2, mask=2),
    layout("masks by type", "test/good/1.png test/hole/1.png ground_truth/hole/1.png",
           normal=1, anomalous=1, mask=1),
    layout("masks in one of two", "a/test/good/1.png a/test/bad/1.png b/test/good/1.png "
           "b/test/bad/1.png b/ground_truth/bad/1_mask.png", normal=2, anomalous=2, mask=1),
    layout("masks beside", "good/1.png bad/1.png bad/1_mask.png", normal=1, anomalous=1, mask=1),
    layout("masks of normal ones", "good/1.png good/1_mask.png bad/1.png bad/1_mask.png",
           normal=1, anomalous=1, mask=2),
    layout("mask-0", "good/0.png bad/0.png gt/mask_0.png", normal=1, anomalous=1, mask=1),
    layout("0-seg", "good/0.png bad/0.png Ground_Truth/0-seg.bmp", normal=1, anomalous=1, mask=1),
    layout("in pieces", "test/good/1.png test/x/1.png ground_truth/x/1/000.png "
           "ground_truth/x/1/001.png", normal=1, anomalous=1, mask=2),
    layout("images/", "images/good/1.png images/bad/1.png labels/1.png",
           normal=1, anomalous=1, mask=1),
    layout("hidden", "good/1.png good/._1.png bad/1.png .cache/x.png __MACOSX/good/1.png",
           normal=1, anomalous=1, left_out=3),
    layout("system", "good/1.png good/Thumbs.db bad/1.png bad/.DS_Store readme.md",
           normal=1, anomalous=1, left_out=3),
    layout("annotated", "good/1.png bad/1.png bad/1.txt bad/1.xml", normal=1, anomalous=1,
           left_out=2),
    layout("from a phone", "good/1.png good/2.dng bad/1.png", normal=1, anomalous=1, left_out=1),
    layout("own outputs", "good/1.png bad/1.png bad/1.heat.png bad/1.mask.png",
           normal=1, anomalous=1, left_out=2),
    layout("own results", "good/1.png bad/1.png results/manifest.json results/cells/x.json "
           "results/examples/1.png", normal=1, anomalous=1, left_out=3),
    layout("blanks and brackets", "good/a[1].png bad/50%.png bad/#1.png", normal=1, anomalous=2),
    layout("photos", "1.png 2.png", "2 pictures have no role"),
    layout("overview", "good/1.png bad/1.png overview.png", "1 picture has no role: overview.png"),
    layout("extra", "good/1.png bad/1.png extra/1.png", "extra/ says neither"),
    layout("test without classes", "test/1.png", "1 picture has no role: test/1.png"),
    layout("unknown words", "test/intakt/1.png test/kaputt/1.png", "2 pictures have no role"),
    layout("both", "good/bad/1.png good/1.png", "both normal and anomalous"),
    layout("a mask alone", "good/1.png bad/1.png masks/2.png", "no picture has that name"),
    layout("two of a name", "good/1.png bad/hole/1.png bad/dent/1.png masks/1.png",
           "1 picture has no role: masks/1.png"),
    layout("nothing", "notes.txt", "no"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _forget_own_datasets() -> Iterator[None]:
    with catalog.own_forgotten():
        yield


class Place:
    """Where layouts are put; ``run``: one call of the command line."""

    def __init__(
        self,
        root: Path,
        capsys: pytest.CaptureFixture[str],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        self.home, self.capsys, self.caplog = root / "parts", capsys, caplog
        self.err = ""

    def put(self, files: tuple[str, ...]) -> None:
        shutil.rmtree(self.home, ignore_errors=True)
        for number, name in enumerate(files):
            path = self.home / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix.lower() in (".png", ".jpg", ".bmp"):
                # Each its own grey, masks with both values.
                pixels = np.full((12, 12), 40 + number, np.uint8)
                pixels[:4] = 255
                Image.fromarray(pixels).save(path)
            else:
                path.write_text("no picture")

    def run(self, *words: str) -> tuple[int, str]:
        catalog.forget_own()
        self.caplog.clear()
        code = main(list(words))
        out, self.err = self.capsys.readouterr()
        return code, out

    @property
    def warnings(self) -> list[str]:
        """What the last call warned of."""
        return [r.getMessage() for r in self.caplog.records]


@pytest.fixture
def place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> Place:
    return Place(tmp_path, capsys, caplog)


def refusal(text: str) -> str:
    """The line that refuses a request."""
    (line,) = (x for x in text.splitlines() if x.startswith("zsad: error: "))
    return line


def entries(account: dict[str, Any]) -> dict[str, str]:
    found = {e["path"]: e["role"] for e in account["entries"]}
    assert len(found) == account["files"] == sum(account["roles"].values())
    return found


@pytest.mark.parametrize("case", LAYOUTS, ids=lambda case: case.name)
def test_three_commands_say_the_same(case: Layout, place: Place, weights: Path) -> None:
    place.put(case.files)
    word = f"folder:{place.home}"
    checked, out = place.run("data", "check", word, "--json")
    first = json.loads(out) if out else {}
    said = place.err
    planned, out = place.run(
        *("bench", "--methods", "clip", "--datasets", word, "--backbone", "file", "--dry-run"),
        *("--json", f"backbone.weights={weights}", "--results", str(place.home.parent / "r")),
    )
    if isinstance(case.says, str):
        assert (checked, planned) == (2, 2)
        assert refusal(said) == refusal(place.err)
        assert case.says in refusal(said)
        roles = entries(first["failed"][0]["account"]) if first.get("failed") else {}
    else:
        assert (checked, planned) == (0, 0)
        (dataset,) = first["datasets"]
        assert json.loads(out)["accounts"] == {"parts": dataset["account"]}
        roles = entries(dataset["account"])
        counts = {k.replace(" ", "_"): n for k, n in dataset["account"]["roles"].items() if n}
        assert counts == case.says
        assert (dataset["n_normal"], dataset["n_anomalous"]) == (
            case.says.get("normal", 0),
            case.says.get("anomalous", 0),
        )

    code, out = place.run(
        *("predict", "--method", "maskclip", "--class-name", "part", str(place.home)),
        *("--backbone", "file", "--weights", str(weights), "--explanations", "0"),
    )
    outside = {f for f in case.files if left_out(place.home, f, case.files) is not None}
    if outside == set(case.files):
        assert code == 2
        assert "no pictures there" in refusal(place.err)
        return
    assert code == 0
    scored = {Path(json.loads(x)["path"]).relative_to(place.home).as_posix()
              for x in out.splitlines()}  # fmt: skip
    masks = {f for f, role in roles.items() if role == "mask"}
    # What is scored, and what is passed over, add up to the account.
    assert scored == set(case.files) - outside - masks
    assert {f for f, role in roles.items() if role == "left out"} >= outside
    for what, names in (("mask", masks), ("file", outside)):
        count = "a" if len(names) == 1 else len(names)
        lines = [x for x in place.warnings if x.startswith(f"passed over {count} {what}")]
        assert len(lines) == bool(names), place.warnings
        shown = lines[0] if lines else ""
        assert sum(str(place.home / name) in shown for name in names) == min(3, len(names))


def test_a_mask_where_nothing_says_what_is_a_defect_is_named(place: Place, weights: Path) -> None:
    """`predict bad/`: nobody knows whether 1_label.png is a mask, or a photo of a label."""
    place.put(("1.png", "1_mask.png", "2.png"))
    code, out = place.run(
        *("predict", "--method", "maskclip", "--class-name", "part", str(place.home)),
        *("--backbone", "file", "--weights", str(weights), "--explanations", "0"),
    )
    assert code == 0
    assert len(out.splitlines()) == 3
    (line,) = place.warnings
    assert "1 picture is named like the mask of a picture beside it (first: 1_mask.png" in line


def test_a_linked_folder_is_scored_as_it_is_benched(place: Place, weights: Path) -> None:
    place.put(("good/1.png", "bad/1.png"))
    place.home.rename(place.home.with_name("elsewhere"))
    place.home.mkdir()
    (place.home / "good").symlink_to(place.home.with_name("elsewhere") / "good")
    (place.home / "bad").symlink_to(place.home.with_name("elsewhere") / "bad")
    (place.home / "bad" / "again").symlink_to(place.home)
    _, out = place.run("data", "check", f"folder:{place.home}", "--json")
    assert json.loads(out)["datasets"][0]["account"]["files"] == 2
    code, out = place.run(
        *("predict", "--method", "maskclip", "--class-name", "part", str(place.home)),
        *("--backbone", "file", "--weights", str(weights), "--explanations", "0"),
    )
    assert code == 0
    assert [json.loads(x)["path"] for x in out.splitlines()] == [
        str(place.home / name) for name in ("bad/1.png", "good/1.png")
    ]

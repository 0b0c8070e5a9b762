"""Killed anywhere and run again, a command leaves the files of an undisturbed run and no other.

What databases test after every crash: not only that nothing is missing, but that nothing is there
that should not be.  The same for four processes that do the same thing at once.
"""

from __future__ import annotations

import shutil
import signal
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tests.data.miniatures import write_miniature
from tests.fault.place import Place
from tests.fault.process import Process, moments, zsad
from tests.runner.conftest import write_dataset

pytestmark = pytest.mark.fault

AUXILIARY = "title: own\ndatasets: [elpv]\nmethods: [clip]\nauxiliary: {{default: 'folder:{}'}}\n"


@dataclass(frozen=True)
class Command:
    """``words`` of the command that writes to a folder; ``made``: what lies there before."""

    words: Callable[[Path], list[str]]
    made: Path | None = None

    def place(self, folder: Path) -> Path:
        if self.made is not None:
            shutil.copytree(self.made, folder)
        return folder


@pytest.fixture(scope="module")
def commands(
    place: Place, recipe: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Command]:
    """Every command that writes, on inputs that no run changes."""
    home = tmp_path_factory.mktemp("inputs")
    write_miniature("mpdd", home / "source")
    with zipfile.ZipFile(home / "mpdd.zip", "w") as archive:
        for path in sorted(p for p in (home / "source").rglob("*") if p.is_file()):
            archive.write(path, path.relative_to(home / "source"))
    state = recipe.anomalyclip_learnables(recipe.ClipDims(text_width=64), 3)
    torch.save({"prompt_learner": dict(state)}, home / "official.pth")
    write_dataset(home / "felt", ("felt",), count=3, seed=5)
    (home / "own.yaml").write_text(AUXILIARY.format(home / "felt"))
    made = home / "results"
    assert zsad(*place.bench(made)).code == 0
    file = ["--backbone", "file", f"backbone.weights={place.root / 'clip.pt'}"]
    small = ("anomalyclip.train.batch_size=6", "anomalyclip.deep.depth=2")
    features = "run.feature_cache_gb=0.0001"  # so little that the rest goes to the disk
    return {
        "bench": Command(
            lambda out: place.bench(
                *(out, *small, features, "anomalyclip.train.epochs=2"),
                *("--protocol", str(home / "own.yaml")),
                methods="winclip,anomalyclip",
            )
        ),
        "train": Command(lambda out: place.train(out, features)),
        "predict": Command(
            lambda out: place.predict(out, "--calibrate", str(place.images / "bolt" / "train"))
        ),
        "prepare": Command(
            lambda out: [
                *("data", "prepare", "mpdd", "--data-root", str(out)),
                *("--archive", str(home / "mpdd.zip")),
            ]
        ),
        "import": Command(
            lambda out: [
                *("weights", "import", "anomalyclip", str(home / "official.pth"), *file[:2]),
                *("--weights", str(place.root / "clip.pt"), "--out", str(out / "a.safetensors")),
            ]
        ),
        "tables": Command(lambda out: ["tables", "--results", str(out)], made),
        "report": Command(lambda out: ["report", "--results", str(out)], made),
    }


NAMES = ("bench", "train", "predict", "prepare", "import", "tables", "report")


def listing(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_kill_anywhere_leaves_nothing_that_the_same_command_does_not_clear(
    name: str, commands: dict[str, Command], tmp_path: Path
) -> None:
    command = commands[name]
    whole = command.place(tmp_path / "whole")
    undisturbed = zsad(*command.words(whole), watch=whole)
    assert undisturbed.code == 0, undisturbed.out
    expected = listing(whole)
    assert expected
    for moment in moments(undisturbed.writes, 2, name):
        folder = command.place(tmp_path / str(moment))
        killed = Process(command.words(folder), watch=folder, kill_at=moment).wait()
        assert killed.code == -signal.SIGKILL, moment
        again = zsad(*command.words(folder))
        assert again.code == 0, (moment, again.err)
        assert listing(folder) == expected, moment
        shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_four_processes_at_once_leave_what_one_does(
    name: str, commands: dict[str, Command], tmp_path: Path
) -> None:
    command = commands[name]
    whole = command.place(tmp_path / "whole")
    assert zsad(*command.words(whole)).code == 0
    shared = command.place(tmp_path / "shared")
    started = [Process(command.words(shared)) for _ in range(4)]
    for done in [process.wait().quiet() for process in started]:
        assert done.code == 0, done.err
    assert listing(shared) == listing(whole)

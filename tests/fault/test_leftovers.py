"""Killed anywhere and run again, a command leaves the files of an undisturbed run and no other.

What databases test after every crash: not only that nothing is missing, but that nothing is there
that should not be.  The same for four processes that do the same thing at once.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import signal
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tests.data.miniatures import write_miniature
from tests.fault.place import Place
from tests.fault.process import Process, moments, zsad
from tests.runner.conftest import write_dataset
from zsad.io import sha256_file

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


# How a process that got the signal may end: by it, as one that was interrupted, or, at its very
# end, as if nothing had been.
ENDS = {
    signal.SIGKILL: {-signal.SIGKILL},
    signal.SIGINT: {-signal.SIGINT, 130, 0},
    signal.SIGTERM: {-signal.SIGTERM, 143, 130, 0},  # Lightning ends a training as by Ctrl-C
}
TEMPORARY = re.compile(r"[a-z0-9_]{8}(?=\.tmp$|$|/)")


def state(folder: Path) -> frozenset[tuple[str, int]]:
    """What lies below by name and size; a temporary name is one like another."""
    return frozenset(
        (TEMPORARY.sub("", path.relative_to(folder).as_posix()), path.lstat().st_size)
        for path in folder.rglob("*")
    )


def contents(folder: Path) -> dict[str, str]:
    """What lies below: files with their digests, folders and links with nothing."""
    return {
        path.relative_to(folder).as_posix(): digest(path) if path.is_file() else ""
        for path in folder.rglob("*")
    }


def digest(path: Path) -> str:
    """Of a file, but for the seconds that a training took, which may be equal by chance."""
    if path.suffix != ".safetensors":
        return sha256_file(path)
    return hashlib.sha256(re.sub(rb'\\"seconds\\": [\d.e-]+', b"", path.read_bytes())).hexdigest()


@dataclass(frozen=True)
class Undisturbed:
    """What a run leaves that nothing disturbs: its changes, the names of its files, and the digests
    of those that are the same to the bit in every run."""

    writes: int
    names: set[str]
    digests: dict[str, str]

    @classmethod
    def of(cls, command: Command, parent: Path) -> Undisturbed:
        found: list[dict[str, str]] = []
        for name in ("whole", "again"):
            folder = command.place(parent / name)
            done = zsad(*command.words(folder), watch=folder)
            assert done.code == 0, done.err
            found.append(contents(folder))
        assert found[0].keys() == found[1].keys() != set()
        return cls(done.writes, set(found[0]), dict(found[0].items() & found[1].items()))

    def assert_left(self, folder: Path, moment: object) -> None:
        left = contents(folder)
        assert (self.names - left.keys(), left.keys() - self.names) == (set(), set()), moment
        assert {n: d for n, d in self.digests.items() if left[n] != d} == {}, moment


@pytest.fixture(scope="module")
def undisturbed(
    commands: dict[str, Command], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Undisturbed]:
    """Of a command by its name, once for all tests."""
    return cache(lambda name: Undisturbed.of(commands[name], tmp_path_factory.mktemp(name)))


@pytest.mark.slow
@pytest.mark.parametrize("sign", ENDS, ids=lambda sign: sign.name)
@pytest.mark.parametrize("name", NAMES)
def test_a_kill_anywhere_leaves_nothing_that_the_same_command_does_not_clear(
    name: str,
    sign: signal.Signals,
    commands: dict[str, Command],
    undisturbed: Callable[[str], Undisturbed],
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """Two moments that leave the same on the disk are one: the command is run again for one."""
    command = commands[name]
    whole = undisturbed(name)
    kills, states = 0, set[frozenset[tuple[str, int]]]()
    few = 2 if sign == signal.SIGKILL else 1
    for moment in moments(whole.writes, few, name):
        kills += 1
        folder = command.place(tmp_path / str(moment))
        ended = Process(command.words(folder), watch=folder, kill_at=moment, sign=sign).wait()
        assert ended.quiet().code in ENDS[sign], (moment, ended.code, ended.err)
        if (left := state(folder)) not in states:
            states.add(left)
            again = zsad(*command.words(folder))
            assert again.code == 0, (moment, again.err)
            whole.assert_left(folder, moment)
        shutil.rmtree(folder, ignore_errors=True)  # killed before the first, there is none
    record_property("tried", f"{name}, {sign.name}: {kills} of {whole.writes} changes to the disk")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_four_processes_at_once_leave_what_one_does(
    name: str,
    commands: dict[str, Command],
    undisturbed: Callable[[str], Undisturbed],
    tmp_path: Path,
) -> None:
    command = commands[name]
    shared = command.place(tmp_path / "shared")
    started = [Process(command.words(shared)) for _ in range(4)]
    for done in [process.wait().quiet() for process in started]:
        assert done.code == 0, done.err
    undisturbed(name).assert_left(shared, "four at once")

"""One way to name weight files: for all targets, by target, a folder, the hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.backbones.hub import COMMIT, serving
from zsad.checkpoints import sources
from zsad.errors import RequestError, WeightsError


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two files and a folder of two more, in the folder where the test runs."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.pth", "b.safetensors", "both/deep/c.pth.tar-50", "both/d.PT", "both/note.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache that holds one file of one repository at one revision."""
    from huggingface_hub import constants

    commit = "17bbc781de7c206fa0bb94c616ed895ca7bcc913"
    folder = tmp_path / "hub" / "models--Somebody--Weights" / "snapshots" / commit
    folder.mkdir(parents=True)
    (folder / "one.pth").write_bytes(b"x")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return folder


def test_one_file_serves_every_target(files: Path) -> None:
    found = sources.parse("a.pth", "filo.checkpoint")
    assert found.of("mvtec").path == found.of("folder:mine").path == Path("a.pth")
    assert str(found) == "a.pth"
    found.check(["mvtec", "visa"])
    assert found.absolute().of("mvtec").path == files / "a.pth"


def test_a_mapping_serves_each_target_its_own(files: Path) -> None:
    found = sources.parse({"visa": "a.pth", "mvtec": "b.safetensors"}, "filo.checkpoint")
    assert [found.of(t).text for t in ("mvtec", "visa")] == ["b.safetensors", "a.pth"]
    assert str(found) == "{visa: a.pth, mvtec: b.safetensors}"
    with pytest.raises(RequestError) as caught:
        found.check(["mvtec", "visa", "btad"])
    assert str(caught.value) == (
        "filo.checkpoint: no file for the target btad; it has {visa: a.pth, mvtec: b.safetensors}; "
        "add `btad: FILE` to it, or leave btad out of --datasets"
    )
    rest = sources.parse({"default": "a.pth", "mvtec": "b.safetensors"}, "filo.checkpoint")
    rest.check(["mvtec", "visa", "btad"])
    assert rest.of("btad").text == "a.pth"


def test_a_name_that_is_no_dataset_is_told_with_the_nearest(files: Path) -> None:
    found = sources.parse({"visa": "a.pth", "mvtek": "b.safetensors"}, "filo.checkpoint")
    with pytest.raises(RequestError, match=r"'mvtek' is not a dataset \(did you mean 'mvtec'\?\)"):
        found.check(["visa"], ["mvtec"])
    sources.parse({"visa": "a.pth", "mvtec": "a.pth"}, "x").check(["visa"], ["mvtec"])


@pytest.mark.parametrize("value", ["both", "local-dir:both"])
def test_a_folder_holds_its_files_and_those_of_folders_in_it(files: Path, value: str) -> None:
    place = sources.parse(value, "filo.checkpoint").of("mvtec")
    assert place.is_folder
    assert [p.name for p in place.files()] == ["d.PT", "c.pth.tar-50"]


def test_files_that_lie_beside_others(tmp_path: Path) -> None:
    """A companion is no state of its own, and the last of a series stands for its epochs."""
    for name in ("image.pth", "image_3.pth", "text.pth", "epoch_9.pth"):
        (tmp_path / name).write_bytes(b"x")
    place = sources.Place("all", tmp_path)
    assert [p.name for p in place.states(["text.pth"])] == ["epoch_9.pth", "image.pth"]
    assert len(place.states()) == len(place.files()) == 4
    image = tmp_path / "image.pth"
    assert sources.beside(image, ["text.pth", "more.pth"]) == [tmp_path / "text.pth"]
    assert sources.Place("one", tmp_path / "text.pth").states(["text.pth"]) == [
        tmp_path / "text.pth"
    ]


def test_words_of_the_option_name_no_file(files: Path) -> None:
    found = sources.parse("stock", "filo.grounding.weights", words=("stock", "random"))
    assert found.of("mvtec") == sources.Place("stock", None)
    assert found.of("mvtec").files() == []


def test_the_states_that_come_with_a_method_are_a_folder(files: Path, tmp_path: Path) -> None:
    folders = {"bundled": files}
    assert sources.parse("bundled", "filo.checkpoint", folders=folders).of("visa").path == files
    by_target = sources.parse({"visa": "bundled"}, "filo.checkpoint", folders=folders)
    assert by_target.of("visa").text == "bundled"
    with pytest.raises(RequestError, match="bundled: none comes with zsad for this method; give"):
        sources.parse("bundled", "filo.checkpoint", folders={"bundled": tmp_path / "none"})


def test_a_repository_in_the_hubs_cache_is_a_folder_at_one_revision(hub: Path) -> None:
    value = f"hf://Somebody/Weights@{hub.name}"
    place = sources.parse(value, "filo.checkpoint", offline=True).of("mvtec")
    assert place.hub == f"Somebody/Weights@{hub.name}"
    assert [p.name for p in place.files()] == ["one.pth"]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("no.pth", "m.checkpoint=no.pth (line): no such file or folder; give FILE, FOLDER, "),
        ({"visa": "no.pth"}, "m.checkpoint={visa: no.pth} (line): no such file or folder"),
        ({"visa": {"a": 1}}, "names no file"),
        ({}, "m.checkpoint={} (line): names no file"),
        ("", "names no file"),
        (3, "m.checkpoint=3 (line): names no file"),
        (["a.pth"], "names no file"),
        ("local-dir:a.pth", "no such folder; give the copy of a hub repository"),
        ("empty", "no weight files there (.safetensors, .pth, .pt, .bin, .ckpt)"),
        ("hf://Somebody/Weights", "name a revision, since what a branch holds changes"),
        ("hf:Somebody/Weights@main", "not hf://OWNER/REPO@REVISION"),
        ("hf://Weights@main", "not hf://OWNER/REPO@REVISION"),
    ],
)
def test_what_cannot_be_meant_is_one_line(files: Path, value: object, said: str) -> None:
    (files / "empty").mkdir()
    with pytest.raises(RequestError) as caught:
        sources.parse(value, "m.checkpoint", "line")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_repository_that_is_not_there_says_how_to_fetch_it(hub: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        sources.parse("hf://Somebody/Other@abc", "m.checkpoint", offline=True)
    assert "`hf download Somebody/Other --revision abc`" in str(caught.value)


FETCH = """
import json, sys
from zsad.checkpoints import sources
found = {}
for text in sys.argv[1:]:
    try:
        place = sources.parse(text, "m.checkpoint", offline=text.endswith("#")).of("visa")
        found[text] = [[p.name, p.read_text()] for p in place.files()]
    except sources.WeightsError as error:
        found[text] = str(error)
print(json.dumps(found))
"""


def test_a_repository_is_fetched_at_its_revision_and_stays(tmp_path: Path) -> None:
    """The hub's own client, against a hub on the loopback; what is no weight file stays there."""
    files = {"a/w.pth": b"one", "note.md": b"read me", "b.safetensors": b"two"}
    right, wrong = f"hf://Some/Weights@{COMMIT}", f"hf://Some/Weights@{'f' * 40}"
    env = {
        **{k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")},
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HF_HUB_DISABLE_XET": "1",
        "HOME": str(tmp_path),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }

    def fetched(address: str, *places: str) -> dict[str, object]:
        run = subprocess.run(
            [sys.executable, "-c", FETCH, *places],
            env={**env, "HF_ENDPOINT": address},
            capture_output=True,
            text=True,
            check=True,
        )
        found: dict[str, object] = json.loads(run.stdout.splitlines()[-1])
        return found

    with serving({f"Some/Weights/{name}": content for name, content in files.items()}) as address:
        found = fetched(address, right, wrong)
    assert found[right] == [["w.pth", "one"], ["b.safetensors", "two"]]
    assert "cannot be fetched" in str(found[wrong])
    assert "give a folder with local-dir:PATH" in str(found[wrong])
    gone = fetched("http://127.0.0.1:9", right)  # the hub is gone, the cache is there
    assert gone[right] == found[right]


def test_reading_the_option_needs_no_torch() -> None:
    code = "import sys, zsad.checkpoints.sources; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""Configs, definitions and caches that are odd: taken, or refused in one line that names them."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.fault.process import LONG
from tests.fuzz.documents import TEXTS, as_json, as_yaml, cut_and_flipped, mutants
from tests.fuzz.limits import seconds
from tests.report.conftest import store
from tests.runner.conftest import DEFINITION, write_dataset
from zsad import checkpoints, registry, report, tables
from zsad.cli.main import main
from zsad.data import catalog
from zsad.data.folder_dataset import folder_spec
from zsad.data.index import load_index
from zsad.errors import ZsadError
from zsad.grounding.cache import BoxCache
from zsad.grounding.file import BoxFile
from zsad.io import read_json
from zsad.prompt_bank.answers import AnswerStore
from zsad.prompt_bank.bank import read_entries
from zsad.results import examples
from zsad.results.store import ResultStore, key_of
from zsad.runner.request import build_request
from zsad.training.state import TrainState, load_state, save_state
from zsad.types import Boxes

__all__ = ["store"]  # a fixture

pytestmark = pytest.mark.fault

LIMIT = 20.0  # seconds for one document
EACH = 300 if LONG else 10  # mutants of every kind
SOME = ("empty", "word", "brackets", "endless number, quoted", "not a number", "cut", "binary")


def contents(
    sound: Any, dump: Callable[[Any], bytes], seed: int, texts: Sequence[str]
) -> Iterator[tuple[str, bytes]]:
    yield from ((name, TEXTS[name]) for name in texts)
    for number, value in enumerate(mutants(sound, EACH, seed)):
        yield f"mutant {number}", dump(value)


def refusal(load: Callable[[], object], what: str) -> str:
    """The message with which something was refused; "" where it was taken."""
    with seconds(LIMIT, what):
        try:
            load()
        except ZsadError as error:
            return str(error)
    return ""


def check(
    sound: Any,
    dump: Callable[[Any], bytes],
    load: Callable[[Path], object],
    path: Path,
    *,
    seed: int = 1,
    named: bool = True,
    texts: Sequence[str] = tuple(TEXTS),
) -> int:
    """Load every odd variant of a document; return how many were refused.

    Only :class:`ZsadError` may come out, as one line, which names the file (if ``named``).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(dump(sound))
    load(path)  # sound as it is
    problems = []
    refused = 0
    for name, content in contents(sound, dump, seed, texts):
        path.write_bytes(content)
        catalog.forget_own()
        try:
            with seconds(LIMIT, name):
                load(path)
        except ZsadError as error:
            refused += 1
            text = str(error)
            if "\n" in text or (named and path.name not in text) or len(text) > 4000:
                problems.append(f"{name}: {text[:500]!r} of {content[:300]!r}")
        except Exception as error:
            problems.append(f"{name}: {type(error).__name__}: {error} of {content[:300]!r}")
    assert problems == [], "\n".join(problems)
    return refused


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    assert not (tmp_path / "was-run").exists()


def bundled(*parts: str) -> Any:
    return yaml.safe_load(files("zsad.benchmarks").joinpath(*parts).read_text(encoding="utf-8"))


# --------------------------------------------------------------------------- what a user writes
SETTINGS = {
    "backbone": {"name": "zsad-tiny", "image_size": 224, "precision": "fp32", "weights": None},
    "data": {"mask_resize": "nearest", "workers": 2, "variants": {"synthetic": "default"}},
    "metrics": {"mode": "exact", "fpr_limit": 0.3},
    "run": {"batch_size": 4, "deterministic": True, "feature_cache_gb": 1.5},
    "clip": {"temperature": 0.07, "templates": "default"},
}


def request(**options: Any) -> None:
    build_request(**{"methods": "clip", "datasets": "synthetic", **options})


def test_settings(tmp_path: Path) -> None:
    def load(path: Path) -> None:
        request(config=path)

    sound = copy.deepcopy(SETTINGS)
    del sound["clip"]["templates"], sound["data"]["variants"]
    assert check(sound, as_yaml, load, tmp_path / "settings.yaml") > 20


@pytest.mark.parametrize("seed", [2, 3])
def test_overrides(seed: int) -> None:
    leaves = [f"{g}.{k}={json.dumps(v)}" for g, m in SETTINGS.items() for k, v in m.items()]
    odd = [yaml.safe_dump(v, default_flow_style=True)[:2000] for v in mutants({"a": 1}, 40, seed)]
    odd += ["=", "a", "a=", ".=1", "a..b=1", "backbone=1", "clip=1", "clip.temperature", "\0=\0"]
    odd += [f"{leaf.split('=')[0]}={value}" for leaf in leaves for value in ("{", "[", "&a", "*a")]
    odd += [f"{leaf.split('=')[0]}={value}" for leaf in leaves for value in ("${", "${x}", "~", "")]
    for word in odd:
        text = refusal(lambda w=word: request(overrides=[w]), word)  # type: ignore[misc]
        assert "\n" not in text, word


def test_dataset_definitions(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "things", count=1)
    sound = yaml.safe_load(DEFINITION.format(name="odd", root=root))
    sound.update(groups=["mine"], order=3, levels=["image", "pixel"], folders=["odd"], notes=["a"])
    sound["categories"]["bolt"].update(test=[1, 1], train=[1, 0], also=[[1, 2]])
    sound["variants"]["whole"]["layouts"][0]["options"] = {}

    def load(path: Path) -> None:
        load_index(catalog.load_spec(str(path)), None)

    # what is wrong may be a folder or a variant of the dataset, not the file
    assert check(sound, as_yaml, load, tmp_path / "odd.yaml", named=False) > 20


@pytest.mark.parametrize("name", ["default", "alfa-ablation"])
def test_protocols(tmp_path: Path, name: str) -> None:
    def load(path: Path) -> None:
        request(methods=None, protocol=str(path))

    sound = bundled("protocols", f"{name}.yaml")
    assert check(sound, as_yaml, load, tmp_path / "odd.yaml", named=False) > 20


def test_method_descriptions(tmp_path: Path) -> None:
    def load(path: Path) -> None:
        registry._read_entry(path).resolve()

    text = files("zsad.methods").joinpath("winclip", "config.yaml").read_text(encoding="utf-8")
    path = tmp_path / "odd" / "config.yaml"
    assert check(yaml.safe_load(text), as_yaml, load, path, named=False) > 20


def test_banks_of_prompts(tmp_path: Path) -> None:
    sound = {
        "kind": "alfa",
        "dataset": "mvtec",
        "provenance": {"source": "paper"},
        "categories": {
            "bottle": {"class_name": "bottle", "normal": ["a bottle"], "abnormal": ["a crack"]},
            "nut": {"class_name": "metal nut", "normal": ["a nut"], "abnormal": ["bent", "cut"]},
        },
    }
    assert check(sound, as_yaml, read_entries, tmp_path / "mvtec.yaml") > 20


def test_prepared_indexes(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "things", ("bolt",), count=2)
    entries = [
        {
            "img_path": f"bolt/test/{kind}/{i:03}.png",
            "mask_path": f"bolt/ground_truth/spot/{i:03}_mask.png" if kind == "spot" else "",
            "cls_name": "bolt",
            "specie_name": kind,
            "anomaly": int(kind == "spot"),
        }
        for kind in ("good", "spot")
        for i in range(2)
    ]

    def load(path: Path) -> None:
        load_index(folder_spec(root), None, variant="prepared")

    train = {**entries[0], "img_path": "bolt/train/good/000.png"}
    sound = {"train": {"bolt": [train]}, "test": {"bolt": entries}}
    assert check(sound, as_json, load, root / "meta.json", named=False) > 20


def test_files_of_boxes(tmp_path: Path) -> None:
    one = {"boxes": [[0.5, 0.5, 0.2, 0.1]], "scores": [0.9], "phrases": ["a hole"]}
    sound = {"bolt/test/good/000.png": one, "else": {"boxes": [], "scores": [], "phrases": []}}
    assert check(sound, as_json, BoxFile.read, tmp_path / "boxes.json") > 20


# ---------------------------------------------------------------------------- what zsad wrote
def test_cached_detections(tmp_path: Path) -> None:
    cache = BoxCache("a detector", tmp_path)
    boxes = Boxes([[0.5, 0.5, 0.2, 0.1], [0.1, 0.2, 0.1, 0.1]], [0.9, 0.3], ["a", "b"])
    cache.put("0" * 64, ["hole"], boxes)
    found: list[Boxes | None] = []

    def load(path: Path) -> None:
        answer = cache.get("0" * 64, ["hole"])
        found.append(answer)
        if answer is not None:  # whole, or counted as absent
            assert len(answer.boxes) == len(answer.scores) == len(answer.phrases)
            assert all(len(b) == 4 for b in answer.boxes)
            assert all(-1 <= x <= 2 for b in answer.boxes for x in b)

    path = cache.path("0" * 64, ["hole"])
    assert check(asdict(boxes), as_json, load, path) == 0
    assert found.count(None) > 20


def test_cached_answers(tmp_path: Path) -> None:
    cache = AnswerStore(tmp_path)
    question = {"prompt": "what?", "model": "m", "image": "0" * 64}
    path = cache.put(question, "a hole")

    def load(path: Path) -> None:
        assert cache.get(question) in (None, "a hole")
        cache.images()

    assert check(read_json(path), as_json, load, path) == 0


@pytest.mark.parametrize("folder", ["cells", "failures"])
def test_records(store: ResultStore, folder: str) -> None:
    record = next(iter(store.records()))
    store.fail(replace(key_of(record), category="lost"), "it was lost")
    path = sorted((store.root / folder).glob("*/*/*/*.json"))[0]

    def load(path: Path) -> None:
        store.failures()
        store.broken()
        tables.render(store.root)
        report.write(store.root, most_pictures=1)

    # A record that is broken is left out with a warning; without it there may be nothing to show.
    check(read_json(path), as_json, load, path, named=False, texts=SOME)


def test_manifests(store: ResultStore) -> None:
    run = {"id": "1", "finished": "now", "versions": {"zsad": "1"}, "device": {"kind": "cpu"}}
    path = store.write_manifest({**run, "backbone": {"name": "b"}, "settings": {"a": {"b": 1}}})

    def load(path: Path) -> None:
        report.write(store.root, most_pictures=1)
        store.write_manifest({"id": "2"})

    check(read_json(path), as_json, load, path, texts=SOME)


# ------------------------------------------------------------------------------------- binaries
def binaries(path: Path, load: Callable[[], object], count: int = 30) -> None:
    sound = path.read_bytes()
    for content in cut_and_flipped(sound, count, seed=4):
        path.write_bytes(content)
        text = refusal(load, path.name)
        assert "\n" not in text
        assert text == "" or str(path) in text


def test_examples_and_scores(store: ResultStore) -> None:
    record = next(r for r in store.records() if examples.path_of(store.root, key_of(r)).exists())
    key = key_of(record)
    binaries(examples.path_of(store.root, key), lambda: examples.load(store.root, key))
    scores = sorted((store.root / "scores").rglob("*.parquet"))[0]
    cell = next(c for c in store.cells() if store._scores_path(c.path) == scores)
    binaries(scores, lambda: store.scores(key_of(cell.record)))
    report.write(store.root)


def test_checkpoints(tmp_path: Path) -> None:
    state = {"weight": torch.arange(12.0).reshape(3, 4), "bias": torch.zeros(2)}
    meta = checkpoints.CheckpointMeta("clip", {}, "file", "", (("cls", 0, 0),), {})
    path = checkpoints.save(tmp_path / "state.safetensors", state, meta)
    binaries(path, lambda: checkpoints.load_any(path), count=60)
    official = tmp_path / "official.pth"
    torch.save({"prompt_learner": state}, official)
    binaries(official, lambda: checkpoints.load_any(official), count=60)


def test_states_of_trainings(tmp_path: Path) -> None:
    path = tmp_path / "resume.pt"
    save_state(path, TrainState("me", parameters={"a": torch.ones(3)}, history=[{"epoch": 1}]))
    found = load_state(path, "me")
    assert found is not None

    def load() -> None:
        again = load_state(path, "me")
        assert again is None or isinstance(again.epoch, int)

    binaries(path, load, count=60)


class Malice:
    """Unpickling it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_state_of_training_that_runs_code_is_ignored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "resume.pt"
    torch.save({"version": 1, "identity": "me", "sums": Malice(tmp_path / "was-run")}, path)
    assert load_state(path, "me") is None
    assert "training starts over" in caplog.text
    assert not (tmp_path / "was-run").exists()
    torch.load(path, weights_only=False)
    assert (tmp_path / "was-run").exists()  # so it would have gone
    (tmp_path / "was-run").rmdir()


# ------------------------------------------------------------------------- by the command line
@pytest.mark.parametrize("text", TEXTS if LONG else ("empty", "laughs", "runs a program", "binary"))
@pytest.mark.parametrize("option", ["--config", "--protocol", "--datasets"])
def test_the_command_says_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, text: str
) -> None:
    path = tmp_path / "odd.yaml"
    path.write_bytes(TEXTS[text])
    words = ["bench", "--methods", "clip", "--dry-run", option, str(path)]
    words += [] if option == "--datasets" else ["--datasets", "synthetic"]
    words += ["--backbone", "zsad-tiny"]
    with seconds(LIMIT, text):
        code = main(words)
    out, err = capsys.readouterr()
    assert code in (0, 2)
    if code == 2:
        (line,) = err.splitlines()
        assert line.startswith("zsad: error: ")
        assert "odd.yaml" in line
        assert out == ""

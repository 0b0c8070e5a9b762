"""The runner end to end on a small real dataset and backbone."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import zsad
from zsad import registry
from zsad.backbones import Backbone, devices
from zsad.data import loader
from zsad.errors import RequestError
from zsad.metrics import spec
from zsad.on_device import algorithms
from zsad.results.store import ResultStore
from zsad.runner.sweep import Sweep

Bench = Callable[..., dict[str, Any]]


def numbers(document: dict[str, Any]) -> dict[tuple[Any, ...], dict[str, float | None]]:
    return {
        (c["method"], c["dataset"], c["category"], c["seed"]): c["metrics"]
        for c in document["cells"]
    }


def close(a: dict[Any, Any], b: dict[Any, Any], tolerance: float = 1e-4) -> None:
    assert a.keys() == b.keys()
    for key, metrics in a.items():
        for name, value in metrics.items():
            other = b[key][name]
            assert (value is None) == (other is None), (key, name)
            if value is not None:
                assert value == pytest.approx(other, abs=tolerance), (key, name)


def test_one_forward_serves_all_methods(bench: Bench) -> None:
    alone = bench("clip", overrides=["run.batch_size=8"], dry_run=True)
    assert alone["to_run"] == 2
    document = bench("clip,winclip,crowd", overrides=["run.batch_size=8"])
    assert not document["failed"]
    assert document["counters"]["image_forwards"] == 2  # two categories of eight images
    assert document["counters"]["images"] == 16
    assert len(document["cells"]) == 6
    for cell in document["cells"]:
        assert set(cell["metrics"]) == set(spec.names())
        assert all(v is not None for v in cell["metrics"].values())
        assert (cell["n_normal"], cell["n_anomalous"]) == (4, 4)
    json.dumps(document)


def test_deterministic_algorithms_end_with_the_sweep(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later sweep may be on a GPU, where they cost more than they are worth."""
    seen = []
    run = Sweep.run

    def watched(self: Sweep) -> None:
        seen.append(torch.are_deterministic_algorithms_enabled())
        run(self)

    monkeypatch.setattr(Sweep, "run", watched)
    with algorithms(deterministic=False):
        for wanted in (True, False):
            found = bench("clip", overrides=[f"run.deterministic={wanted}"], fresh=True)
            assert not found["failed"]
            assert not torch.are_deterministic_algorithms_enabled()
    assert seen == [True, False]


def test_together_equals_alone_and_batch_size_does_not_matter(bench: Bench, tmp_path: Path) -> None:
    together = numbers(bench("clip,winclip", overrides=["run.batch_size=8"]))
    apart: dict[Any, Any] = {}
    for method in ("clip", "winclip"):
        one = bench(method, overrides=["run.batch_size=3"], results=tmp_path / "other")
        apart.update(numbers(one))
    close(together, apart)


@pytest.mark.parametrize(("workers", "cores"), [(0, 2), (1, 2), (3, 2), (3, 1)])
def test_the_next_category_is_decoded_while_this_one_is_scored(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, workers: int, cores: int
) -> None:
    """The last image of the first category is not done with before one of the second is being
    decoded, unless there is no thread or no core for that; the figures are those of a run that
    decodes in turn."""
    monkeypatch.setattr(devices, "usable_cores", lambda: cores * torch.get_num_threads())
    ahead = workers > 0 and cores > 1
    decoding = threading.Event()  # an image of the second category
    read = loader.read_image
    in_time: list[bool] = []

    def noting(path: str, *rest: Any, **named: Any) -> Any:
        if "/cloth/" in path:
            decoding.set()
        return read(path, *rest, **named)

    def waiting(category: str) -> None:
        if category == "bolt":
            in_time.append(decoding.wait(20 if ahead else 0))

    monkeypatch.setattr(loader, "read_image", noting)
    monkeypatch.setattr(registry.method("patient").load(), "meanwhile", waiting)
    settings = ["run.batch_size=8", f"data.workers={workers}"]
    document = bench("patient", overrides=settings)
    assert not document["failed"]
    assert in_time == [ahead]
    monkeypatch.undo()
    close(numbers(document), numbers(bench("patient", overrides=settings, fresh=True)), 0)


def test_a_second_run_computes_nothing(bench: Bench) -> None:
    first = bench("clip")
    again = bench("clip")
    assert again["counters"]["images"] == 0
    assert again["counters"]["cells_run"] == 0
    assert numbers(first) == numbers(again)
    more = bench("clip,winclip")
    assert more["counters"]["cells_run"] == 2
    assert bench("clip", fresh=True)["counters"]["cells_run"] == 2


@pytest.mark.parametrize("place", ["encode_image", "text_encoder"])
def test_computing_again_in_vain_is_a_failure_although_an_older_record_stands(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Whether the encoder fails (which costs the category) or the head cannot be made."""
    first = bench("clip")

    def broken(*args: Any, **options: Any) -> Any:
        raise ValueError("the device is gone")

    with monkeypatch.context() as patch:
        patch.setattr(Backbone, place, broken)
        again = bench("clip", fresh=True)
    assert again["cells"] == again["summary"] == []
    assert [f["cell"]["category"] for f in again["failed"]] == ["bolt", "cloth"]
    assert all("the device is gone" in f["error"] for f in again["failed"])
    asked = bench("clip")  # what is stored is still there for a run that does not ask for more
    assert numbers(asked) == numbers(first)
    assert asked["failed"] == []
    assert bench("clip", fresh=True)["failed"] == []


def test_what_changes_numbers_makes_new_cells(bench: Bench) -> None:
    bench("clip")
    changed = bench("clip", overrides=["clip.temperature=0.5"])
    assert changed["counters"]["cells_run"] == 2
    assert bench("clip", limit=4)["counters"]["cells_run"] == 2
    assert bench("clip", overrides=["run.batch_size=2"])["counters"]["cells_run"] == 0


def test_limit_is_balanced(bench: Bench) -> None:
    document = bench("clip", limit=4)
    assert [(c["n_normal"], c["n_anomalous"]) for c in document["cells"]] == [(2, 2), (2, 2)]


def test_a_method_that_raises_costs_only_its_own_cell(bench: Bench) -> None:
    document = bench("raises,clip")
    assert {(c["method"], c["category"]) for c in document["cells"]} == {
        ("raises", "bolt"),
        ("clip", "bolt"),
        ("clip", "cloth"),
    }
    (failure,) = document["failed"]
    assert failure["cell"]["category"] == "cloth"
    assert "ArithmeticError: cannot weave" in failure["error"]
    assert "\n" not in failure["error"]


def test_a_config_that_does_not_fit_costs_only_its_own_method(bench: Bench) -> None:
    document = bench("clip,filo", overrides=["filo.vv_stages=[1]"], protocol=None)
    assert {c["method"] for c in document["cells"]} == {"clip"}
    assert len(document["failed"]) == 2
    assert all(f["cell"]["method"] == "filo" for f in document["failed"])


def test_not_a_number_is_refused_by_name(bench: Bench) -> None:
    document = bench("nan,clip")
    assert {c["method"] for c in document["cells"]} == {"clip"}
    assert all("not-a-number" in f["error"] for f in document["failed"])
    assert len(document["failed"]) == 2


def test_out_of_memory_halves_the_batch_and_loses_nothing(bench: Bench) -> None:
    document = bench("hungry", overrides=["run.batch_size=8"])
    assert not document["failed"]
    assert 2 in document["counters"]["batch_sizes"]
    assert [c["n_normal"] + c["n_anomalous"] for c in document["cells"]] == [8, 8]


def test_transductive_methods_see_everything_once(bench: Bench, tmp_path: Path) -> None:
    small = bench("crowd", overrides=["run.batch_size=3"])
    large = bench("crowd", overrides=["run.batch_size=8"], results=tmp_path / "large")
    close(numbers(small), numbers(large))
    assert small["counters"]["images"] == 16


def test_cells_of_a_method_whose_files_have_changed_are_computed_again(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody who writes a method changes it between runs; the first run's figures were served."""
    results = tmp_path / "results"
    bench("crowd")
    assert bench("crowd")["counters"]["images"] == 0
    for path in (results / "cells" / "crowd").rglob("*.json"):
        held = json.loads(path.read_text())
        assert held["info"]["source"] == registry.method("crowd").source_digest()
        held["info"]["source"] = "0" * 16  # as of a run before the change
        path.write_text(json.dumps(held))
    assert bench("crowd")["counters"]["images"] == 16
    assert "crowd: its files have changed since" in caplog.text
    bench("clip")
    (record, *_) = (r for r in ResultStore(results).records() if r.method == "clip")
    assert "source" not in record.info  # what is installed has a revision


def test_references_are_drawn_by_seed(bench: Bench) -> None:
    document = bench("winclip", seeds="0,1", overrides=["winclip.shots=2"])
    assert not document["failed"]
    assert {c["seed"] for c in document["cells"]} == {0, 1}
    # sixteen test images, and at most 2 + 2 references for either category
    assert 16 < document["counters"]["images"] <= 24


def test_too_few_references_is_a_failed_cell(bench: Bench) -> None:
    document = bench("winclip,clip", overrides=["winclip.shots=9"])
    assert {c["method"] for c in document["cells"]} == {"clip"}
    assert "9 normal reference images are needed" in document["failed"][0]["error"]


def test_no_training_part_leaves_few_shot_undefined(bench: Bench, tmp_path: Path) -> None:
    import shutil

    for category in ("bolt", "cloth"):
        shutil.rmtree(tmp_path / "things" / category / "train")
    document = bench("winclip,clip", overrides=["winclip.shots=1"])
    assert not document["failed"]
    for cell in document["cells"]:
        known = cell["method"] == "clip"
        assert all((v is not None) == known for v in cell["metrics"].values())
        if not known:
            assert "no normal training images" in cell["undefined"]["image_auroc"]
    assert bench("winclip", overrides=["winclip.shots=1"])["counters"]["cells_run"] == 0


def test_seedless_methods_fill_every_seed_with_one_pass(bench: Bench) -> None:
    document = bench("clip", seeds=[0, 1, 2])
    assert len(document["cells"]) == 6
    assert document["counters"]["images"] == 16


def test_an_unreadable_image_loses_its_category_by_name(bench: Bench, tmp_path: Path) -> None:
    broken = tmp_path / "things" / "cloth" / "test" / "good" / "001.png"
    broken.write_bytes(broken.read_bytes()[:60])
    document = bench("clip")
    assert {c["category"] for c in document["cells"]} == {"bolt"}
    (failure,) = document["failed"]
    assert "001.png" in failure["error"]


def test_a_missing_dataset_does_not_stop_the_others(bench: Bench, definition: Path) -> None:
    document = bench("clip", datasets=f"mvtec,{definition}", data_root=definition.parent)
    assert {c["dataset"] for c in document["cells"]} == {definition.stem}
    assert document["failed"][0]["cell"] == {"dataset": "mvtec"}


def test_image_scores_and_manifest_are_stored(
    bench: Bench, tmp_path: Path, definition: Path
) -> None:
    bench("clip")
    root = tmp_path / "results"
    table = pd.read_parquet(root / "scores" / "clip" / definition.stem / "0" / "bolt.parquet")
    assert len(table) == 8
    assert sorted(table["label"].unique()) == [0, 1]
    assert np.isfinite(table["score"]).all()
    manifest = json.loads((root / "manifest.json").read_text())
    text = json.dumps(manifest)
    assert "weights_sha256" in text
    assert str(tmp_path) not in text  # nothing about this machine's folders


@pytest.mark.parametrize(
    "change, words",
    [
        ({"methods": "clipp"}, "did you mean 'clip'"),
        ({"overrides": ["clip.temprature=1"]}, "did you mean 'temperature'"),
        ({"overrides": ["clip.temperature=hot"]}, "must be a number"),
        ({"overrides": ["winclip.temperature=1"]}, "not in --methods"),
        ({"overrides": ["run.batch=1"]}, "did you mean 'batch_size'"),
        ({"seeds": "a"}, "--seeds"),
        ({"limit": 0}, "--limit"),
        ({"datasets": "mvtek"}, "did you mean 'mvtec'"),
        ({"launcher": "moon"}, "--launcher"),
    ],
)
def test_wrong_requests_name_the_option(bench: Bench, change: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        bench(**change)


def test_native_masks_are_met_at_their_own_size(bench: Bench) -> None:
    document = bench("clip", overrides=["data.mask_resize=native", "run.batch_size=8"])
    assert not document["failed"]
    plain = bench("clip", overrides=["run.batch_size=8"])
    native = document["cells"][0]["metrics"]["pixel_auroc"]
    assert native == pytest.approx(plain["cells"][0]["metrics"]["pixel_auroc"], abs=0.05)


def test_public_names() -> None:
    for name in zsad.__all__:
        if name not in ("train",):
            assert getattr(zsad, name) is not None

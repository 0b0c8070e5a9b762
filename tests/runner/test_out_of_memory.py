"""Memory that runs out at any stage leaves equal figures, or a failed cell that says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.runner.conftest import benching, define
from zsad import registry, scoring
from zsad.backbones import Backbone
from zsad.metrics import CategoryMetrics
from zsad.results.records import CellRecord
from zsad.results.store import ResultStore
from zsad.runner import example_collector
from zsad.types import ImageFeatures

Bench = Callable[..., dict[str, Any]]
METHODS = "alfa,clip,crowd"
SETTINGS = ["run.batch_size=4"]
TORCH, PYTHON = torch.OutOfMemoryError("out of memory"), MemoryError()


class Short:
    """Lets a function run out of memory on one of its calls; ``late``: when its work is done."""

    def __init__(
        self, patch: pytest.MonkeyPatch, where: Any, name: str, error: BaseException, late: bool
    ) -> None:
        self.calls, self.error, self.late = 0, error, late
        self.whole = getattr(where, name)
        patch.setattr(where, name, lambda *args, **kwargs: self(*args, **kwargs))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        if self.calls != 2:  # the second one, when something has been counted already
            return self.whole(*args, **kwargs)
        if self.late:
            self.whole(*args, **kwargs)
        raise self.error


def stored(root: Path) -> dict[tuple[str, str], CellRecord]:
    return {(r.method, r.category): r for r in ResultStore(root).records()}


def shown(root: Path) -> dict[str, Any]:
    """Everything that the examples of all cells hold."""
    return {
        str(path.relative_to(root)): {k: v.tolist() for k, v in np.load(path).items()}
        for path in sorted((root / "examples").rglob("*.npz"))
    }


def crossed(*kinds: Any) -> list[Any]:
    """Every kind with either error.  What handles them asks one function which errors they are, so
    that one of the two is enough where things must be fast: they take turns."""
    return [
        pytest.param(
            kind,
            error,
            id=f"{kind}-{name}" if isinstance(kind, str) else f"{'-'.join(kind)}-{name}",
            marks=[] if (number + number // 2 + place) % 2 == 0 else [pytest.mark.slow],
        )
        for number, kind in enumerate(kinds)
        for place, (name, error) in enumerate((("torch", TORCH), ("python", PYTHON)))
    ]


@pytest.fixture(scope="module")
def definition(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One dataset for the whole module: no test writes to it."""
    return define(tmp_path_factory.mktemp("memory"))


@pytest.fixture(scope="module")
def expected(definition: Path, weights: Path) -> Path:
    """The results of a sweep that memory was enough for."""
    results = definition.parent / "expected"
    assert not benching(definition, weights, results)(METHODS, overrides=SETTINGS)["failed"]
    return results


def equal(found: dict[Any, CellRecord], wanted: dict[Any, CellRecord]) -> None:
    for key, record in found.items():
        other = wanted[key]
        assert record.metrics == pytest.approx(other.metrics, abs=1e-6), key
        assert (record.n_normal, record.n_anomalous) == (other.n_normal, other.n_anomalous)
        assert json.dumps(record.info["method_info"]) == json.dumps(other.info["method_info"])


PURE = {
    "encode": (Backbone, "encode_image"),
    "score": (None, "score"),
    "map": (scoring.dense, "build_maps"),
    "image score": (None, "image_score"),
    "explain": (None, "explain"),
}


@pytest.mark.parametrize("stage, error", crossed(*PURE))
def test_what_has_no_effects_is_tried_again(
    stage: str,
    error: BaseException,
    bench: Bench,
    expected: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    where, name = PURE[stage]
    short = Short(monkeypatch, where or registry.method("alfa").load(), name, error, late=True)
    document = bench(METHODS, overrides=SETTINGS)
    assert short.calls > 2
    assert not document["failed"]
    assert 2 in document["counters"]["batch_sizes"] or stage == "explain"
    found, wanted = stored(tmp_path / "results"), stored(expected)
    assert found.keys() == wanted.keys()
    equal(found, wanted)
    assert found["alfa", "bolt"].info["method_info"]["context"]["images"] == 8
    assert chosen(tmp_path / "results") == chosen(expected)


EFFECTS = {
    "metrics": (CategoryMetrics, "update"),
    "values": (CategoryMetrics, "compute"),
    "examples": (example_collector.ExampleCollector, "__call__"),
}


@pytest.mark.parametrize("at, error", crossed(*product(EFFECTS, ("before", "after"))))
def test_what_has_effects_begins_anew(
    at: tuple[str, str],
    error: BaseException,
    bench: Bench,
    expected: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    where, name = EFFECTS[at[0]]
    Short(monkeypatch, where, name, error, late=at[1] == "after")
    document = bench(METHODS, overrides=SETTINGS)
    assert not document["failed"]
    found, wanted = stored(tmp_path / "results"), stored(expected)
    assert found.keys() == wanted.keys()
    equal(found, wanted)
    assert chosen(tmp_path / "results") == chosen(expected)


def test_what_never_fits_costs_its_own_cell_and_says_so(
    bench: Bench, expected: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []
    whole = example_collector.ExampleCollector.__call__

    def short(self: Any, head: Any, samples: Any, scored: Any) -> None:
        if head.label == "clip":
            passes.append(len(samples))
            raise MemoryError
        whole(self, head, samples, scored)

    monkeypatch.setattr(example_collector.ExampleCollector, "__call__", short)
    document = bench(METHODS, overrides=SETTINGS)
    assert {f["cell"]["method"] for f in document["failed"]} == {"clip"}
    for failure in document["failed"]:
        assert "out of memory in the metrics or the examples" in failure["error"]
        assert "backbone.image_size" in failure["error"]
    assert passes == 2 * [4, 1]  # either category: the first pass and a later one
    found, wanted = stored(tmp_path / "results"), stored(expected)
    assert {key[0] for key in wanted.keys() - found.keys()} == {"clip"}
    equal(found, wanted)
    monkeypatch.undo()
    assert not bench(METHODS, overrides=SETTINGS)["failed"]  # what failed is computed again
    equal(stored(tmp_path / "results"), wanted)


@pytest.mark.parametrize("name, error", crossed("concat", "to"))
def test_a_population_without_memory_is_gathered_anew(
    name: str,
    error: BaseException,
    bench: Bench,
    expected: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Wherever the features of all images meet: on the host, and on their way to the device."""

    def short(*args: Any, **kwargs: Any) -> ImageFeatures:
        monkeypatch.undo()  # once
        raise error

    if name == "to":
        whole = ImageFeatures.to

        def to(self: ImageFeatures, where: Any) -> ImageFeatures:
            if where == "cpu":  # a batch that is put aside
                return whole(self, where)
            return short()

        monkeypatch.setattr(ImageFeatures, "to", to)
    else:
        monkeypatch.setattr(ImageFeatures, "concat", short)
    document = bench(METHODS, overrides=SETTINGS)
    assert not document["failed"]
    found, wanted = stored(tmp_path / "results"), stored(expected)
    assert found.keys() == wanted.keys()
    equal(found, wanted)


def test_a_population_that_never_fits_costs_its_own_cell(
    bench: Bench, expected: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(*args: Any) -> ImageFeatures:
        raise MemoryError

    monkeypatch.setattr(ImageFeatures, "concat", short)
    document = bench(METHODS, overrides=SETTINGS)
    assert {f["cell"]["method"] for f in document["failed"]} == {"crowd"}
    equal(stored(tmp_path / "results"), stored(expected))


def test_references_without_memory_cost_the_heads_that_need_them(
    bench: Bench, expected: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Backbone.encode_image

    def encode_image(self: Backbone, images: Any, request: Any) -> ImageFeatures:
        if len(images) == 3:  # there are three references, and batches of four
            raise RuntimeError("the references are not to be had")
        return whole(self, images, request)

    monkeypatch.setattr(Backbone, "encode_image", encode_image)
    document = bench("clip,patchcore", overrides=[*SETTINGS, "patchcore.shots=3"])
    assert {f["cell"]["method"] for f in document["failed"]} == {"patchcore"}
    equal(stored(tmp_path / "results"), stored(expected))


def test_a_size_that_does_not_fit_is_not_tried_with_every_batch(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    whole = Backbone.encode_image

    def encode_image(self: Backbone, images: Any, request: Any) -> ImageFeatures:
        asked.append(len(images))
        if len(images) > 2:
            raise MemoryError
        return whole(self, images, request)

    monkeypatch.setattr(Backbone, "encode_image", encode_image)
    assert not bench("clip", overrides=SETTINGS)["failed"]
    assert asked == [4, 2, 2, 2, 2, 2, 2, 2, 2]  # once, and not for the other category


# ----------------------------------------------------------------------- the example pictures
def test_only_what_is_kept_is_explained(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = registry.method("clip").load()
    explained: list[int] = []
    whole = clip.explain

    def explain(self: Any, scored: Any, k: int = 5) -> Any:
        explained.append(scored.batch_size)
        return whole(self, scored, k)

    monkeypatch.setattr(clip, "explain", explain)
    bench("clip", overrides=["run.batch_size=8"])
    kept = [
        sum(name.startswith("jpeg_") for name in cell)
        for cell in shown(tmp_path / "results").values()
    ]
    assert explained == kept
    assert max(kept) <= 4
    bench("clip", overrides=["run.batch_size=1"], results=tmp_path / "one by one")
    assert chosen(tmp_path / "results") == chosen(tmp_path / "one by one")


def chosen(root: Path) -> dict[str, list[tuple[str, str, list[str]]]]:
    """The examples of all cells: name, kind, reasons."""
    found = {}
    for name, cell in shown(root).items():
        meta = json.loads(bytes(cell["meta"]))["examples"]
        found[name] = [(e["uid"], e["kind"], [r["text"] for r in e["explanations"]]) for e in meta]
    return found

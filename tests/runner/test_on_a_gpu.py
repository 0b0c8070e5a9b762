"""A sweep on a device: equal figures, nothing on the wrong side, few waits and copies.

The device is simulated (:mod:`tests.fake_cuda`); what only hardware can show stands in
docs/performance.md.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

import zsad
from tests import small_clip
from tests.fake_cuda import Gpu, simulated
from tests.runner.conftest import DEFINITION, SIZE, write_dataset
from zsad import backbones, registry, tables
from zsad import maps as dense
from zsad.backbones import Backbone, precision
from zsad.backbones.batch_size import Portions
from zsad.backbones.text import TextEncoder
from zsad.config import MetricSettings
from zsad.methods.alfa.method import Alfa
from zsad.metrics import CategoryMetrics
from zsad.metrics.pixel import PixelRanking
from zsad.metrics.regions import BatchRegions
from zsad.on_device import SideStream
from zsad.results.store import ResultStore
from zsad.runner.example_collector import ExamplePictures
from zsad.scoring import Scorer, encode
from zsad.types import Category, FeatureRequest, ImageFeatures

EVERY = "trained,clip,winclip,alfa,maskclip,anovl,musc,patchcore"
SOME = "filo,alfa,musc,patchcore"
FOUR = ("filo", "faprompt", "kanoclip", "anomalyclip")
NUT = Category("mvtec", "metal_nut", "metal nut")
Bench = Callable[..., dict[str, Any]]
Cells = dict[tuple[str, str], dict[str, float | None]]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Bench:
    """``zsad.bench`` on two categories of eight images, all of which are scored."""
    folder = tmp_path_factory.mktemp("gpu")
    write_dataset(folder / "things")
    definition = folder / "things-on-a-gpu.yaml"
    definition.write_text(DEFINITION.format(name="things-on-a-gpu", root=folder / "things"))
    runs = 0

    def run(methods: str = EVERY, **options: Any) -> dict[str, Any]:
        nonlocal runs
        runs += 1
        overrides = ["run.batch_size=4", "data.workers=0", f"backbone.image_size={SIZE}"]
        overrides += ["backbone.precision=fp32", *options.pop("overrides", [])]
        return zsad.bench(
            methods,
            str(definition),
            backbone="file",
            weights=weights,
            results=options.pop("results", folder / f"results-{runs}"),
            untrained=any(m.trained for m in registry.select_methods(methods)),
            overrides=overrides,
            **options,
        )

    return run


@pytest.fixture(scope="module")
def expected(sweep: Bench) -> Callable[[str], Cells]:
    """The cells of the CPU."""
    return cache(lambda methods: cells(sweep(methods, device="cpu")))


def cells(document: dict[str, Any]) -> Cells:
    assert not document["failed"], document["failed"]
    return stored(document)


def stored(document: dict[str, Any]) -> Cells:
    return {(c["method"], c["category"]): c["metrics"] for c in document["cells"]}


def equal(found: Cells, wanted: Cells) -> None:
    assert found.keys() <= wanted.keys()
    for key, metrics in found.items():
        assert metrics == pytest.approx(wanted[key], abs=1e-5), key


class Updates:
    """Notes how often the host waits in every update of metrics."""

    def __init__(self, patch: pytest.MonkeyPatch, gpu: Gpu) -> None:
        self.waits: list[Counter[str]] = []
        whole = CategoryMetrics.update

        def update(*args: Any, **kwargs: Any) -> None:
            before = Counter(gpu.waits)
            whole(*args, **kwargs)
            self.waits.append(gpu.waits - before)

        patch.setattr(CategoryMetrics, "update", update)


@pytest.mark.parametrize("methods", [SOME, pytest.param(EVERY, marks=pytest.mark.slow)])
def test_a_sweep_on_cuda(
    methods: str,
    sweep: Bench,
    expected: Callable[[str], Cells],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    explained: Counter[str] = Counter()
    whole = Scorer.explain

    def explain(scorer: Scorer, scored: Any, k: int = 5) -> Any:
        explained[scorer.label] += scored.batch_size
        return whole(scorer, scored, k)

    monkeypatch.setattr(Scorer, "explain", explain)
    with simulated("cuda") as gpu:
        updates = Updates(monkeypatch, gpu)
        found = cells(sweep(methods, device="cuda"))
    assert len(found) == 2 * len(registry.select_methods(methods))
    equal(found, expected(methods))
    assert len(updates.waits) >= len(found)
    worst = max(updates.waits, key=lambda waits: waits.total())
    assert worst.total() <= 6, worst
    masks = [(line, shape) for line, kind, shape in gpu.shapes if kind == torch.bool]
    assert not [m for m in masks if m[1][-2:] == (SIZE, SIZE)], masks
    # Two batches of four, of which at most the four kinds of example enter: never all of both.
    assert max(explained.values()) <= 2 * 8
    assert sum(gpu.timers.values()) <= 4 * 2 + 2 * len(found)  # once a category, and for its cells


@pytest.mark.parametrize("methods", [SOME, pytest.param(EVERY, marks=pytest.mark.slow)])
def test_a_sweep_on_apples_device(
    methods: str, sweep: Bench, expected: Callable[[str], Cells]
) -> None:
    with simulated("mps"):  # float64 raises
        equal(cells(sweep(methods, device="auto")), expected(methods))


# ------------------------------------------------------------------------- out of memory
STARVED = "clip,alfa,musc"


@pytest.mark.parametrize(
    "share", [0.3, *(pytest.param(s, marks=pytest.mark.slow) for s in (0.6, 0.75)), 0.9]
)
def test_memory_that_runs_out_once_changes_no_figure(
    share: float, sweep: Bench, expected: Callable[[str], Cells], kernels: int
) -> None:
    wanted = expected(STARVED)
    at = int(share * kernels)

    def starve(number: int) -> None:
        if number == at:
            gpu.kernels["starved"] += 1  # the next one has another number
            raise torch.OutOfMemoryError("CUDA out of memory, once")

    with simulated("cuda") as gpu:
        gpu.on_kernel = starve
        document = sweep(STARVED, device="cuda")
    assert gpu.kernels["starved"] == 1
    equal(stored(document), wanted)
    lost = {key[0] for key in wanted.keys() - stored(document).keys()}
    assert len(lost) <= 1, document["failed"]
    assert share < 0.4 or not lost, document["failed"]  # texts come first; a method needs its own


@pytest.fixture(scope="module")
def kernels(sweep: Bench) -> int:
    """How many kernels a sweep of :data:`STARVED` is."""
    with simulated("cuda") as gpu:
        sweep(STARVED, device="cuda")
    return gpu.launched


STAGES = {  # where memory runs out once, and whether the method that needs it there is lost
    "texts": (TextEncoder, "encode_texts", True),
    "encoder": (Backbone, "encode_image", False),
    "references": (ImageFeatures, "concat", True),
    "head": (Alfa, "score", False),
    "population": (ImageFeatures, "to", True),
    "maps": (dense, "build_maps", False),
    "image scores": (Alfa, "image_score", False),
    "metrics": (CategoryMetrics, "update", False),
    "pixels": (PixelRanking, "update", False),
    "examples": (ExamplePictures, "look", False),
    "reasons": (Scorer, "explain", False),
    "figures": (CategoryMetrics, "compute", True),
    "images sent ahead": (SideStream, "send", False),
}
STAGED = "alfa,musc,patchcore"


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_memory_that_runs_out_in_any_stage_costs_no_other_cell(
    stage: str, sweep: Bench, expected: Callable[[str], Cells], monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, name, loses = STAGES[stage]
    wanted = expected(STAGED)
    whole = getattr(owner, name)
    calls = 0

    def once(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:  # not the first one: something is done already
            raise torch.OutOfMemoryError("CUDA out of memory, once")
        return whole(*args, **kwargs)

    monkeypatch.setattr(owner, name, once)
    overrides = ["data.workers=1"] if owner is SideStream else []
    with simulated("cuda"):
        document = sweep(STAGED, device="cuda", overrides=overrides)
    assert calls >= 2
    found = stored(document)
    equal(found, wanted)
    lost = {key[0] for key in wanted.keys() - found.keys()}
    assert len(lost) <= loses, document["failed"]


def test_a_size_that_did_not_fit_is_not_tried_again(
    sweep: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []
    whole = Backbone.encode_image

    def encode_image(backbone: Backbone, images: Tensor, request: FeatureRequest) -> Any:
        tried.append(len(images))
        if len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory: more than two do not fit")
        return whole(backbone, images, request)

    monkeypatch.setattr(Backbone, "encode_image", encode_image)
    with simulated("cuda"):
        document = sweep("clip", device="cuda")
    assert not document["failed"]
    assert tried == [4] + [2] * 8  # two categories of eight images


# ----------------------------------------------------------------------------- precision
def test_half_precision_is_named_wherever_figures_stand(
    sweep: Bench,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(precision, "DRIVERS", ("/",))
    with simulated("cuda"):
        auto = ["backbone.precision=auto"]
        document = sweep("clip", device="cuda", overrides=auto, results=tmp_path)
    assert not document["failed"]
    assert any("px in bf16, preset" in r.getMessage() for r in caplog.records)  # the console
    assert {r.info["precision"] for r in ResultStore(tmp_path).records()} == {"bf16"}
    shown = list(tables.pages(tmp_path))
    assert shown
    for page in shown:
        assert "precision bf16" in tables.markdown(page).lower(), page.name


# ------------------------------------------------------------------------------- budgets
@pytest.fixture(scope="module")
def deep(recipe: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As many blocks as ViT-L/14 has, of small width: kernels do not depend on it."""
    path = tmp_path_factory.mktemp("deep") / "clip.pt"
    return small_clip.write(recipe, path, vision_layers=24, text_layers=12)


class Batches:
    """Methods on a simulated device that score batches of eight, and what each of them costs."""

    def __init__(self, weights: Path, names: Sequence[str], gpu: Gpu) -> None:
        self.gpu = gpu
        self.backbone = backbones.load(
            "file", weights=weights, image_size=SIZE, device="cuda", precision="bf16"
        )
        self.scorers = {}
        for name in names:
            entry = registry.method(name)
            config = entry.resolve(("test", {"grounding": False} if name == "filo" else {}))
            method = entry.load()(config, self.backbone.info).to("cuda").eval()
            self.scorers[name] = Scorer(method, self.backbone)
        self.metrics = {
            name: CategoryMetrics.of(MetricSettings(), device=torch.device("cuda"))
            for name in names
        }
        self.kernels: Counter[str] = Counter()

    def run(self, number: int) -> None:
        """Encode a batch once, score it with all, count it, and explain half of it."""
        draw = torch.Generator().manual_seed(0)
        shape = (8, 3, SIZE, SIZE)
        pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=draw).pin_memory()
        masks = torch.zeros(8, SIZE, SIZE, dtype=torch.bool)
        masks[::2, 10:20, 10:30] = True
        regions, labels = BatchRegions(masks), torch.arange(8) % 2 == 0
        request = FeatureRequest.merge([s.request for s in self.scorers.values()])
        before = self.gpu.launched
        ((_, features),) = encode(self.backbone, pixels, request, Portions())
        self.kernels["encode"] = self.gpu.launched - before
        for name, scorer in self.scorers.items():
            uids = [f"{number}-{i}" for i in range(8)]
            context = scorer.context([NUT] * 8, uids=uids)
            ((_, scored),) = scorer.score(features.restrict(scorer.request.taps), context)
            scores = scored.image_scores
            self.metrics[name].update(scored.maps.final, masks, scores, labels, regions=regions)
            scorer.explain(scored.select([0, 3, 5, 7]))


def test_four_methods_on_a_batch_wait_for_the_device_at_most_60_times(deep: Path) -> None:
    with simulated("cuda") as gpu:
        batches = Batches(deep, FOUR, gpu)
        batches.run(0)
        gpu.clear()
        batches.run(1)
    assert sum(gpu.waits.values()) <= 60, gpu.waits
    assert not gpu.timers
    # Nothing goes up but the images as they were decoded and the places of anomalous pixels.
    sent = {"zsad/data/transforms.py", "zsad/metrics/regions.py"}
    assert {line.split(":")[0] for line in gpu.up} == sent
    assert sum(gpu.up_bytes.values()) <= 8 * 3 * SIZE**2 + 16 * 4 * 200
    assert batches.kernels["encode"] <= 500

"""A sweep on a device: equal figures, nothing on the wrong side, few waits and copies.

The device is simulated (:mod:`tests.fake_cuda`); what only hardware can show stands in
docs/performance.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import zsad
from tests.fake_cuda import Gpu, simulated
from tests.runner.conftest import DEFINITION, SIZE, write_dataset
from zsad import registry
from zsad.metrics import CategoryMetrics

ZERO_SHOT = "trained,clip,winclip,alfa,maskclip,anovl,musc,patchcore"
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

    def run(methods: str = ZERO_SHOT, **options: Any) -> dict[str, Any]:
        nonlocal runs
        runs += 1
        overrides = ["run.batch_size=4", "data.workers=0", f"backbone.image_size={SIZE}"]
        overrides += ["backbone.precision=fp32", *options.pop("overrides", [])]
        return zsad.bench(
            methods,
            str(definition),
            backbone="file",
            weights=weights,
            results=folder / f"results-{runs}",
            untrained=any(m.trained for m in registry.select_methods(methods)),
            overrides=overrides,
            **options,
        )

    return run


@pytest.fixture(scope="module")
def expected(sweep: Bench) -> Cells:
    """The cells of the CPU."""
    return cells(sweep(device="cpu"))


def cells(document: dict[str, Any]) -> Cells:
    assert not document["failed"], document["failed"]
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


def test_all_methods_on_cuda(
    sweep: Bench, expected: Cells, monkeypatch: pytest.MonkeyPatch
) -> None:
    with simulated("cuda") as gpu:
        updates = Updates(monkeypatch, gpu)
        found = cells(sweep(device="cuda"))
    assert len(found) == 2 * len(registry.select_methods(ZERO_SHOT))
    equal(found, expected)
    assert len(updates.waits) >= 2 * len(found)
    worst = max(updates.waits, key=lambda waits: waits.total())
    assert worst.total() <= 6, worst
    masks = [(line, shape) for line, kind, shape in gpu.shapes if kind == torch.bool]
    assert not [m for m in masks if m[1][-2:] == (SIZE, SIZE)], masks


def test_all_methods_on_apples(sweep: Bench, expected: Cells) -> None:
    with simulated("mps"):
        equal(cells(sweep(device="auto")), expected)

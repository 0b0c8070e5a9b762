"""One more metric is one entry of the list and one function: it appears everywhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import zsad
from zsad import tables
from zsad.cli.bench import print_summary
from zsad.metrics import spec
from zsad.metrics.functional import Curve
from zsad.metrics.spec import METRICS, MetricSpec
from zsad.report.page import render
from zsad.report.page_data import collect
from zsad.results.store import ResultStore

Bench = Callable[..., dict[str, Any]]


def half_found(curve: Curve) -> float:
    """Return the share of normal items that are reported when half of the anomalous are found."""
    rate = curve.true_positive_rate()
    return float(1 - curve.false_positive_rate()[rate >= 0.5][0])


ENTRY = MetricSpec(
    name="pixel_half",
    level="pixel",
    title="half-found",
    question="How much of what is sound is left alone when half of the defects are found?",
    table="pixel",
    headline=True,
    function=f"{__name__}:half_found",
)


def test_a_new_entry_appears_everywhere(
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    old = bench("clip")
    monkeypatch.setitem(METRICS, ENTRY.name, ENTRY)
    stored = bench("clip")  # complete as they are: nothing is computed again
    assert stored["cells"] == old["cells"]
    print_summary(stored)
    heads, line = capsys.readouterr().out.splitlines()[:2]
    assert "pixel half-found" in heads
    assert "not computed" in line

    document = bench("clip", results=tmp_path / "new")
    value = document["summary"][0]["metrics"][ENTRY.name]
    assert 0 < value <= 1
    assert all(ENTRY.name in cell["metrics"] for cell in document["cells"])
    assert f'"{ENTRY.name}":' in json.dumps(document)
    print_summary(document)
    assert f"  {100 * value:.1f}  " in capsys.readouterr().out
    store = ResultStore(tmp_path / "new")
    for ending in ("md", "tex", "csv", "html"):
        texts = [p.read_text() for p in tables.write(store.root, [ending])]
        assert all("AUROC, AUPRO, half-found" in t or ENTRY.name in t for t in texts)
        assert any(f"{100 * value:.1f}" in t for t in texts)
    data = collect(store)
    assert data["metrics"][ENTRY.name] == "pixel half-found"
    (mean,) = [m for m in data["boards"][0]["means"] if m["metric"] == ENTRY.name]
    assert mean["value"] == round(100 * value, 4)
    assert ENTRY.question in render(store, data)


def test_metrics_on_request(bench: Bench) -> None:
    document = bench("clip", overrides=["metrics.aupimo=true", "metrics.extra=[pixel_ioumax]"])
    assert not document["failed"]
    for cell in document["cells"]:
        assert 0 < cell["metrics"]["pixel_ioumax"] < 1
        assert "at least 100,000 normal pixels" in cell["undefined"]["pixel_aupimo"]
    page = tables.render(document["results_dir"])
    assert "Metrics on request (pixel IoU-max, pixel AUPIMO)" in page
    assert bench("clip", dry_run=True)["to_run"] == 2  # other records than those without
    plain = bench("clip")
    assert set(plain["cells"][0]["metrics"]) == set(spec.names())


def test_values_of_the_images_are_kept_in_the_record(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zsad.metrics import pimo

    monkeypatch.setattr(pimo, "LOW", 1e-3)  # the four normal images are small
    monkeypatch.setattr(pimo, "HIGH", 1e-2)
    document = bench("clip", overrides=["metrics.aupimo=true"])
    store = ResultStore(document["results_dir"])
    for cell in store.cells():
        values = cell.record.info["metric_per_image"]["pixel_aupimo"]
        found = store.scores(zsad.results.store.key_of(cell.record))
        assert found is not None
        assert [v is not None for v in values] == (found["label"] == 1).tolist()
        shares = [v for v in values if v is not None]
        assert cell.record.metrics["pixel_aupimo"] == pytest.approx(sum(shares) / len(shares))

"""A sweep and a prediction give equal maps and scores for the same pictures."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import zsad
from tests.runner.conftest import DEFINITION
from zsad import registry
from zsad.data import splits
from zsad.data.index import load_index
from zsad.runner import sweep as running
from zsad.runner.example_collector import ExampleCollector
from zsad.runner.heads import Head
from zsad.types import Sample, Scored

EVERY = [e.name for e in registry.select_methods("all") if e.target.startswith("zsad.methods.")]
SIDE = 112  # of the pictures and of the model's input: maps of predictions are not enlarged
RELEASED = [n for n in EVERY if "released" in registry.method(n).presets]
# One of each way through a sweep: alone, with references, with learned prompts, a feature per view
# of the tower, a memory, all images of a category together, one after the other, and stretched.
KINDS = {
    "default": ["clip", "winclip", "anomalyclip", "mvfa", "patchcore", "musc", "aaclip"],
    "released": ["anovl", "aprilgan", "vcpclip"],
}
CASES = [
    (preset, n) for preset, names in (("default", EVERY), ("released", RELEASED)) for n in names
]
SHOTS = {"winclip": 2, "alfa": 2, "aprilgan": 2}  # PatchCore has some by itself
SETTINGS = [f"backbone.image_size={SIDE}", "run.batch_size=3"]


def write_pictures(root: Path) -> None:
    """Five test images, the last two with a bright square, and three training images."""
    generator = np.random.default_rng(8)
    for part, count in (("train/good", 3), ("test/good", 3), ("test/spot", 2)):
        (root / "bolt" / part).mkdir(parents=True)
        for i in range(count):
            pixels = generator.integers(90, 130, (SIDE, SIDE, 3), dtype=np.uint8)
            if part == "test/spot":
                pixels[20:50, 40:80] = 250 - i
                mask = np.zeros((SIDE, SIDE), np.uint8)
                mask[20:50, 40:80] = 255
                truth = root / "bolt/ground_truth/spot"
                truth.mkdir(parents=True, exist_ok=True)
                Image.fromarray(mask).save(truth / f"{i:03}_mask.png")
            Image.fromarray(pixels).save(root / "bolt" / part / f"{i:03}.png")


class Watching(ExampleCollector):
    """Notes the map and the reasons' features of every image, by method and name."""

    seen: dict[tuple[str, str, str], torch.Tensor] = {}

    def __call__(self, head: Head, samples: Sequence[Sample], scored: Scored) -> None:
        for sample, plane in zip(samples, scored.maps.final):
            self.seen[head.column.config.preset, head.label, sample.uid] = plane.clone()
        super().__call__(head, samples, scored)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str, str], Path]]:
    """``swept(preset, method)``: the results folder of a sweep that the method is in, on five
    pictures; all of :data:`KINDS` are in one, and all others in another."""
    folder = tmp_path_factory.mktemp("agreement")
    write_pictures(folder / "things")
    text = DEFINITION.replace("  cloth: {{prompt: cloth, kind: texture}}\n", "")
    path = folder / "agreement.yaml"
    path.write_text(text.format(name="agreement", root=folder / "things"))

    @cache
    def sweep(preset: str, fast: bool) -> Path:
        every = [n for p, n in CASES if p == preset and (n in KINDS[preset]) == fast]
        names, results = ",".join(every), folder / f"{preset}-{fast}"
        document = zsad.bench(
            names,
            str(path),
            backbone="zsad-tiny",
            results=results,
            device="cpu",
            untrained=True,
            overrides=[
                *SETTINGS,
                *(f"{m}.shots={n}" for m, n in SHOTS.items() if m in every),
                *(f"{m}.preset={preset}" for m in every),
            ],
        )
        assert not document["failed"]
        return results

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "ExampleCollector", Watching)
        yield lambda preset, name: sweep(preset, name in KINDS[preset])


@pytest.mark.parametrize(
    ("preset", "name"),
    [
        pytest.param(p, n, marks=[] if n in KINDS[p] else [pytest.mark.slow], id=f"{n}-{p}")
        for p, n in CASES
    ],
)
def test_bench_and_predict_agree(preset: str, name: str, swept: Callable[[str, str], Path]) -> None:
    results = swept(preset, name)
    definition = str(results.parent / "agreement.yaml")
    table = pd.read_parquet(results / "scores" / name / "agreement" / "0" / "bolt.parquet")
    index = load_index(definition)
    files = {s.uid: s.image for s in index.samples}
    overrides: dict[str, Any] = {"shots": SHOTS[name]} if name in SHOTS else {}
    loaded = zsad.load_method(
        name,
        backbone="zsad-tiny",
        image_size=SIDE,
        device="cpu",
        untrained=True,
        preset=preset,
        overrides=overrides,
    )
    shots = loaded.method.shots
    again = loaded.method.config.references == "replacement"
    drawn = splits.references(index, "bolt", shots, 0, replacement=again) if shots else []
    known = [s.image for s in drawn]
    found = loaded.predict([files[u] for u in table["uid"]], "bolt", references=known)
    assert len(found) == 5
    stretched = loaded.method.stretches
    # a stretch over few pictures divides by the little that they differ by
    close = 1e-4 if stretched else 1e-5
    for uid, score, prediction in zip(table["uid"], table["score"], found):
        assert prediction.image_score == pytest.approx(score, abs=close)
        plane = Watching.seen[preset, name, uid]
        torch.testing.assert_close(
            torch.from_numpy(prediction.anomaly_map), plane, atol=close, rtol=0
        )
    assert len({round(p.image_score, 7) for p in found}) > 1
    assert all(("raw_score" in p.info) == stretched for p in found)
    record = json.loads(
        (results / "cells" / name / "agreement" / "0" / "bolt.json").read_text(encoding="utf-8")
    )
    assert record["info"]["transductive"] == loaded.method.transductive

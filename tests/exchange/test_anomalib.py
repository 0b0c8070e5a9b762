"""Full-shot methods of another library on our datasets: their maps are written and imported.

Where anomalib lies in an environment of its own, ``ANOMALIB`` names the Python of that.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tests.conftest import ROOT
from zsad.benchmarks import anomalib_maps
from zsad.benchmarks.anomalib_maps import Settings, normal_and_test, write_maps
from zsad.data.images import read_image
from zsad.errors import DataError, RequestError
from zsad.exchange.imported import Import, run
from zsad.results.store import ResultStore
from zsad.types import Sample

INSTALLED = importlib.util.find_spec("anomalib") is not None


def pixels(sample: Sample) -> np.ndarray:
    return np.asarray(read_image(sample.image).resize((64, 64)), dtype=np.float32)


def mean_colour(
    train: Sequence[Sample], test: Sequence[Sample]
) -> Iterator[tuple[float, np.ndarray]]:
    """A detector of few words: the distance from the mean of the training pictures."""
    mean = np.mean([pixels(sample) for sample in train], axis=0)
    for sample in test:
        plane = np.abs(pixels(sample) - mean).mean(axis=2)
        yield float(plane.mean()), plane


def test_a_detector_is_trained_by_category_and_imported(definition: Path, tmp_path: Path) -> None:
    parts = normal_and_test(str(definition), None, Settings(normal=3), limit=6)
    (categories,) = parts.values()
    assert [len(train) for train, _ in categories] == [3, 3]
    assert all(s.label == 0 and s.split == "train" for train, _ in categories for s in train)
    assert write_maps(tmp_path / "maps", parts, mean_colour) == 2 * 6

    results = tmp_path / "results"
    run(Import("Mean colour", tmp_path / "maps", str(definition), limit=6, results=results))
    figures = {r.category: r.metrics["image_auroc"] for r in ResultStore(results).records()}
    for train, test in categories:
        scores = [score for score, _ in mean_colour(train, test)]
        expected = roc_auc_score([s.label for s in test], scores)
        assert figures[test[0].category] == pytest.approx(expected)

    with pytest.raises(RequestError, match="is not empty"):
        write_maps(tmp_path / "maps", parts, mean_colour)


def test_at_most_so_many_normal_images_are_all_where_there_are_fewer(definition: Path) -> None:
    (categories,) = normal_and_test(str(definition), None, Settings(normal=9)).values()
    assert [len(train) for train, _ in categories] == [4, 4]


def test_a_category_without_normal_training_images_is_refused(definition: Path) -> None:
    shutil.rmtree(definition.parent / "things" / "cloth" / "train")
    with pytest.raises(DataError, match=r"/cloth: no normal training image; .* training part"):
        normal_and_test(str(definition), None, Settings())


def test_what_the_column_says_of_itself() -> None:
    model = anomalib_maps.MODELS["reverse-distillation"]
    text = Settings(backbone="resnet18", pretrained=False, epochs=5).provenance(model, "2.7.0")
    assert text == (
        "anomalib 2.7.0 ReverseDistillation, resnet18 with random weights, 256 pixels, "
        "all normal training images of each category, 5 epochs, seed 0"
    )
    assert "epochs" not in Settings().provenance(anomalib_maps.MODELS["padim"], "2.7.0")


@pytest.mark.skipif(INSTALLED, reason="anomalib is installed")
def test_it_says_what_is_missing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    main = partial(anomalib_maps.main, ["--datasets", "synthetic", "--maps", str(tmp_path)])
    assert main() == 2
    assert capsys.readouterr().err == "error: anomalib is not installed; `pip install anomalib`\n"
    assert anomalib_maps.main(["--datasets", "synthetic", "--maps", "m", "--methods", "padm"]) == 2
    assert "did you mean 'padim'" in capsys.readouterr().err


@pytest.mark.slow
def test_anomalib_runs_on_our_datasets(definition: Path, tmp_path: Path) -> None:
    python = os.environ.get("ANOMALIB") or (sys.executable if INSTALLED else "")
    if not python:
        pytest.skip("anomalib is not installed, and ANOMALIB names no Python that has it")
    words = "--limit 2 --normal 2 --epochs 1 --backbone resnet18 --random-weights --device cpu"
    places = ["--datasets", str(definition), "--maps", str(tmp_path / "maps")]
    done = subprocess.run(
        [python, "-m", "zsad.benchmarks.anomalib_maps", *words.split(), *places,
         "--results", str(tmp_path / "r")],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    titles = [model.title for model in anomalib_maps.MODELS.values()]
    records = list(ResultStore(tmp_path / "r").records())
    assert len(records) == len(titles) * 2
    assert {record.info["shots"] for record in records} == {2}
    for title in titles:
        assert f"stored as '{title} (imported)'" in done.stdout

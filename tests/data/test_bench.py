"""A sweep over the miniatures of all 19 datasets, and over broken ones."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import zsad
from tests.data.miniatures import write_miniature
from zsad.data.catalog import group_members, load_spec
from zsad.tables import pages

SIZE = 56
Bench = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def weights(recipe: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CLIP in OpenAI's naming."""
    dims = recipe.ClipDims(vision_width=64, vision_layers=4, embed=32, text_width=32, text_layers=2)
    path = tmp_path_factory.mktemp("backbone") / "clip.pt"
    torch.save(dict(recipe.clip_state(dims, 7)), path)
    return path


@pytest.fixture(scope="module")
def run(weights: Path) -> Bench:
    """``zsad.bench`` of ``clip`` on the small backbone."""

    def bench(datasets: str, data: Path, results: Path, **more: Any) -> dict[str, Any]:
        return zsad.bench(
            "clip",
            datasets,
            backbone="file",
            weights=weights,
            data_root=data,
            results=results,
            device="cpu",
            overrides=[f"backbone.image_size={SIZE}"],
            **more,
        )

    return bench


@pytest.fixture(scope="module")
def sweep(run: Bench, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """The document and the results folder of ``--datasets all``."""
    data, results = (tmp_path_factory.mktemp(n) for n in ("data", "results"))
    for name in group_members("all"):
        write_miniature(name, data)
    return run("all", data, results, limit=2), results


def test_all_datasets_run_and_fill_the_overview(sweep: tuple[dict[str, Any], Path]) -> None:
    document, results = sweep
    assert document["failed"] == []
    assert {c["dataset"] for c in document["cells"]} == set(group_members("all"))
    expected = sum(len(load_spec(n).categories) for n in group_members("all"))
    assert len(document["cells"]) == expected
    overview = next(p for p in pages(results) if p.name.endswith("overview"))
    members = [load_spec(n) for n in group_members("all")]
    for table in overview.tables:
        rows = [line.label for line in table.lines if not line.mean]
        assert rows == [f"{s.title} ({len(s.categories)})" for s in members]
        assert any(line.label == "mean of 19" for line in table.lines if line.mean)


def test_undefined_figures_are_none_with_a_reason(sweep: tuple[dict[str, Any], Path]) -> None:
    """No normal images: no image figures; no masks: no pixel figures; never 0 or one half."""
    for cell in sweep[0]["cells"]:
        levels = load_spec(cell["dataset"]).levels
        for name, value in cell["metrics"].items():
            if name.partition("_")[0] in levels:
                assert value is not None, (cell["dataset"], cell["category"], name)
            else:
                assert value is None, (cell["dataset"], name)
    for row in sweep[0]["summary"]:
        levels = load_spec(row["dataset"]).levels
        assert (row["metrics"]["image_auroc"] is None) == ("image" not in levels)
        assert (row["metrics"]["pixel_auroc"] is None) == ("pixel" not in levels)


def test_broken_datasets_fail_alone(run: Bench, tmp_path: Path) -> None:
    """Half an archive, missing masks, a truncated image, nothing at all: the others go on."""
    data = tmp_path / "data"
    homes = {n: write_miniature(n, data).folder for n in ("br35h", "kvasir", "tn3k", "headct")}
    shutil.rmtree(homes["br35h"] / "yes")
    (homes["kvasir"] / "masks" / "cju0qkwl35piu0993l0dewei2.jpg").unlink()
    image = homes["tn3k"] / "test-image" / "0003.jpg"
    image.write_bytes(image.read_bytes()[:200])
    document = run("br35h,kvasir,tn3k,headct,isic", data, tmp_path / "results")
    errors = {f["cell"]["dataset"]: f["error"] for f in document["failed"]}
    assert set(errors) == {"br35h", "kvasir", "tn3k", "isic"}
    assert all("\n" not in e for e in errors.values())
    assert "folder yes is missing; was the archive extracted whole?" in errors["br35h"]
    assert "1 of 4 anomalous images have no mask" in errors["kvasir"]
    assert "0003.jpg: broken or truncated image" in errors["tn3k"]
    assert "zsad data prepare isic" in errors["isic"]
    assert {c["dataset"] for c in document["cells"]} == {"headct"}


def test_the_command_says_so_with_exit_code_3(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from zsad.cli.main import main

    write_miniature("headct", tmp_path / "data")
    common = ["--backbone", "file", "--device", "cpu", f"backbone.image_size={SIZE}"]
    common += [f"backbone.weights={weights}", "--results", str(tmp_path / "results")]
    sweep = ["bench", "--methods", "clip", *common]
    there = ["--data-root", str(tmp_path / "data")]
    assert main([*sweep, "--datasets", "headct,isic", *there]) == 3
    assert "isic" in capsys.readouterr().err
    nowhere = ["--data-root", str(tmp_path / "nowhere")]
    assert main([*sweep, "--datasets", "headct", *nowhere]) == 2
    assert "nowhere" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("brainmri", (98, 155)),
        ("headct", (100, 100)),
        ("cvc_clinicdb", (0, 58)),
        ("kvasir", (0, 5)),
        ("covid19", (60, 60)),
        ("mvtec", (4, 11)),
    ],
)
def test_real_samples_run(
    run: Bench, shared_dir: Path, tmp_path: Path, name: str, counts: tuple[int, int]
) -> None:
    document = run(name, shared_dir / "data", tmp_path, limit=8)
    assert document["failed"] == []
    (cell,) = document["cells"]
    normal = min(counts[0], 4)
    assert (cell["n_normal"], cell["n_anomalous"]) == (normal, min(counts[1], 8 - normal))

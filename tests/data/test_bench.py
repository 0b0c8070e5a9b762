"""A sweep over the miniatures of all 19 datasets, and over broken ones."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch

import zsad
from tests.data.miniatures import write_miniature
from zsad import registry
from zsad.cli.main import main
from zsad.data.catalog import group_members, load_spec
from zsad.results.store import ResultStore
from zsad.tables import pages
from zsad.tables.model import Page

SIZE = 56
SWEEP_SIZE = 64
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


class Sweep(NamedTuple):
    """What the command of :func:`sweep` gave."""

    code: int
    document: dict[str, Any]
    results: Path

    def overview(self) -> Page:
        """The overview of what it stored."""
        return next(p for p in pages(self.results) if p.name.endswith("overview"))


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """Every method on every dataset of ``all``; what learns is trained first, once for all.

    The images are smaller than the backbone's own, for speed.
    """
    data, results = (tmp_path_factory.mktemp(n) for n in ("data", "results"))
    for name in group_members("all"):
        write_miniature(name, data)
    line = "bench --methods all --datasets all --backbone zsad-tiny --limit 2 --json --offline"
    words = [*line.split(), "--device", "cpu", f"backbone.image_size={SWEEP_SIZE}"]
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = main([*words, "--data-root", str(data), "--results", str(results)])
    return Sweep(code, json.loads(out.getvalue()), results)


@pytest.mark.slow
def test_every_method_runs_on_every_dataset(sweep: Sweep) -> None:
    assert sweep.document["failed"] == []
    assert sweep.code == 0
    found = Counter((c["method"], c["dataset"]) for c in sweep.document["cells"])
    expected = {
        (method, name): len(load_spec(name).categories)
        for method in registry.methods()
        for name in group_members("all")
    }
    assert found == expected
    assert len({name for _, name in found}) == 19


@pytest.mark.slow
def test_what_learns_was_trained_once_for_all_datasets(sweep: Sweep) -> None:
    """Small as the training was, it happened: nothing is evaluated in its initial state."""
    checkpoints = [p.parent.name for p in sweep.results.glob("checkpoints/*/*.safetensors")]
    assert sorted(checkpoints) == sorted(n for n, e in registry.methods().items() if e.trained)
    for stored in ResultStore(sweep.results).cells():
        info = stored.record.info
        assert not info["untrained"]
        assert bool(info["trained_on"]) == info["trained"], stored.record.method


@pytest.mark.slow
def test_the_overview_has_a_row_for_every_dataset(sweep: Sweep) -> None:
    members = [load_spec(n) for n in group_members("all")]
    overview = sweep.overview()
    assert {t.name for t in overview.tables} == {"image", "pixel", "further"}
    for table in overview.tables:
        assert len(table.heads) == len(registry.methods())
        rows = [line.label for line in table.lines if not line.mean]
        assert rows == [f"{s.title} ({len(s.categories)})" for s in members]
        assert any(line.label == "mean of 19" for line in table.lines if line.mean)


@pytest.mark.slow
def test_undefined_figures_are_none_with_a_reason(sweep: Sweep) -> None:
    """No normal images: no image figures; no masks: no pixel figures; never 0 or one half."""
    stored = ResultStore(sweep.results).cells()
    few_shot = {c.record.method for c in stored if c.record.info["shots"]}
    assert few_shot == {"patchcore"}  # has no reference where there is no training part
    for cell in sweep.document["cells"]:
        levels = load_spec(cell["dataset"]).levels
        for name, value in cell["metrics"].items():
            where = (cell["method"], cell["dataset"], cell["category"], name)
            if name.partition("_")[0] not in levels:
                assert value is None, where
            elif cell["method"] not in few_shot:
                assert value is not None, where
            assert (value is None) == (name in cell["undefined"]), where
    for row in sweep.document["summary"]:
        if row["method"] not in few_shot:
            levels = load_spec(row["dataset"]).levels
            assert (row["metrics"]["image_auroc"] is None) == ("image" not in levels)
            assert (row["metrics"]["pixel_auroc"] is None) == ("pixel" not in levels)


@pytest.mark.slow
def test_the_overview_shows_what_is_undefined_and_counts_what_is_not(sweep: Sweep) -> None:
    """A mean leaves out what is undefined and says so: 13 datasets have image figures."""
    for level in ("image", "pixel"):
        defined = [n for n in group_members("all") if level in load_spec(n).levels]
        table = next(t for t in sweep.overview().tables if t.name == level)
        column = next(i for i, head in enumerate(table.heads) if head == "CLIP")
        shown = {line.label: "".join(s.text for s in line.cells[column]) for line in table.lines}
        for name in group_members("all"):
            spec = load_spec(name)
            text = shown[f"{spec.title} ({len(spec.categories)})"]
            assert ("–" in text) == (name not in defined), (name, text)
        assert shown["mean of 19"].endswith(f"[{len(defined)} of 19]")
        values = {
            d["row"]: d["value"]
            for d in table.data
            if (d["method"], d["metric"]) == ("clip", f"{level}_auroc")
        }
        assert [values[n] is not None for n in group_members("all")] == [
            n in defined for n in group_members("all")
        ]
        mean = sum(values[n] for n in defined) / len(defined)
        assert values["mean of 19"] == pytest.approx(mean, abs=1e-3)


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
    assert "1 of 4 anomalous images without a mask" in errors["kvasir"]
    assert "0003.jpg: broken or truncated image" in errors["tn3k"]
    assert "zsad data prepare isic" in errors["isic"]
    assert {c["dataset"] for c in document["cells"]} == {"headct"}


def test_the_command_says_so_with_exit_code_3(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
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


def test_elpv_runs_from_its_package(run: Bench, tmp_path: Path) -> None:
    pytest.importorskip("elpv_dataset")
    document = run("elpv", tmp_path, tmp_path / "results", limit=8)
    (cell,) = document["cells"]
    assert document["failed"] == []
    assert (cell["n_normal"], cell["n_anomalous"]) == (4, 4)
    assert cell["metrics"]["image_auroc"] is not None
    assert cell["metrics"]["pixel_auroc"] is None


def test_real_label_files_without_images_fail_alone(
    run: Bench, shared_dir: Path, tmp_path: Path
) -> None:
    """Two of the real sets hold label files only; each is one line, and the third one runs."""
    document = run("dagm,visa,headct", shared_dir / "data", tmp_path, limit=2)
    errors = {f["cell"]["dataset"]: f["error"] for f in document["failed"]}
    assert set(errors) == {"dagm", "visa"}
    for error in errors.values():
        assert "files missing (first: " in error
        assert "\n" not in error
    assert {c["dataset"] for c in document["cells"]} == {"headct"}

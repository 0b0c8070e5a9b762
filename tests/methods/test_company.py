"""The comparison methods in one run: they share the encoder pass, and few-shot and transductive
ones keep to their rules."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import zsad
from zsad import backbones, registry, tables
from zsad.backbones import Backbone
from zsad.method import new_method
from zsad.results.store import ResultStore

OWN = [e for e in registry.select_methods("all") if e.target.startswith("zsad.methods.")]
EVERY = sorted(e.name for e in OWN)
RESUMING = {"aaclip", "adaclip", "mvfa"}
PARTS = {"train/good": 3, "test/good": 2, "test/spot": 2}
DEFINITION = """
name: {name}
title: bolts
domain: industrial
categories:
  bolt: {{prompt: bolt}}
default_variant: whole
variants:
  whole:
    title: as written by the test
    layouts: [{{indexer: mvtec_like, looks: "<category>/test/<kind>/*.png"}}]
root: {root}
"""


def write_dataset(folder: Path) -> Path:
    """Noise, and noise with a bright square and its mask, with a definition file."""
    generator = np.random.default_rng(3)
    for part, count in PARTS.items():
        for i in range(count):
            pixels = generator.integers(90, 130, (56, 56, 3), dtype=np.uint8)
            if part == "test/spot":
                pixels[10:30, 20:40] = 250
                mask = np.zeros((56, 56), np.uint8)
                mask[10:30, 20:40] = 255
                truth = folder / "bolt/ground_truth/spot"
                truth.mkdir(parents=True, exist_ok=True)
                Image.fromarray(mask).save(truth / f"{i:03}_mask.png")
            (folder / "bolt" / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / "bolt" / part / f"{i:03}.png")
    path = folder / "company-of-baselines.yaml"
    path.write_text(DEFINITION.format(name=path.stem, root=folder))
    return path


@pytest.fixture(scope="module")
def place(
    small_weights: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """A small backbone file and a small dataset, as options of ``zsad.bench``."""
    dataset = write_dataset(tmp_path_factory.mktemp("company") / "things")
    weights = small_weights(7, embed=64, text_layers=1)
    return {"datasets": str(dataset), "backbone": "file", "weights": weights}


def run(methods: str, place: dict[str, Any], results: Path, *overrides: str) -> dict[str, Any]:
    return zsad.bench(
        methods,
        untrained=any(registry.method(name).trained for name in methods.split(",")),
        device="cpu",
        results=results,
        overrides=["backbone.image_size=56", "run.batch_size=8", *overrides],
        **place,
    )


@pytest.fixture(scope="module")
def everything(
    place: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Path]:
    """The document of one run of all methods, and its results folder."""
    results = tmp_path_factory.mktemp("results")
    return run(",".join(EVERY), place, results), results


def test_all_methods_cost_one_forward_and_the_references(
    everything: tuple[dict[str, Any], Path],
) -> None:
    """One pass over the four test images and one over PatchCore's reference; those that change the
    stream run their blocks once for each image."""
    document, results = everything
    assert not document["failed"]
    assert {c["method"] for c in document["cells"]} == set(EVERY)
    (ran,) = ResultStore(results).manifest()["runs"]
    counters = ran["counters"]
    assert counters["image_forwards"] == 1 + 1
    assert counters["images"] == 4 + 1
    assert counters["resumed"] == 4 * len(RESUMING)


@pytest.mark.parametrize("name", [e.name for e in OWN if e.trained])
def test_no_method_holds_a_copy_of_the_encoder(name: str, encoder: Backbone) -> None:
    """What a method keeps, and a checkpoint stores, is its own: every weight of CLIP is there once,
    whether it reads the shared pass or goes through the blocks again."""
    entry = registry.method(name)
    own = new_method(entry, entry.resolve(), encoder.info)
    large = [t for t in encoder.model.state_dict().values() if t.numel() >= 1024]
    assert len(large) > 20
    for key, value in own.state_dict().items():
        alike = [t for t in large if t.shape == value.shape]
        assert not any(torch.equal(value, t) for t in alike), key
    shared = {t.untyped_storage().data_ptr() for t in encoder.model.state_dict().values()}
    held = (t for t in vars(own).values() if isinstance(t, torch.Tensor))
    assert not [t for t in held if t.untyped_storage().data_ptr() in shared]
    modules = [m for m in own.modules() if m is encoder.model]
    assert not modules


@pytest.fixture(scope="module")
def encoder() -> Backbone:
    return backbones.load("zsad-tiny", device="cpu")


def test_the_overview_shows_all_methods_grouped(everything: tuple[dict[str, Any], Path]) -> None:
    page = next(p for p in tables.pages(everything[1]) if p.name.endswith("overview"))
    papers = sum(e.group == "papers" for e in OWN)
    for table in page.tables:
        assert table.groups == (("baselines", len(OWN) - papers), ("papers", papers))
        plain = {head.rstrip("†‡§").partition(",")[0]: head for head in table.heads}
        # FiLo asks a detector for boxes, and there is none here.
        assert set(plain) == {e.title for e in OWN} - {"FiLo"} | {"FiLo (no boxes)"}
        assert {title for title, head in plain.items() if "‡" in head} == {"MuSc"}  # transductive
        assert plain["PatchCore"].endswith(", 1-shot§")
    text = tables.markdown(page)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert [c.strip() for c in lines[0].split("|") if c.strip()] == ["baselines", "papers"]


def test_patchcore_adds_its_references_and_nothing_else(
    everything: tuple[dict[str, Any], Path], place: dict[str, Any], tmp_path: Path
) -> None:
    document, _ = everything
    found = run("patchcore,maskclip", place, tmp_path, "patchcore.shots=2")
    assert not found["failed"]
    assert found["counters"]["images"] == 4 + 2
    assert found["counters"]["image_forwards"] == 2
    figures = {c["method"]: c["metrics"] for c in [*document["cells"], *found["cells"]]}
    before = next(c["metrics"] for c in document["cells"] if c["method"] == "maskclip")
    for name, value in before.items():  # company changes no figure
        assert figures["maskclip"][name] == pytest.approx(value, abs=1e-4)
    assert figures["patchcore"]["image_auroc"] == 1.0  # a bright square among noise


def test_one_image_is_too_few_for_musc(place: dict[str, Any], tmp_path: Path) -> None:
    found = zsad.bench(
        "musc,clip",
        limit=1,
        device="cpu",
        results=tmp_path,
        overrides=["backbone.image_size=56"],
        **place,
    )
    assert {c["method"] for c in found["cells"]} == {"clip"}
    assert "at least two" in found["failed"][0]["error"]


def test_groups() -> None:
    names = ("aprilgan", "maskclip", "coop", "anovl", "cocoop", "musc", "mvfa", "patchcore")
    entries = {name: registry.method(name) for name in names}
    assert {e.group for e in entries.values()} == {"baselines"}
    trained = {name for name, e in entries.items() if e.trained}
    assert trained == {"aprilgan", "coop", "cocoop", "mvfa"}
    assert [name for name, e in entries.items() if e.transductive] == ["musc"]
    baselines = {e.name for e in registry.select_methods("baselines")}
    assert set(entries) <= baselines

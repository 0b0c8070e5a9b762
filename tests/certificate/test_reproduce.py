"""A certificate end to end: recipe weights in the released formats, on miniatures."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tests.certificate.conftest import SIZE
from zsad import config as cfg
from zsad.certificate import Request, recipe, reproduce
from zsad.checkpoints.released import content_of
from zsad.cli.main import main, parse
from zsad.errors import RequestError
from zsad.registry import method
from zsad.results.store import ResultStore


def line(official: Path, data: Path, clip: Path, results: Path, *more: str) -> list[str]:
    found = ["--official", str(official), "--data-root", str(data), "--results", str(results)]
    found += ["--backbone", "file", "--weights", str(clip), "--device", "cpu", "--offline"]
    return [*found, f"backbone.image_size={SIZE}", *more]


@pytest.mark.slow
def test_both_directions_and_every_slip_are_on_the_certificate(
    anomalyclip: Path, data: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = line(anomalyclip, data, clip, tmp_path / "results", "--limit", "2", "--json")
    assert main(["reproduce", "anomalyclip", *command]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {f["target"] for f in found["figures"]} == {"mvtec", "visa"}
    # Every target took the file that was not trained on it, whatever the files are called.
    roles = {f["role"]: (f["path"], f["trained_on"]) for f in found["files"]}
    assert roles == {
        "checkpoint for mvtec": ("a.pth", "visa"),
        "checkpoint for visa": ("b.pth", "mvtec"),
    }
    figures = {(f["target"], f["category"], f["metric"]): f for f in found["figures"]}
    bottle = figures["mvtec", "bottle", "image_auroc"]
    assert bottle["log"] == 88.7  # results/9_12_4_multiscale/zero_shot/log.txt
    assert bottle["difference"] == round(round(bottle["measured"], 1) - 88.7, 1)
    assert figures["visa", "mean", "pixel_auroc"]["paper"] == 95.5
    assert "of 27 categories within 0.1 of AnomalyCLIP's released log" in found["verdict"]["words"]
    slips = {(s["slip"], s["target"]) for s in found["slips"]}
    names = [slip.name for slip in recipe.load("anomalyclip")[1].slips]
    assert slips == {(name, target) for name in names for target in ("mvtec", "visa")}
    layers = [s for s in found["slips"] if s["slip"] == "last layer alone"]
    assert any(s["released"] != s["without"] for s in layers)
    assert any("At most 2 images per category" in note for note in found["unlike"])
    assert any("nknown weights" in note for note in found["unlike"])
    kept = "Not switched off: fuse (there is one layer, so that nothing is fused)."
    assert kept in found["notes"]
    page = Path(found["files_written"]["html"]).read_text()
    for file in found["files"]:
        assert file["content"]["sha256"] in page
        assert file["content"]["git_blob"] in page
    assert found["facts"]["SHA-256 of the weights"] in page
    assert "This is not the authors&#x27; evaluation" in page
    assert found["facts"]["images of mvtec"] == "30 in 15 categories"
    assert "results/9_12_4_multiscale/zero_shot/log.txt" in found["facts"]["authors' log"]
    again = parse(shlex.split(found["facts"]["command"])[1:])
    assert (again.official, again.limit, again.weights) == (str(anomalyclip), "2", str(clip))
    assert again.overrides == [f"backbone.image_size={SIZE}"]
    tex = Path(found["files_written"]["tex"]).read_text()
    metrics = {f["metric"] for f in found["figures"]}
    assert metrics == {"image_auroc", "image_ap", "pixel_auroc", "pixel_aupro"}
    assert (
        tex.count("\\begin{table}") == 2 * len(metrics) + 3
    )  # by target; slips; files; conditions
    assert tex.count("Verdict: ") == 1
    assert main(["reproduce", "anomalyclip", *command[:-1]]) == 0  # stored cells are found
    said = capsys.readouterr().out
    assert "Verdict: " in said
    assert "Certificate: " in said


def test_what_is_missing_is_said_with_where_it_is_published(
    anomalyclip: Path, data: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (anomalyclip / "b.pth").unlink()
    command = line(anomalyclip, data, clip, tmp_path / "results")
    assert main(["reproduce", "anomalyclip", *command]) == 2
    said = capsys.readouterr().err
    assert "missing are 9_12_4_multiscale_visa/epoch_15.pth (checkpoint for visa, " in said
    assert "of the weight files there (1), 1 are known; published at https://github.com/" in said
    assert not (tmp_path / "results" / "cells").exists()
    (anomalyclip / "a.pth").unlink()
    assert main(["reproduce", "anomalyclip", *command]) == 2
    assert "epoch_15.pth (checkpoint for mvtec, " in capsys.readouterr().err


@pytest.mark.slow
def test_every_target_has_its_detector(
    recipe_files: Path, data: Path, clip: Path, tmp_path: Path
) -> None:
    """FiLo: two checkpoints and two detectors, each of which was trained on the other dataset."""
    asked = Request(
        "filo",
        str(recipe_files),
        data_root=data,
        results=tmp_path / "results",
        backbone="file",
        weights=clip,
        device="cpu",
        limit=1,
        offline=True,
        overrides=[
            f"backbone.image_size={SIZE + 14}",  # not its own, at which its code is CLIP's
            "filo.grounding.detector=tests.grounding.detectors:whole",
        ],
    )
    made = reproduce(asked)
    assert not made.failed
    assert {f.role: f.known_as for f in made.files} == {
        "checkpoint for mvtec": "FiLo filo_train_on_visa.pth",
        "detector for mvtec": "GroundingDINO grounding_train_on_visa.pth",
        "checkpoint for visa": "FiLo filo_train_on_mvtec.pth",
        "detector for visa": "GroundingDINO grounding_train_on_mvtec.pth",
    }
    assert {w.slip for w in made.worth} == {slip.name for slip in made.slips}
    pixel = {w.slip: w.means["pixel_auroc"] for w in made.worth if w.target == "visa"}
    for slip in ("aliased taps", "GELU", "position filter", "3-tap blur", "norm of the texts"):
        assert pixel[slip][0] != pixel[slip][1], slip
    assert len({line.metric for line in made.lines}) == 7
    boxes = {r.info["boxes"]["source"] for r in ResultStore(tmp_path / "results").records()}
    assert boxes == {"detector"}
    (recipe_files / "d.pth").unlink()
    with pytest.raises(RequestError, match=r"missing are grounding_train_on_visa.pth"):
        reproduce(asked)
    alone = replace(asked, overrides=[asked.overrides[0], "filo.grounding=none"])
    without = reproduce(replace(alone, datasets=("visa",)))
    assert [f.role for f in without.files] == ["checkpoint for visa"]
    assert any(note.startswith("Without the authors' detectors") for note in without.unlike)


@pytest.mark.slow
def test_half_of_the_data_is_half_of_the_table(
    anomalyclip: Path, data: Path, clip: Path, tmp_path: Path
) -> None:
    half = tmp_path / "half"
    half.mkdir()
    (half / "visa").symlink_to(next(p for p in data.iterdir() if "visa" in p.name.lower()))
    (anomalyclip / "a.pth").unlink()  # of MVTec AD, which is not there
    made = reproduce(
        Request(
            "anomalyclip",
            str(anomalyclip),
            data_root=half,
            results=tmp_path / "results",
            backbone="file",
            weights=clip,
            device="cpu",
            limit=1,
            offline=True,
            overrides=[f"backbone.image_size={SIZE}"],
        )
    )
    assert {found.target for found in made.lines} == {"visa"}
    assert any(note.startswith("mvtec is left out: ") for note in made.notes)
    assert not made.failed


def test_a_file_that_nobody_knows_is_called_that(
    recipe: ModuleType, dims: object, data: Path, clip: Path, tmp_path: Path
) -> None:
    """FAPrompt's authors published no file with a known hash."""
    path = tmp_path / "some.pth"
    torch.save({"prompt_learner": dict(recipe.faprompt_learnables(dims, 3, depth=3))}, path)
    asked = Request(
        "faprompt",
        str(path),
        datasets=("visa",),
        data_root=data,
        results=tmp_path / "results",
        backbone="file",
        weights=clip,
        device="cpu",
        limit=1,
        offline=True,
        overrides=[f"backbone.image_size={SIZE}"],
    )
    with pytest.raises(RequestError, match=r"say what this one was trained on with --trained-on"):
        reproduce(asked)
    made = reproduce(Request(**{**vars(asked), "trained_on": "mvtec"}))
    assert any(note.startswith("some.pth is not known to be the authors'") for note in made.unlike)
    (file,) = made.files
    assert (file.known_as, file.content) == ("", content_of(path))
    mean = next(x for x in made.lines if (x.category, x.metric) == ("mean", "image_auroc"))
    assert (mean.log, mean.paper) == (None, 84.5)  # FAPrompt, Table 1
    assert "the paper (FAPrompt)" in made.verdict.words
    with pytest.raises(RequestError, match=r"none of the targets  is there"):
        reproduce(Request(**{**vars(asked), "datasets": ("mvtec",), "trained_on": "mvtec"}))


@pytest.mark.parametrize("name", recipe.names())
def test_every_slip_is_a_key_that_the_released_preset_sets_otherwise(name: str) -> None:
    entry, found = recipe.load(name)
    released = entry.resolve(("x", {"preset": "released"}))
    for slip in found.slips:
        changed = entry.resolve(("x", {"preset": "released"}), ("x", slip.without))
        assert changed != released, slip.name
    for roles in found.targets.values():
        assert roles.checkpoint


@pytest.mark.parametrize("name", recipe.names())
def test_all_that_the_released_preset_does_otherwise_is_switched_off_or_said(name: str) -> None:
    """A key that neither a slip nor ``kept`` names would be hidden from the authors."""
    entry, found = recipe.load(name)
    ours, theirs = (
        cfg.flat(cfg.to_dict(entry.resolve(("x", {"preset": preset}))))
        for preset in ("default", "released")
    )
    apart = {key for key in theirs if theirs[key] != ours[key]} - {"preset"}
    undone = {key for slip in found.slips for key in cfg.flat(slip.without)}
    assert apart <= undone | set(found.kept)
    assert set(found.kept) <= apart - undone
    assert all(key in found.kept_words for key in found.kept)


def test_a_method_without_a_recipe_is_refused_with_those_that_have_one() -> None:
    assert {"filo", "anomalyclip", "faprompt"} <= set(recipe.names())
    with pytest.raises(RequestError, match=r"method clip has no reproduce.yaml.*anomalyclip"):
        reproduce(Request(method("clip").name, "."))


def test_what_the_certificate_sets_is_not_taken_from_the_user(
    anomalyclip: Path, data: Path
) -> None:
    with pytest.raises(RequestError, match=r"anomalyclip.preset: `zsad reproduce` sets it itself"):
        reproduce(
            Request(
                "anomalyclip",
                str(anomalyclip),
                data_root=data,
                overrides=["anomalyclip.preset=paper"],
            )
        )

"""Checkpoints that were given: each target takes the one that serves it, and what does not is said.

The files are small ones with released files' structure; the table of released files is given
rows with their hashes, as it has for the authors' ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from zsad.checkpoints import CheckpointMeta, TrainedOn, released, save
from zsad.cli.main import main
from zsad.errors import RequestError
from zsad.io import sha256_file
from zsad.results.store import ResultStore
from zsad.runner.given import check, given_for
from zsad.runner.plan import build_plan
from zsad.runner.request import Request, build_request

Bench = Callable[..., dict[str, Any]]


@pytest.fixture
def folder(tmp_path: Path, recipe: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Released AnomalyCLIP files under names that say nothing, and one that nobody knows.

    ``one``: trained on MVTec AD; ``two`` on VisA; ``early``: another epoch of the second; ``filo``:
    another method's.
    """
    dims = recipe.ClipDims(text_width=64)
    place = tmp_path / "files"
    place.mkdir()
    for seed, name in enumerate(("one", "two", "early", "filo", "mine")):
        state = dict(recipe.anomalyclip_learnables(dims, seed))
        torch.save({"prompt_learner": state}, place / f"{name}.pth")
    rows = {r.file: r for r in released.released_files()}
    pairs = {
        "one": "9_12_4_multiscale_visa/epoch_15.pth",
        "two": "9_12_4_multiscale/epoch_15.pth",
        "early": "9_12_4_multiscale/epoch_3.pth",
        "filo": "filo_train_on_visa.pth",
    }
    more = tuple(
        replace(rows[file], content=released.content_of(place / f"{name}.pth"))
        for name, file in pairs.items()
    )
    monkeypatch.setattr(released, "released_files", lambda: more)
    return place


def request(checkpoint: str, datasets: str = "mvtec,visa") -> Request:
    return build_request(
        "anomalyclip", datasets, overrides=[f"anomalyclip.checkpoint={checkpoint}"], offline=True
    )


def test_how_to_train_is_refused_beside_a_checkpoint(folder: Path) -> None:
    """The column was called by epochs that the file had nothing to do with."""
    keys = [f"anomalyclip.checkpoint={folder}/one.pth", "anomalyclip.train.epochs=3"]
    said = (
        r"anomalyclip\.train\.epochs \(the command line\): says how to train, and anomalyclip\.ch"
    )
    with pytest.raises(RequestError, match=said):
        build_request("anomalyclip", "visa", overrides=keys, offline=True)


def test_a_size_that_the_file_has_otherwise_is_told(
    folder: Path, bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    keys = [f"anomalyclip.checkpoint={folder}/one.pth", "anomalyclip.n_ctx=4"]
    assert bench("anomalyclip", overrides=keys)["failed"] == []
    assert (
        "anomalyclip.n_ctx (the command line) yields to the checkpoint's own size (one.pth), which "
        "was set in vain; leave it out"
    ) in caplog.text


def refusal(checkpoint: str, datasets: str = "mvtec,visa") -> str:
    with pytest.raises(RequestError) as caught:
        check(request(checkpoint, datasets))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("value", ["{{visa: {0}/one.pth, mvtec: {0}/two.pth}}", "{0}"])
def test_one_command_gives_every_target_its_file(folder: Path, value: str) -> None:
    (folder / "filo.pth").unlink()
    asked = request(value.format(folder))
    check(asked)
    found = {t: given_for(asked, asked.columns[0], t) for t in asked.datasets}
    assert {t: f.path.name for t, f in found.items()} == {"mvtec": "two.pth", "visa": "one.pth"}
    assert found["visa"].origin.trained_on == ("mvtec",)
    assert found["visa"].notes == ()
    assert found["visa"].origin.released is not None


def test_a_missing_target_is_refused_with_the_list(folder: Path) -> None:
    said = refusal(f"{{visa: {folder}/one.pth}}")
    assert f"no file for the target mvtec; it has {{visa: {folder}/one.pth}}" in said


def test_swapped_names_are_told(folder: Path) -> None:
    said = refusal(f"{{visa: {folder}/two.pth, mvtec: {folder}/one.pth}}")
    assert "recognised as AnomalyCLIP 9_12_4_multiscale_visa/epoch_15.pth (trained on mvtec" in said
    assert said.endswith("the files of mvtec and visa are swapped")


def test_one_file_for_its_own_training_set_is_refused(folder: Path) -> None:
    """``--protocol filo filo.checkpoint=filo_train_on_mvtec.pth`` evaluated MVTec on itself."""
    said = refusal(f"{folder}/one.pth")
    assert "would be evaluated on mvtec, which it was trained on; it serves every other" in said
    check(request(f"{folder}/one.pth", "visa,btad"))


def test_another_methods_file_is_refused(folder: Path) -> None:
    assert "is of filo, not of anomalyclip" in refusal(f"{folder}/filo.pth", "mvtec")


def test_what_its_authors_do_not_evaluate_is_said(folder: Path) -> None:
    asked = request(f"{folder}/early.pth", "btad")
    found = given_for(asked, asked.columns[0], "btad")
    assert found.notes == (
        "its authors evaluate it on mvtec, not on btad",
        "its authors evaluate another epoch than 3",
    )


def test_a_state_of_another_revision_is_said(tmp_path: Path) -> None:
    """A method's revision rises where it computes something else under equal settings."""
    made = tmp_path / "made.safetensors"
    meta = CheckpointMeta("anomalyclip", {}, "vit-l-14-336", "", (), {}, revision=3)
    meta = replace(meta, trained_on=TrainedOn("mvtec", "", "test"))
    save(made, {"x": torch.zeros(1)}, meta)
    asked = request(str(made), "visa")
    said = "trained by revision 3 of the method, not by the present one (1)"
    assert given_for(asked, asked.columns[0], "visa").notes == (said,)
    save(made, {"x": torch.zeros(1)}, replace(meta, revision=1))
    asked = request(str(made), "visa")
    assert given_for(asked, asked.columns[0], "visa").notes == ()
    assert "revision" not in replace(meta, revision=1).header()["zsad"]  # read by all versions


def test_a_folder_without_a_file_for_a_target_lists_what_it_holds(folder: Path) -> None:
    for name in ("two", "early"):
        (folder / f"{name}.pth").unlink()
    said = refusal(str(folder), "mvtec")
    assert "none of its files of anomalyclip is known to serve the target mvtec" in said
    assert "one.pth, recognised as AnomalyCLIP" in said


def test_the_record_of_a_recognised_file_can_be_equal_to_the_authors_log(
    folder: Path, bench: Bench, tmp_path: Path
) -> None:
    document = bench("anomalyclip", overrides=[f"anomalyclip.checkpoint={folder}/one.pth"])
    assert document["failed"] == []
    for record in ResultStore(tmp_path / "results").records():
        trained = record.info["trained_on"]
        assert trained["recognised"] == "AnomalyCLIP 9_12_4_multiscale_visa/epoch_15.pth"
        assert (trained["dataset"], trained["part"], trained["epochs"]) == ("mvtec", "test", 15)
        assert trained["sha256"] == sha256_file(folder / "one.pth")
        assert trained["leaks"] == "checked by name only"
        assert trained["differs"] == ["backbone file, not vit-l-14-336", "image size 56, not 518"]
        assert record.info["preset"] == record.info["config"]["preset"] == "released"


def test_an_imported_file_keeps_what_is_known_of_it(
    folder: Path, weights: Path, bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "ours.safetensors"
    line = ["weights", "import", "anomalyclip", str(folder / "two.pth"), "--out", str(out)]
    line += ["--backbone", "file", "--weights", str(weights)]
    assert main([*line, "--trained-on", "mvtec"]) == 2
    assert "which was trained on visa; leave the option out" in capsys.readouterr().err
    assert main(line) == 0
    said = capsys.readouterr().out
    assert "recognised as AnomalyCLIP 9_12_4_multiscale/epoch_15.pth: trained on visa" in said
    assert "note: folder suffix names the TARGET" in said
    assert "its scripts evaluate it with: test.sh: features_list=24; image_size=518" in said
    assert "was trained on visa" not in refusal(f"{folder}/one.pth", "mvtec")
    assert "would be evaluated on visa, which it was trained on" in refusal(str(out), "visa")
    assert bench("anomalyclip", overrides=[f"anomalyclip.checkpoint={out}"])["failed"] == []
    (record, *_) = ResultStore(tmp_path / "results").records()
    assert record.info["trained_on"]["recognised"].endswith("9_12_4_multiscale/epoch_15.pth")


def test_what_nobody_knows_is_what_the_user_says(
    folder: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "ours.safetensors"
    line = ["weights", "import", "anomalyclip", str(folder / "mine.pth"), "--out", str(out)]
    line += ["--backbone", "file", "--weights", str(weights)]
    assert main(line) == 0
    assert "what it was trained on is not known" in capsys.readouterr().out
    check(request(str(out)))
    assert main([*line, "--trained-on", "mvtek"]) == 2
    assert "did you mean 'mvtec'?" in capsys.readouterr().err
    assert main([*line, "--trained-on", "MVTec AD"]) == 0  # as papers call it
    assert "would be evaluated on mvtec" in refusal(str(out))
    check(request(str(out), "visa"))


def test_sizes_come_from_the_checkpoint(
    recipe: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No CLIP file is here; wrapped, prefixed and with an entry that nothing reads."""
    state = dict(recipe.anomalyclip_learnables(recipe.ClipDims(text_width=768), 0))
    state = {f"module.{k}": v for k, v in state.items()} | {"module.logit_scale": torch.ones(1)}
    path = tmp_path / "epoch.pth"
    torch.save({"state_dict": {"prompt_learner": state}, "epoch": 3}, path)
    out = tmp_path / "ours.safetensors"
    assert main(["weights", "import", "anomalyclip", str(path), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "unwrapped from 'state_dict'; ignored beside it: epoch" in said
    assert "prefix 'module.' taken off" in said
    assert "ignored 1 further entry: logit_scale" in said
    assert "its sizes are those of backbone vit-l-14-336" in said


def test_a_loaded_method_says_where_its_state_comes_from(folder: Path, weights: Path) -> None:
    import zsad
    from zsad.inference.provenance import made_by

    loaded = zsad.load_method(
        "anomalyclip", "file", weights, image_size=56, checkpoint=folder / "one.pth", device="cpu"
    )
    assert "recognised as AnomalyCLIP 9_12_4_multiscale_visa/epoch_15.pth" in loaded.report[0]
    made = made_by(loaded, "bolt")
    assert (made["checkpoint"], made["trained_on"]) == ("one.pth", ["mvtec"])
    assert made["recognised"] == "AnomalyCLIP 9_12_4_multiscale_visa/epoch_15.pth"
    with pytest.raises(RequestError, match="several of its files are of anomalyclip"):
        zsad.load_method("anomalyclip", "file", weights, image_size=56, checkpoint=folder)


def test_training_reads_no_checkpoint(folder: Path, tmp_path: Path) -> None:
    import zsad

    with pytest.raises(RequestError, match="`zsad train` makes one and reads none"):
        zsad.train(
            "anomalyclip",
            "synthetic",
            results=tmp_path,
            overrides=[f"anomalyclip.checkpoint={folder}/one.pth"],
        )


def test_a_companion_is_read_along_and_counts(tmp_path: Path) -> None:
    """A folder as AA-CLIP's training writes it: one state, whose cells depend on both files."""
    files = tmp_path / "trained"
    files.mkdir()
    torch.save({"image_adapter": {}}, files / "image_adapter.pth")
    torch.save({"image_adapter": {}}, files / "image_adapter_19.pth")
    found = []
    for text in (1.0, 2.0):
        torch.save({"text_adapter": {"x": torch.tensor(text)}}, files / "text_adapter.pth")
        asked = build_request(
            "aaclip",
            "synthetic",
            backbone="zsad-tiny",
            results=tmp_path / "results",
            overrides=[f"aaclip.checkpoint={files}"],
            offline=True,
        )
        given = given_for(asked, asked.columns[0], "synthetic")
        assert given.path == files / "image_adapter.pth"
        plan = build_plan(asked, ResultStore(asked.results), "weights", demo=True)
        found.append({key.fingerprint for key, _ in plan.cells()})
    assert found[0]
    assert found[0].isdisjoint(found[1])

"""``zsad predict``: photos in, one JSON line each and files out; thresholds; errors one by one."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import zsad
from tests.runner.conftest import PLUGINS
from zsad.cli.main import main
from zsad.errors import RequestError
from zsad.inference import calibration
from zsad.io import sha256_file


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``photos/`` with three sizes of pictures, ``good/`` with five normal ones."""
    rng = np.random.default_rng(1)
    for folder, count in (("photos", 3), ("good", 5)):
        (tmp_path / folder).mkdir()
        for i in range(count):
            pixels = rng.integers(90, 130, (48 + 8 * i, 64, 3), dtype=np.uint8)
            if folder == "photos":
                pixels[10:30, 5:25] = 250
            Image.fromarray(pixels).save(tmp_path / folder / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Predict:
    """Runs the verb with the small backbone."""

    def __init__(self, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.weights, self.capsys = weights, capsys
        self.err = ""

    def __call__(self, *argv: str, code: int = 0, method: str = "clip") -> list[dict[str, Any]]:
        options = ["--backbone", "file", "--weights", str(self.weights), "--device", "cpu"]
        words = ["predict", "--method", method, "--class-name", "metal nut", *options, *argv]
        assert main(words) == code
        out, self.err = self.capsys.readouterr()
        return [json.loads(line) for line in out.splitlines()]


@pytest.fixture
def predict(weights: Path, capsys: pytest.CaptureFixture[str]) -> Predict:
    return Predict(weights, capsys)


def loaded(weights: Path, method: str = "clip", **options: Any) -> Any:
    return zsad.load_method(method, backbone="file", weights=weights, device="cpu", **options)


# --------------------------------------------------------------------------------- files
def test_lines_and_files_say_the_same(predict: Predict, place: Path) -> None:
    lines = predict("photos", "--out", "found")
    assert [line["path"] for line in lines] == [f"photos/{i}.png" for i in range(3)]
    assert "not calibrated" in predict.err
    assert predict.err.count("\n") == 1
    for i, line in enumerate(lines):
        files = {kind: Path(path) for kind, path in line["files"].items()}
        endings = {"map": "map.npy", "heat": "heat.png", "mask": "mask.png", "record": "json"}
        assert files == {kind: Path(f"found/{i}.{e}") for kind, e in endings.items()}
        assert json.loads(files["record"].read_text()) == line
        values = np.load(files["map"])
        assert values.shape == (48 + 8 * i, 64)
        assert line["map_max"] == pytest.approx(values.max())
        limit = line["thresholds"]["pixel"]
        mask = np.asarray(Image.open(files["mask"])) > 0
        np.testing.assert_array_equal(mask, values >= limit)
        assert line["marked"] == pytest.approx(mask.mean())
        assert Image.open(files["heat"]).size == (64, 48 + 8 * i)
        assert line["thresholds"] == {
            "image": 0.5,
            "pixel": calibration.uncalibrated(values, True).pixel,
            "rule": "uncalibrated",
            "normal_pictures": 0,
            "false_alarms": None,
        }
        assert line["anomalous"] == (line["image_score"] >= 0.5)
        assert {e["label"] for e in line["explanations"]} == {"normal", "anomalous"}
        assert "nut" in line["explanations"][0]["text"]


def test_five_lines_of_python_give_what_the_command_gives(
    predict: Predict, place: Path, weights: Path
) -> None:
    lines = predict("photos", "--calibrate", "good", "--out", "found")
    python = zsad.predict(
        "clip", "photos", "metal nut", calibrate="good", out="again",
        backbone="file", weights=weights, device="cpu",
    )  # fmt: skip
    for line, found in zip(lines, python, strict=True):
        assert (line["path"], line["image_score"]) == (found.path, found.image_score)
        assert line["anomalous"] == found.anomalous
        for kind in ("map", "heat", "mask"):
            assert sha256_file(line["files"][kind]) == sha256_file(found.files[kind])


@pytest.mark.parametrize(
    ("words", "stdin", "expected"),
    [
        (["photos/[01].png"], "", ["photos/0.png", "photos/1.png"]),
        (["-"], "photos/2.png\n\n  photos/0.png \n", ["photos/2.png", "photos/0.png"]),
        (["photos/1.png", "-"], "photos\n", ["photos/1.png", "photos/0.png", "photos/2.png"]),
    ],
)
def test_patterns_and_lists(
    words: list[str],
    stdin: str,
    expected: list[str],
    predict: Predict,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
    assert [line["path"] for line in predict(*words)] == expected


# ---------------------------------------------------------------------------- thresholds
def test_calibration_is_the_stated_rule_on_the_methods_own_figures(
    predict: Predict, place: Path, weights: Path
) -> None:
    normal = loaded(weights).predict([f"good/{i}.png" for i in range(5)], "metal nut")
    scores = [p.image_score for p in normal]
    maxima = [float(p.anomaly_map.max()) for p in normal]
    lines = predict("photos", "good", "--calibrate", "good", "--false-alarms", "0.5")
    limits = lines[0]["thresholds"]
    # Half of six: just above the third of five.
    assert limits["image"] == np.nextafter(np.float32(sorted(scores)[2]), np.float32(2))
    assert limits["pixel"] == np.nextafter(np.float32(sorted(maxima)[2]), np.float32(2))
    assert (limits["rule"], limits["false_alarms"]) == ("calibrated", 0.5)
    flagged = [line["anomalous"] for line in lines if line["path"].startswith("good")]
    assert sum(flagged) == 2
    assert all(line["thresholds"] == limits for line in lines)
    assert "5 normal pictures; at most 50.0 % false alarms" in predict.err


def test_a_calibration_is_kept_and_fits_only_its_own_request(
    predict: Predict, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = predict("photos", "--calibrate", "good", "--out", "found")
    again = predict("photos", "--calibrate", "found/calibration.json")
    assert [line["thresholds"] for line in again] == [line["thresholds"] for line in first]
    assert (
        predict("photos", "--calibrate", "found/calibration.json", method="winclip", code=2) == []
    )
    assert "was made for method 'clip', not 'winclip'" in predict.err
    predict("photos", "--calibrate", "found/calibration.json", "clip.temperature=0.5", code=2)
    assert "was made for config" in predict.err


def test_thresholds_by_hand(predict: Predict, place: Path) -> None:
    lines = predict("photos/0.png", "--threshold", "0.25", "--image-threshold", "0.99")
    limits = lines[0]["thresholds"]
    assert (limits["image"], limits["pixel"], limits["rule"]) == (0.99, 0.25, "given")
    assert lines[0]["anomalous"] is False
    assert predict.err == ""


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["photos", "--false-alarms", "0.1"], "--false-alarms 0.1: needs --calibrate"),
        (["photos", "--calibrate", "good", "--false-alarms", "1.5"], "between 0 and 1"),
        (["photos", "--calibrate", "x.json"], "--calibrate x.json: no such file"),
        (["photos", "--calibrate", "empty"], "empty: no pictures there"),
        (["photos", "--calibrate", "bad"], "bad/x.png"),
        (["photos", "--out", "photos"], "is the folder of the pictures"),
        (["photos", "--out", "photos/0.png/found"], "cannot be written"),
        (["photos/*.gif"], "no file matches"),
    ],
)
def test_a_wrong_request_is_one_line(
    argv: list[str], message: str, predict: Predict, place: Path
) -> None:
    (place / "empty").mkdir()
    (place / "bad").mkdir()
    (place / "bad" / "x.png").write_bytes(b"no picture")
    assert predict(*argv, code=2) == []
    lines = [line for line in predict.err.splitlines() if "note:" not in line]
    assert len(lines) == 1
    assert message in lines[0]


# -------------------------------------------------------------------------------- errors
def test_a_broken_picture_costs_only_itself(
    predict: Predict, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = {line["path"]: line["image_score"] for line in predict("photos")}
    (place / "photos" / "1.png").write_bytes(b"no picture")
    monkeypatch.setattr("sys.stdin", io.StringIO("absent.png\n"))
    lines = predict("photos", "-", "--out", "found", code=3)
    assert [line["path"] for line in lines] == [
        *(f"photos/{i}.png" for i in range(3)),
        "absent.png",
    ]
    for line in lines[1::2]:
        assert set(line) == {"path", "error"}
        assert line["path"] in line["error"]
    for line in lines[::2]:
        assert line["image_score"] == pytest.approx(alone[line["path"]], abs=1e-6)
        assert Path(line["files"]["heat"]).is_file()
    assert not list((place / "found").glob("1.*"))


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("raises", "ArithmeticError: cannot weave"),
        ("nan", "not-a-number in the map or score of photos/"),
    ],
)
def test_a_method_that_fails_is_one_error_per_picture(
    method: str, message: str, predict: Predict, place: Path
) -> None:
    options = ("--class-name", "cloth", "--plugins", str(PLUGINS))
    lines = predict("photos", *options, method=method, code=3)
    assert [line["path"] for line in lines] == [f"photos/{i}.png" for i in range(3)]
    assert all(message in line["error"] and "\n" not in line["error"] for line in lines)


# -------------------------------------------------------------- methods with other needs
def test_methods_that_compare_pictures_see_all_of_them(
    predict: Predict, place: Path, weights: Path
) -> None:
    """More pictures than one batch: every one is compared with all others."""
    for i in range(9):
        shutil.copy(place / "good" / f"{i % 5}.png", place / "photos" / f"more{i}.png")
    (place / "photos" / "more3.png").write_bytes(b"no picture")
    lines = predict("photos", method="musc", code=3)
    assert len(lines) == 12
    assert [bool(line.get("error")) for line in lines].count(True) == 1
    whole = [line["path"] for line in lines if "error" not in line]
    method = loaded(weights, "musc")
    tensor = torch.stack([method.pictures.preprocess(Image.open(p).convert("RGB")) for p in whole])
    at_once = method.predict_tensor(tensor, "metal nut")
    for line, expected in zip((x for x in lines if "error" not in x), at_once, strict=True):
        assert line["image_score"] == pytest.approx(expected.image_score, abs=1e-5)
        assert line["thresholds"]["image"] is None  # it reads no text: no middle is known
        assert line["anomalous"] is None
    with pytest.raises(RequestError, match="at least two"):
        method.predict("photos/0.png")


def test_references_are_encoded_once(place: Path, weights: Path) -> None:
    method = loaded(weights, "winclip", overrides={"shots": 2})
    before = method.backbone.counters.images
    pictures = [f"photos/{i % 3}.png" for i in range(10)]  # two batches
    method.predict(pictures, "nut", references=["good/0.png", "good/1.png"])
    assert method.backbone.counters.images - before == 12
    with pytest.raises(RequestError, match="needs 2 normal reference pictures, got 1"):
        method.predict(pictures, "nut", references=["good/0.png"])


# ---------------------------------------------------------------- references and settings
def test_a_folder_of_references_sets_the_shots(
    predict: Predict, place: Path, weights: Path
) -> None:
    lines = predict("photos/0.png", "--reference", "good", method="winclip")
    method = loaded(weights, "winclip", overrides={"shots": 5})
    normal = [f"good/{i}.png" for i in range(5)]
    assert (
        lines[0]["image_score"]
        == method.predict("photos/0.png", "metal nut", references=normal)[0].image_score
    )
    python = zsad.predict(
        "winclip", "photos/0.png", "metal nut", references="good",
        backbone="file", weights=weights, device="cpu",
    )  # fmt: skip
    assert next(python).image_score == lines[0]["image_score"]
    few = predict("photos/0.png", "--reference", "good", "winclip.shots=2", method="winclip")
    named = ("--reference", "good/0.png", "--reference", "good/1.png")
    assert (
        few[0]["image_score"] == predict("photos/0.png", *named, method="winclip")[0]["image_score"]
    )


@pytest.mark.parametrize(
    ("argv", "method", "message"),
    [
        (["--reference", "good"], "clip", "'clip' compares with no reference pictures, and 5 were"),
        (
            ["--reference", "good", "winclip.shots=0"],
            "winclip",
            "winclip.shots=0 uses no reference",
        ),
        (
            ["--reference", "good", "winclip.shots=9"],
            "winclip",
            "needs 9 normal reference pictures",
        ),
        (["--reference", "absent"], "winclip", "absent: no such file or folder"),
        (["--precision", "fp8"], "clip", "'fp8'"),
        (["--image-size", "15"], "clip", "multiple of the patch size"),
        (["--image-size", "64", "backbone.image_size=32"], "clip", "say two things"),
        (["data.workers=1"], "clip", "data.workers: changes nothing"),
    ],
)
def test_references_and_settings_that_cannot_be_meant_are_refused(
    argv: list[str], method: str, message: str, predict: Predict, place: Path
) -> None:
    assert predict("photos/0.png", *argv, method=method, code=2) == []
    assert message in predict.err
    assert predict.err.count("\n") == 1


def test_references_that_a_loaded_method_cannot_use_are_refused(place: Path, weights: Path) -> None:
    with pytest.raises(RequestError, match="compares with no reference pictures"):
        loaded(weights).predict("photos/0.png", "nut", references=["good/0.png"])
    with pytest.raises(RequestError, match=r"loaded for 0 reference.*overrides=\{'shots': 1\}"):
        loaded(weights, "winclip").predict("photos/0.png", "nut", references=["good/0.png"])
    with pytest.raises(TypeError, match="did you mean 'references'"):
        zsad.predict("winclip", "photos", "nut", reference="good")


def test_settings_of_the_backbone_work_as_in_bench(
    predict: Predict, place: Path, weights: Path
) -> None:
    small = loaded(weights, image_size=28).predict("photos/0.png", "metal nut")[0].image_score
    for words in (["backbone.image_size=28"], ["--image-size", "28"], ["clip.preset=default",
                  "backbone.image_size=28", "run.batch_size=1"]):  # fmt: skip
        assert predict("photos/0.png", *words)[0]["image_score"] == small
    coarse = loaded(weights, precision="bf16").predict("photos/0.png", "metal nut")[0].image_score
    for words in (["backbone.precision=bf16"], ["--precision", "bf16"]):
        assert predict("photos/0.png", *words)[0]["image_score"] == coarse
    assert coarse != predict("photos/0.png")[0]["image_score"]


def test_thresholds_of_other_references_are_refused(
    predict: Predict, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    few = ("--reference", "good/0.png")
    predict("photos", *few, "--calibrate", "good", "--out", "found", method="winclip")
    assert "1 of the pictures of --calibrate are references, too" in caplog.text
    predict("photos", *few, "--calibrate", "found/calibration.json", method="winclip")
    other = ("--reference", "good/1.png", "--calibrate", "found/calibration.json")
    predict("photos", *other, method="winclip", code=2)
    assert "was made for references" in predict.err


def test_a_bank_stands_for_its_pictures(predict: Predict, place: Path) -> None:
    near = ("--reference", "good")
    first = predict("photos", *near, "--save-bank", "nut.bank", method="winclip")
    again = predict("photos", "--bank", "nut.bank", method="winclip")
    assert [line["image_score"] for line in again] == [line["image_score"] for line in first]
    predict("photos", "--bank", "nut.bank", *near, method="winclip", code=2)
    assert "--bank nut.bank: holds the references" in predict.err
    predict("photos", "--bank", "nut.bank", method="patchcore", code=2)
    assert "was made for" in predict.err
    predict("photos", "--bank", "nut.bank", code=2)
    assert "compares with no reference pictures" in predict.err
    predict("photos", "--save-bank", "x.bank", method="winclip", code=2)
    assert "--save-bank x.bank: needs --reference" in predict.err
    predict("photos", "--bank", "photos/0.png", method="winclip", code=2)
    assert "not a reference bank" in predict.err
    predict("photos", "--save-bank", "all.bank", method="musc")
    assert len(predict("photos/0.png", "--bank", "all.bank", method="musc")) == 1

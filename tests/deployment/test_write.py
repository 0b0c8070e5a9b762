"""Packages equal `zsad predict`, in every runtime and without torch."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import zsad
import zsad.runtime
from zsad import registry
from zsad.backbones.engines import processor
from zsad.cli.main import main
from zsad.errors import RequestError, ZsadError
from zsad.runtime.graph import RUNTIMES

for _package in ("onnx", "onnxscript", "onnxruntime", "openvino"):
    if importlib.util.find_spec(_package) is None:
        pytest.skip(f"{_package} is not installed (extra `export`)", allow_module_level=True)

NAME = "metal nut"
SIZE = 96
EVERY = sorted(set(registry.methods()) - {"musc"})  # it is transductive


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three photographs, two with a bright spot, and one to compare with."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    (folder / "good").mkdir()
    for i, name in enumerate(("good/0", "a", "b", "c")):
        pixels = np.clip(random.normal(120, 20, (80, 100 + 10 * i, 3)), 0, 255).astype(np.uint8)
        if i > 1:
            pixels[20 : 30 + 8 * i, 40:60] = 255
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


def options(method: str, folder: Path) -> dict[str, Any]:
    entry = registry.method(method)
    shots = entry.resolve().shots
    return {
        "backbone": "zsad-tiny",
        "image_size": SIZE,
        "untrained": entry.trained,
        "references": [str(folder / "good")] if shots else [],
        "overrides": [f"{method}.grounding=none"] if "grounding" in entry.defaults else [],
    }


def same(package: Path, method: str, folder: Path, runtime: str, **more: Any) -> None:
    """Score, map, regions and verdict of the package are those of predict."""
    paths = sorted(map(str, folder.glob("*.png")))
    part = zsad.runtime.load(package, runtime, threads=1, boxes=more.pop("boxes", None))
    assert part.runtime.startswith(runtime)
    for path, right in zip(paths, zsad.predict(method, paths, NAME, **more), strict=True):
        found = part.predict(path)
        assert found.image_score == pytest.approx(right.image_score, abs=1e-4)
        assert right.anomaly_map is not None
        assert right.thresholds is not None
        np.testing.assert_allclose(found.anomaly_map, right.anomaly_map, rtol=0, atol=1e-4)
        assert found.thresholds.rule == right.thresholds.rule
        if right.thresholds.image is None or abs(right.image_score - right.thresholds.image) > 1e-4:
            assert found.anomalous == right.anomalous
        wanted = right.findings
        assert (wanted is None) == (found.share is None)
        if wanted is not None and found.share is not None:
            assert found.share == pytest.approx(wanted.share, abs=0.01)
            for one, other in zip(found.regions[:1], wanted.regions[:1]):
                assert np.abs(np.subtract(one.box, other.box)).max() <= 2
                assert one.peak == pytest.approx(other.peak, abs=1e-4)
                if one.box == other.box and one.area == other.area:
                    assert one.contour == other.contour


@pytest.mark.slow
@pytest.mark.parametrize("method", EVERY)
def test_a_package_is_predict_in_every_runtime(method: str, folder: Path, tmp_path: Path) -> None:
    given = options(method, folder)
    out = tmp_path / "part.zsad"
    about = zsad.export(method, NAME, out, **given)
    assert set(about["verified"]) == {zsad.runtime.load(out, r).runtime for r in RUNTIMES["onnx"]}
    for runtime in RUNTIMES["onnx"]:
        same(out, method, folder, runtime, **given)


@pytest.fixture(scope="module")
def package(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FAPrompt's like, untrained, with the thresholds of a calibration, for OpenVINO."""
    out = tmp_path_factory.mktemp("package")
    given = options("maskclip", folder)
    list(
        zsad.predict("maskclip", [str(folder / "a.png")], NAME, calibrate=str(folder / "good"),
                     out=out / "run", **given)
    )  # fmt: skip
    path = out / "part.zsad"
    zsad.export("maskclip", NAME, path, calibrate=out / "run" / "calibration.json", **given)
    return path


def test_thresholds_of_a_calibration_travel_along(package: Path, folder: Path) -> None:
    part = zsad.runtime.load(package)
    calibration = package.parent / "run" / "calibration.json"
    told = json.loads(calibration.read_text())["thresholds"]
    assert part.about["thresholds"] == told
    given = options("maskclip", folder)
    for runtime in RUNTIMES["onnx"]:
        same(package, "maskclip", folder, runtime, calibrate=str(calibration), **given)
    assert part.predict(folder / "c.png").thresholds.rule == "calibrated"


def test_tiles_and_the_stored_decoding_travel_along(folder: Path, tmp_path: Path) -> None:
    """Of a large picture, a small one, and one with a palette and transparent pixels."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    random = np.random.default_rng(1)
    pixels = random.integers(90, 130, (200, 330, 3), dtype=np.uint8)
    pixels[150:158, 300:308] = 255
    Image.fromarray(pixels).save(pictures / "large.png")
    Image.fromarray(pixels[:60, :70]).save(pictures / "small.png")
    clear = np.dstack([pixels[:100, :90], random.integers(0, 256, (100, 90), dtype=np.uint8)])
    Image.fromarray(clear.astype(np.uint8)).save(pictures / "clear.png")
    Image.fromarray(pixels[:90]).quantize(8).save(pictures / "palette.png")
    given = options("anomalyclip", folder) | {"tiles": 3}
    given["overrides"] = ["anomalyclip.decoding=released"]
    out = tmp_path / "part.zsad"
    about = zsad.export("anomalyclip", NAME, out, **given)
    assert about["tiles"] == 3
    assert about["preprocess"]["stored"]
    same(out, "anomalyclip", pictures, "onnxruntime", **given)
    whole = zsad.predict("anomalyclip", str(pictures / "large.png"), NAME, **given | {"tiles": 0})
    found = zsad.runtime.load(out).predict(pictures / "large.png")
    assert np.abs(found.anomaly_map - whole[0].anomaly_map).max() > 3e-4  # the tiles' share


def test_what_a_package_says_of_itself(package: Path) -> None:
    part = zsad.runtime.load(package)
    assert part.about["class_name"] == NAME
    assert "demonstration backbone" in part.about["mark"]
    assert "demonstration backbone" in part.title
    assert "zsad-tiny" in part.about["weights_note"]
    assert part.about["made_by"]["backbone"] == "zsad-tiny"
    assert max(max(v.values()) for v in part.about["verified"].values()) <= 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "tiles"), [("default", 0), ("released", 0), ("default", 2)])
def test_boxes_that_are_given_later_are_those_of_predict(
    preset: str, tiles: int, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In every runtime, in tiles, and without an answer for one picture."""
    answers = {
        "a.png": {
            "boxes": [[0.2, 0.8, 0.3, 0.25], [0.6, 0.5, 0.9, 0.95], [0.7, 0.2, 0.2, 0.2]],
            "scores": [0.61, 0.9, 0.3],
            "phrases": ["damage", "anomaly", "broken"],
        },
        "b.png": {"boxes": [[0.5, 0.5, 0.2, 0.3]], "scores": [0.1], "phrases": ["shine"]},
    }
    file, out = tmp_path / "boxes.json", tmp_path / "part.zsad"
    file.write_text(json.dumps(answers))
    given = options("filo", folder) | {"overrides": [f"filo.preset={preset}"], "tiles": tiles}
    about = zsad.export("filo", NAME, out, **given)
    assert (about["title"], about["tiles"]) == ("FiLo", tiles)
    assert about["made_by"]["boxes"] == {"source": "zsad run --boxes"}
    assert zsad.runtime.load(out).title.startswith("FiLo (no boxes)")
    boxed = given | {"overrides": [*given["overrides"], f"filo.grounding={file}"]}
    for runtime in RUNTIMES["onnx"]:
        same(out, "filo", folder, runtime, boxes=file, **boxed)
        bare = [*given["overrides"], "filo.grounding=none"]
        same(out, "filo", folder, runtime, **given | {"overrides": bare})
    words = [str(out), *(str(folder / f"{n}.png") for n in "abc"), "--boxes", str(file)]
    assert main(["run", *words]) == 0
    told = capsys.readouterr()
    assert [json.loads(line).get("boxes") for line in told.out.splitlines()] == [3, 1, None]
    assert "no boxes of" in told.err


def test_boxes_are_refused_by_what_takes_none(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(package), "x.png", "--boxes", str(tmp_path / "b.json")]) == 2
    assert "takes no boxes; leave the option out" in capsys.readouterr().err


BARE = """
import importlib.abc, sys
ALLOWED = {"numpy", "PIL", "onnxruntime", "zsad", "flatbuffers", "google", "coloredlogs"}
class Refusing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in ALLOWED | sys.stdlib_module_names:
            raise ImportError(f"{name} is not installed")
sys.meta_path.insert(0, Refusing())
from zsad.runtime.command import main
code = main(sys.argv[1:])
assert "torch" not in sys.modules
raise SystemExit(code)
"""


def test_nothing_but_numpy_pillow_and_a_runtime_is_needed(package: Path, folder: Path) -> None:
    command = [sys.executable, "-c", BARE, str(package), str(folder / "b.png"), "--threads", "1"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    said = json.loads(run.stdout)
    assert said["image_score"] == zsad.runtime.load(package).predict(folder / "b.png").image_score
    assert "MaskCLIP" in run.stderr


def test_zsad_run(
    package: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.png").write_text("no picture")
    words = [str(package), str(folder / "c.png"), str(tmp_path / "broken.png")]
    assert main(["run", *words, "--out", str(tmp_path / "maps")]) == 3
    good, bad = map(json.loads, capsys.readouterr().out.splitlines())
    assert "not an image" in bad["error"]
    assert good["made_by"]["method"] == "maskclip"
    assert np.load(good["files"]["map"]).shape == (80, 130)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none.zsad", "x.png"], r"none\.zsad: no such file"),
        ([], "needs a package and pictures"),
        (["{package}", "x.png", "--runtime", "tensorrt"], "--runtime tensorrt: .* is for onnx"),
        (["{package}", "nowhere/*.png"], "no file matches"),
    ],
)
def test_wrong_requests_are_one_line(
    words: list[str], message: str, package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    assert main(["run", *(w.format(package=package) for w in words)]) == 2
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    assert re.search(message, said), said


def test_an_absent_runtime_says_what_to_install(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in RUNTIMES["onnx"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(RequestError, match=r"is not installed; `pip install onnxruntime`"):
        zsad.runtime.load(package)


def test_openvino_packages(folder: Path, tmp_path: Path) -> None:
    given = options("coop", folder)
    out = tmp_path / "part.zsad"
    zsad.export("coop", NAME, out, format="openvino", **given)
    same(out, "coop", folder, "openvino", **given)


@pytest.mark.parametrize(
    ("method", "words", "message"),
    [
        ("musc", [], "compares the pictures of a call with each other"),
        ("clip", ["--format", "tensorrt"], "--format tensorrt: choose one of onnx, openvino"),
        ("clip", ["--out", "part.onnx"], "--out part.onnx: name a file that ends in .zsad"),
        ("clip", ["--untrained"], "method clip is training-free"),
        ("clip", ["--reference", "{folder}/good"], "compares with no reference pictures"),
        ("clip", ["backbone.precision=int8"], "only OpenVINO has it, not backbone.engine=auto"),
        pytest.param(
            *("clip", ["backbone.precision=int8", "backbone.engine=openvino"]),
            "backbone.precision=int8: a package computes in float32",
            marks=pytest.mark.skipif(not processor.facts().vnni, reason="refused before"),
        ),
        ("coop", ["coop.n_ctx=3"], "coop"),  # no state, or one that was trained otherwise
        ("filo", ["--untrained", "filo.prompt.positions=all"], "asks a detector for boxes"),
        ("filo", ["--untrained", "filo.grounding=b.json"], "takes boxes when it runs"),
    ],
)
def test_requests_that_cannot_be_met(
    method: str,
    words: list[str],
    message: str,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    common = ["export", method, "--class-name", NAME, "--backbone", "zsad-tiny", "--out"]
    given = [w.format(folder=folder) for w in words]
    assert main([*common, str(tmp_path / "part.zsad"), *given]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "part.zsad").exists()


def test_a_package_that_differs_from_torch_is_not_written(package: Path) -> None:
    """The graph of one class name is not that of another."""
    from zsad.deployment.deployed import Deployed
    from zsad.deployment.write import compared
    from zsad.runtime import package_file

    parts = package_file.read(package).parts
    loaded = zsad.load_method("maskclip", "zsad-tiny", image_size=SIZE)
    assert compared("part", "onnx", parts, Deployed(loaded, NAME), SIZE)
    with pytest.raises(ZsadError, match="from torch; nothing was written"):
        compared("part", "onnx", parts, Deployed(loaded, "bottle"), SIZE)

"""The extra `grounding` alone, in an environment that holds the newest transformers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import ROOT
from tests.grounding.test_official_weights import CAPTION, SIZES

pytestmark = pytest.mark.slow

# Run there: the authors' file against the boxes that groundingdino-py gave here.
SCRIPT = """
import sys, torch
from zsad.grounding import transformers_dino
from zsad.grounding.interface import DetectorOptions
from zsad.torchvision_compat import transformers
weights, encoder, known = sys.argv[1:]
ours = transformers_dino.handle(DetectorOptions(weights=weights, text_encoder=encoder)).load()
ours.model.double()
far = 0.0
for pixels, boxes in torch.load(known, weights_only=True):
    text = ours.tokenizer("CAPTION", return_tensors="pt")
    with torch.no_grad(), ours.arithmetic:
        found = ours.model(pixel_values=pixels, **text).pred_boxes
    far = max(far, float((found - boxes).abs().max()))
print(transformers.__version__, far)
""".replace("CAPTION", CAPTION)


def pins(folder: Path) -> Path:
    """The versions of torch that the suite passes with; everything else is free."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    path = folder / "pins.txt"
    path.write_text("\n".join(x for x in lines if x.startswith(("torch==", "torchvision=="))))
    return path


def pip(python: str, *words: str) -> str:
    """Run pip; skip where there is no package index."""
    done = subprocess.run(
        [python, "-m", "pip", *words], capture_output=True, text=True, timeout=900, check=False
    )
    if "Failed to establish a new connection" in done.stderr:
        pytest.skip("no package index in reach")
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The interpreter of a fresh environment."""
    folder = tmp_path_factory.mktemp("fresh")
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    return str(folder / "venv" / "bin" / "python")


def test_grounding_installs_beside_what_users_add(python: str, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    how = ("install", "-q", "--dry-run", "--report", str(report), "-c", str(pins(tmp_path)))
    pip(python, *how, f"{ROOT}[grounding]", "gradio", "fiftyone")
    found: dict[str, Any] = {
        item["metadata"]["name"].lower(): item["metadata"]["version"]
        for item in json.loads(report.read_text())["install"]
    }
    assert {"zsad", "gradio", "fiftyone"} <= set(found)
    assert int(found["transformers"].split(".")[0]) >= 5
    assert "groundingdino-py" not in found


def test_the_newest_transformers_gives_the_boxes_of_the_authors_package(
    python: str, official: tuple[Path, Any], encoder: Path, tmp_path: Path
) -> None:
    path, theirs = official
    theirs.double()
    generator = torch.Generator().manual_seed(3)
    known = []
    for size in SIZES:
        pixels = torch.randn((1, *size), generator=generator).double()
        with torch.no_grad():
            known.append((pixels, theirs(pixels, captions=[CAPTION])["pred_boxes"]))
    torch.save(known, tmp_path / "known.pt")
    pip(python, "install", "-q", "-c", str(pins(tmp_path)), f"{ROOT}[grounding]")
    script = tmp_path / "compare.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [python, str(script), str(path), str(encoder), str(tmp_path / "known.pt")],
        **{"capture_output": True, "text": True, "cwd": tmp_path, "timeout": 600},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    version, far = done.stdout.split()[-2:]
    assert int(version.split(".")[0]) >= 5
    assert float(far) < 1e-4

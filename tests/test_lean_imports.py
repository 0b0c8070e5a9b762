"""What prediction does not need is not imported, and is there as soon as somebody asks for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("transformers", "timm", "pandas", "sklearn", "scipy.stats", "torchmetrics.functional")

START = f"""
import sys
import zsad
zsad.load_method("winclip", backbone="zsad-tiny", device="cpu")
print([name for name in {HEAVY} if name in sys.modules])
"""

LATER = """
import torch
from zsad.torchvision_compat import lightning, open_clip, torchmetrics
import sys
assert "transformers" not in sys.modules and "timm" not in sys.modules

# the base classes are the library's own, and a module keeps metrics that the package names later
assert torchmetrics.Metric is sys.modules["torchmetrics.metric"].Metric
early = torchmetrics.MetricCollection
assert issubclass(torchmetrics.Accuracy, torchmetrics.Metric)
assert torchmetrics.MetricCollection is early
accuracy = torchmetrics.Accuracy("binary")
print(float(accuracy(torch.tensor([0.9, 0.2]), torch.tensor([1, 1]))))
print(float(torchmetrics.functional.accuracy(torch.tensor([1]), torch.tensor([1]), "binary")))
try:
    torchmetrics.NoSuchMetric
except AttributeError as error:
    print(error)

tower = open_clip.model.TimmModel("vit_tiny_patch16_224", 8, pool="", proj="linear")
print(tuple(tower(torch.zeros(1, 3, 224, 224)).shape)[-1])
sized = {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
import transformers
config = transformers.BertConfig(**sized, intermediate_size=8)
text = open_clip.model.HFTextEncoder("", 4, config=config, proj_type="linear")
print(tuple(text(torch.ones(2, 5, dtype=torch.long)).shape))
"""


def run(script: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_loading_a_method_imports_none_of_the_heavy_libraries() -> None:
    assert run(START) == ["[]"]


@pytest.mark.slow
def test_what_was_left_out_is_there_when_it_is_asked_for() -> None:
    pytest.importorskip("transformers")
    assert run(LATER) == [
        "0.5",
        "1.0",
        "module 'torchmetrics' has no attribute 'NoSuchMetric'",
        "8",
        "(2, 4)",
    ]

"""What prediction does not need is not imported, and is there as soon as somebody asks for it."""

from __future__ import annotations

import pytest

from tests.fresh_process import printed

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


@pytest.mark.slow
def test_loading_a_method_imports_none_of_the_heavy_libraries() -> None:
    assert printed(START) == ["[]"]


@pytest.mark.slow
def test_what_was_left_out_is_there_when_it_is_asked_for() -> None:
    pytest.importorskip("transformers")
    assert printed(LATER) == [
        "0.5",
        "1.0",
        "module 'torchmetrics' has no attribute 'NoSuchMetric'",
        "8",
        "(2, 4)",
    ]

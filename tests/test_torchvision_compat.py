"""torchvision is importable, and its non-maximum suppression is right, on any torch."""

from __future__ import annotations

import pytest
import torch

from tests.fresh_process import printed
from zsad.torchvision_compat import ensure, nms

SCRIPT = """
from zsad import torchvision_compat
first = torchvision_compat.ensure()
assert torchvision_compat.ensure() == first  # calling it again is harmless
import torch, torchvision, open_clip, torchmetrics
boxes = torch.tensor([[0., 0., 10., 10.], [1., 1., 11., 11.], [20., 20., 30., 30.]])
print(torch.ops.torchvision.nms(boxes, torch.tensor([0.5, 0.9, 0.1]), 0.5).tolist())
"""


@pytest.mark.slow
def test_torchvision_and_open_clip_import_in_a_fresh_process() -> None:
    assert printed(SCRIPT) == ["[1, 2]"]


def brute_force(boxes: torch.Tensor, scores: torch.Tensor, threshold: float) -> list[int]:
    """Greedy suppression in plain Python floats."""
    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda j: (-float(scores[j]), j)):
        a = boxes[i].tolist()
        for j in kept:
            b = boxes[j].tolist()
            w = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
            h = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
            union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h
            if w * h / union > threshold:
                break
        else:
            kept.append(i)
    return kept


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7, 1.0])
def test_nms_equals_a_brute_force_version(threshold: float) -> None:
    generator = torch.Generator().manual_seed(3)
    for count in (1, 2, 40):
        corner = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 10
        size = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 8 + 0.5
        boxes = torch.cat([corner, corner + size], 1)
        scores = torch.rand(count, generator=generator).mul(8).round()  # with ties
        expected = brute_force(boxes, scores, threshold)
        assert nms(boxes, scores, threshold).tolist() == expected
        ensure()
        assert torch.ops.torchvision.nms(boxes, scores, threshold).tolist() == expected


def test_nms_of_no_boxes_is_empty() -> None:
    assert nms(torch.zeros(0, 4), torch.zeros(0), 0.5).tolist() == []


def test_a_box_is_kept_at_exactly_the_threshold() -> None:
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 1.0, 2.0]])  # overlap of one half
    assert nms(boxes, torch.tensor([1.0, 0.5]), 0.5).tolist() == [0, 1]
    assert nms(boxes, torch.tensor([1.0, 0.5]), 0.49).tolist() == [0]


def test_libraries_that_import_torchvision_are_taken_from_here() -> None:
    """In a new process none of them is imported before it is asked for."""
    code = """
import sys
from zsad import torchvision_compat
assert not {"torch", "lightning", "open_clip"} & set(sys.modules)
from zsad.torchvision_compat import lightning, open_clip
assert torchvision_compat.ensure.cache_info().currsize == 1  # it ran first
assert issubclass(lightning.LightningModule, sys.modules["torch"].nn.Module)
assert lightning.pytorch.loggers.CSVLogger and open_clip.tokenizer.SimpleTokenizer
"""
    assert printed(code) == []


def test_other_names_are_refused() -> None:
    with pytest.raises(ImportError, match="nothing"):
        from zsad.torchvision_compat import nothing  # noqa: F401

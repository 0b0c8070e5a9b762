"""Which precision ``auto`` is, where it is said, and what float32 products are computed in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.fake_cuda import simulated
from zsad import backbones
from zsad.backbones import precision
from zsad.backbones.precision import resolved, set_products
from zsad.config import BackboneSettings
from zsad.errors import RequestError


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a CUDA driver."""
    monkeypatch.setattr(precision, "DRIVERS", ("/",))


@pytest.fixture(autouse=True)
def products() -> Iterator[None]:
    """What products are computed in is of the whole process."""
    before = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    yield
    torch.backends.cudnn.allow_tf32 = before[0]
    torch.set_float32_matmul_precision(before[1])


@pytest.mark.parametrize(
    ("asked", "engine", "device", "capability", "found"),
    [
        ("auto", "auto", "cuda", 9, "bf16"),
        ("auto", "auto", "auto", 8, "bf16"),
        ("auto", "auto", "cuda:0", 7, "fp32"),  # emulates bf16
        ("auto", "auto", "cpu", 9, "fp32"),
        ("auto", "onednn", "auto", 9, "fp32"),  # runs on a processor
        ("fp32", "auto", "cuda", 9, "fp32"),
        ("fp16", "auto", "cuda", 9, "fp16"),
    ],
)
@pytest.mark.usefixtures("driver")
def test_what_auto_is(
    asked: str,
    engine: str,
    device: str,
    capability: int,
    found: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with simulated("cuda"):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda place=None: (capability, 0))
        chosen = BackboneSettings(precision=asked, engine=engine)  # type: ignore[arg-type]
        assert resolved(chosen, device).precision == found


@pytest.mark.usefixtures("driver")
def test_without_a_gpu_it_is_fp32_and_so_are_identities() -> None:
    settings = BackboneSettings()
    assert settings.precision == "auto"
    assert settings.figures == "fp32"  # as what was stored before says
    assert resolved(settings, "cpu").precision == "fp32"
    if not torch.cuda.is_available():
        assert resolved(settings, "auto").precision == "fp32"


@pytest.mark.usefixtures("driver")
def test_a_backbone_takes_it_and_says_it() -> None:
    with simulated("cuda"):
        backbone = backbones.load("zsad-tiny", device="cuda", precision="auto")
        assert backbone.figures == "bf16"
        assert next(backbone.model.parameters()).dtype == torch.bfloat16
    assert backbones.load("zsad-tiny", precision="auto").figures == "fp32"


@pytest.mark.parametrize(
    ("kind", "convolutions", "matrices"),
    [
        ("fp32", False, "highest"),
        ("tf32", True, "high"),
        ("bf16", True, "highest"),
        ("fp16", True, "highest"),
    ],
)
def test_float32_products_are_what_is_said(kind: str, convolutions: bool, matrices: str) -> None:
    set_products(kind, torch.device("cuda"))
    assert torch.backends.cudnn.allow_tf32 is convolutions
    assert torch.get_float32_matmul_precision() == matrices


def test_tf32_is_refused_elsewhere() -> None:
    with pytest.raises(RequestError, match=r"backbone\.precision=tf32: of CUDA devices only"):
        set_products("tf32", torch.device("cpu"))

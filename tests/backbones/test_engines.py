"""Engines: whoever runs the encoder, the taps are torch's, and nobody is taken at his word."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from zsad.backbones import Backbone, load
from zsad.backbones.blocks import exact_gelu
from zsad.backbones.engines import choice, processor
from zsad.backbones.engines import packed as packed_module
from zsad.backbones.engines.choice import Work, check, choose, gmac
from zsad.backbones.engines.dispatch import Engines
from zsad.backbones.engines.interface import Facts
from zsad.backbones.engines.packed import PackedLinear, works
from zsad.backbones.engines.verification import Stamps, compare, pictures
from zsad.config import BackboneSettings
from zsad.errors import CellError, RequestError
from zsad.types import EncoderVariant, FeatureRequest, Tap

DEPTH = 5
EVERY_KIND = frozenset(
    [
        *(Tap(k) for k in ("cls", "cls_raw", "pre_tokens")),
        *(Tap(k, 2) for k in ("tokens", "tokens_proj", "mid", "window", "window_values")),
        *(Tap(k, 2) for k in ("window_values_norm", "window_values_block", "window_pixels")),
        *(Tap(k, l, 2) for k in ("vv", "vv_proj") for l in (1, DEPTH)),
        *(Tap(k, 4) for k in ("vv_ffn", "values", "values_proj", "values_norm", "values_block")),
    ]
)
AMD = Facts(vendor="AuthenticAMD", avx512=True, bf16=True, vnni=True)
INTEL = Facts(vendor="GenuineIntel", avx512=True, bf16=True, vnni=True)
INSTALLED = Facts(vendor="AuthenticAMD", avx512=True, openvino="2026.4.1")
MUCH = Work(gmac=606.0, depth=24, pictures=1000)
TINY = Work(gmac=8.3, depth=8, pictures=384, windows=True, width=192)  # `make demo`
ON_INTEL = replace(INTEL, openvino="2026.4.1")

needs_openvino = pytest.mark.skipif(
    not processor.version("openvino"), reason="OpenVINO is not installed (extra `cpu`)"
)
needs_packing = pytest.mark.skipif(not works(), reason="this torch has no packed linear layers")
ENGINES = [
    pytest.param("openvino", marks=needs_openvino),
    pytest.param("onednn", marks=needs_packing),
]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZSAD_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def on(clip_state: dict[str, Tensor], tmp_path: Path) -> Callable[..., Backbone]:
    """``on(engine, ...)``: the small CLIP with an engine."""
    path = tmp_path / "clip.pt"
    torch.save(clip_state, path)
    return lambda engine, **more: load("file", weights=path, engine=engine, **more)


def request_of(taps: frozenset[Tap], **variant: Any) -> FeatureRequest:
    return FeatureRequest(taps, EncoderVariant(**variant))


# ------------------------------------------------------------------------- the same taps
@pytest.mark.parametrize("engine", ENGINES)
def test_every_kind_of_tap_is_that_of_torch(
    engine: str, on: Callable[..., Backbone], backbone: Backbone, images: Tensor
) -> None:
    """Three pictures in turn, at a size that is not the weights' own."""
    run = on(engine)
    shown = torch.nn.functional.interpolate(images, 56)
    backbone.counters.reset()
    request = request_of(EVERY_KIND, pos_interp="bilinear", image_size=56)
    for image in (*shown.split(1), shown):
        wanted, found = (b.encode_image(image, request) for b in (backbone, run))
        assert found.grid == wanted.grid
        assert found.data.keys() == wanted.data.keys() == EVERY_KIND
        for tap, right in wanted.data.items():
            assert found[tap].dtype == right.dtype
            error = (found[tap] - right).norm() / right.norm()
            assert error <= 1e-5, f"{tap}: {error}"
    assert run.engines.account(request.variant)["name"] == engine
    assert run.counters == backbone.counters


@needs_openvino
def test_the_position_table_is_no_part_of_the_graph(on: Callable[..., Backbone]) -> None:
    """An enlarging that was recorded came out 2.5e-3 off."""
    from zsad.backbones.engines.recording import record

    encoder = on("torch").image_encoder(EncoderVariant(image_size=56))
    names = {str(node.target) for node in record(encoder, 56, [Tap("cls")]).graph.nodes}
    assert any("linear" in name for name in names)
    assert not any("upsample" in name for name in names)


@needs_openvino
@torch.no_grad()
def test_what_a_recording_makes_is_not_kept(on: Callable[..., Backbone], recipe: Any) -> None:
    """Window indices that were made within a recording were no numbers to anybody after it, and the
    first request for windows in a process failed in every engine.  The grid is nobody else's."""
    taps = frozenset([Tap("cls"), Tap("window", 4)])
    request = request_of(taps, image_size=88)
    run = on("openvino")
    found = run.encode_image(recipe.images(1, 88, 2), request)
    assert run.engines.account(request.variant)["name"] == "openvino"
    right = on("torch").encode_image(recipe.images(1, 88, 2), request)
    for tap in taps:
        assert compare(found[tap], right[tap]).error < 1e-5


@needs_openvino
def test_precision_and_threads_are_given_and_read_back(on: Callable[..., Backbone]) -> None:
    from zsad.backbones.engines import openvino_cpu
    from zsad.backbones.engines.recording import record

    model = openvino_cpu.convert(record(on("torch").image_encoder(), 40, [Tap("cls")]))
    made = openvino_cpu.compiled(model, "fp32", 1)
    assert made.get_property("INFERENCE_PRECISION_HINT").to_string() in ("f32", "float32")
    assert made.get_property("INFERENCE_NUM_THREADS") == 1


@needs_openvino
def test_no_socket_is_opened(
    on: Callable[..., Backbone], images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenVINO's tools would report that they were imported."""

    def refused(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refused)
    run = on("openvino")
    run.encode_image(images, request_of(frozenset([Tap("cls")]), image_size=40))
    assert run.engines.account(EncoderVariant(image_size=40))["name"] == "openvino"
    import sys

    assert sys.modules.get("openvino_telemetry") is None


@needs_openvino
def test_bfloat16_is_near_and_another_figure(
    on: Callable[..., Backbone], backbone: Backbone, images: Tensor
) -> None:
    if not processor.facts().bf16:
        pytest.skip("this processor does not multiply in bfloat16")
    request = request_of(frozenset([Tap("tokens", DEPTH)]), image_size=40)
    run = on("openvino", precision="bf16")
    wanted = backbone.encode_image(images, request)
    found = compare(
        run.encode_image(images, request)[Tap("tokens", DEPTH)], wanted[Tap("tokens", DEPTH)]
    )
    assert 1e-5 < found.error < 0.05
    assert run.figures == "bf16-openvino"


# --------------------------------------------------------------------------- no gradients
@needs_packing
def test_packed_weights_are_not_used_where_a_gradient_is_wanted() -> None:
    packed = PackedLinear(on=True)
    weight = torch.randn(6, 4, requires_grad=True)
    packed(torch.randn(2, 4), weight, None).sum().backward()
    assert weight.grad is not None


@needs_packing
def test_weights_that_change_are_packed_anew() -> None:
    packed = PackedLinear(on=True)
    x, weight = torch.randn(3, 4), torch.randn(6, 4)
    with torch.no_grad():
        packed(x, weight, None)
        weight.mul_(2)
        torch.testing.assert_close(packed(x, weight, None), x @ weight.T)


@needs_packing
@pytest.mark.parametrize("rows", [1, 7, 2048])
def test_a_gelu_behind_a_product_is_the_exact_one(rows: int) -> None:
    """The approximation by tanh is 5e-4 away."""
    packed = PackedLinear(on=True)
    generator = torch.Generator().manual_seed(rows)
    x, weight, bias = (
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in ((2, rows, 24), (96, 24), (96,))
    )
    wanted = torch.nn.functional.gelu(x @ weight.T + bias)
    with torch.no_grad():
        found = packed.gelu(x.float(), weight.float(), bias.float())
    assert (found - wanted).norm() / wanted.norm() < 2e-6
    assert packed.error is not None


@needs_packing
def test_only_an_exact_gelu_is_fused(on: Callable[..., Backbone], backbone: Backbone) -> None:
    """The small CLIP has QuickGELU, unless a variant says otherwise; both towers ask."""
    run = on("onednn")
    fused = {a: run.image_encoder(EncoderVariant(activation=a)) for a in ("weights", "gelu")}
    assert backbone.info.activation == "quick_gelu"
    assert [block.fused for block in fused["weights"].blocks] == [None] * DEPTH
    assert all(block.fused for block in fused["gelu"].blocks)
    approximate = torch.nn.GELU(approximate="tanh")
    assert not exact_gelu(approximate)


@needs_packing
def test_without_the_fused_operator_the_activation_is_torchs(
    on: Callable[..., Backbone], images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = request_of(frozenset([Tap("tokens", DEPTH)]), image_size=40, activation="gelu")
    wanted = on("torch").encode_image(images, request)[Tap("tokens", DEPTH)]
    asked = []
    for fuses in (True, False):
        monkeypatch.setattr(packed_module, "fuses", lambda fuses=fuses: asked.append(1) or fuses)
        found = on("onednn").encode_image(images, request)[Tap("tokens", DEPTH)]
        assert compare(found, wanted).error < 1e-5
    assert asked


@needs_packing
def test_a_fused_product_that_is_wrong_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def approximate(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
        return torch.nn.functional.gelu(packed_module.multiply(x, packed, bias), approximate="tanh")

    monkeypatch.setattr(packed_module, "multiply_gelu", approximate)
    x, weight, bias = torch.randn(3, 4), torch.randn(6, 4), torch.randn(6)
    with torch.no_grad():
        found = PackedLinear(on=True).gelu(x, weight, bias)
        torch.testing.assert_close(found, torch.nn.functional.gelu(x @ weight.T + bias))
    assert ["a product runs in torch, not on packed weights" in m for m in caplog.messages] == [
        True
    ]


@needs_packing
def test_text_goes_through_packed_weights(on: Callable[..., Backbone], backbone: Backbone) -> None:
    texts = ["a photo of a bottle", "a photo of a damaged metal nut"]
    torch.testing.assert_close(
        on("onednn").text_encoder().encode_texts(texts),
        backbone.text_encoder().encode_texts(texts),
        rtol=1e-5,
        atol=1e-6,
    )


# ---------------------------------------------------------------------------- verification
class Fake:
    """An engine that is right ``times`` times and then wrong."""

    name, version = "openvino", "0"

    def __init__(self, times: int) -> None:
        self.times = times

    def graph(self, encoder: Any, size: int, taps: Sequence[Tap]) -> Any:
        calls = 0

        def run(images: Tensor) -> dict[Tap, Tensor]:
            nonlocal calls
            calls += 1
            found = encoder.taps_of(images, taps)
            return found if calls <= self.times else {t: v + 1e-3 for t, v in found.items()}

        return run


class Faked(Engines):
    """Engines of a machine that has OpenVINO, and a fault in it."""

    def __init__(
        self,
        info: Any,
        made: Any,
        precision: str = "fp32",
        stamps: Stamps | None = None,
        asked: str = "openvino",
    ) -> None:
        super().__init__(info, "torch", precision, stamps=stamps)
        self.asked, self.made = asked, made

    def facts(self, device: str = "cpu") -> Facts:
        return INSTALLED

    def engine(self, name: str, facts: Facts) -> Any:
        return self.made


@pytest.mark.parametrize(("times", "chosen"), [(0, "torch"), (1, "torch"), (99, "openvino")])
def test_a_graph_that_goes_wrong_from_its_second_picture_on_is_not_used(
    times: int, chosen: str, backbone: Backbone, images: Tensor, caplog: pytest.LogCaptureFixture
) -> None:
    engines = Faked(backbone.info, Fake(times))
    encoder = backbone.image_encoder(EncoderVariant(image_size=40))
    with caplog.at_level(logging.WARNING):
        served = engines.served(encoder, (40, 40), [Tap("cls")])
        engines.served(encoder, (40, 40), [Tap("cls")])
    assert served.name == chosen
    assert len(caplog.messages) == (chosen == "torch")
    if caplog.messages:
        assert "the encoder runs in torch, not on openvino: its graph is" in caplog.messages[0]


def test_a_precision_that_is_not_reached_is_an_error(backbone: Backbone) -> None:
    """Torch's float32 in its place would be another figure than was asked for."""
    encoder = backbone.image_encoder(EncoderVariant(image_size=40))
    engines = Faked(backbone.info, Raising(), precision="bf16")
    with pytest.raises(CellError, match=r"backbone\.precision=bf16: ValueError: no such operator"):
        engines.served(encoder, (40, 40), [Tap("cls")])


class Raising:
    name, version = "openvino", "0"

    def graph(self, encoder: Any, size: int, taps: Sequence[Tap]) -> Any:
        raise ValueError("no such operator")


def test_a_stamp_saves_the_comparison_and_a_damaged_one_does_not(
    backbone: Backbone, tmp_path: Path
) -> None:
    stamps = Stamps(tmp_path)
    encoder = backbone.image_encoder(EncoderVariant(image_size=40))

    def served(times: int) -> str:
        engines = Faked(backbone.info, Fake(times), stamps=stamps)
        return engines.served(encoder, (40, 40), [Tap("cls")]).name

    assert served(99) == "openvino"
    (stamp,) = tmp_path.glob("*.json")
    assert served(0) == "openvino"  # not compared again
    kept = json.loads(stamp.read_text())
    for damage in ("{", "[]", json.dumps(kept | {"of": {}}), json.dumps(kept | {"error": "x"})):
        stamp.write_text(damage)
        assert served(0) == "torch"


def test_what_a_graph_depends_on_is_in_its_stamp(backbone: Backbone, tmp_path: Path) -> None:
    stamps = Stamps(tmp_path)
    for size, tap, precision in ((40, "cls", "fp32"), (48, "cls", "fp32"), (40, "cls_raw", "fp32")):
        engines = Faked(backbone.info, Fake(99), precision, stamps)
        encoder = backbone.image_encoder(EncoderVariant(image_size=size))
        engines.served(encoder, (size, size), [Tap(tap)])
    assert len(list(tmp_path.glob("*.json"))) == 3


def test_pictures_of_the_verification_differ_and_are_always_the_same() -> None:
    first, again = pictures(40), pictures(40)
    assert torch.equal(first, again)
    assert first.shape == (3, 3, 40, 40)
    assert min((a - b).norm() / a.norm() for a, b in zip(first, first.roll(1, 0))) > 0.3


def test_what_is_no_number_is_infinitely_wrong() -> None:
    right = torch.ones(1, 2)
    assert not compare(torch.tensor([[1.0, torch.nan]]), right).passes("bf16")
    assert not compare(torch.ones(1, 3), right).passes("fp32")
    assert compare(right, right).passes("fp32")
    assert not compare(torch.full((1, 3), torch.nan), torch.ones(1, 3)).passes("int8")
    assert not compare(1.06 * right, right).passes("int8")  # its cosine is 1
    assert compare(1.04 * right, right).passes("int8")


# ---------------------------------------------------------------------------------- choice
@pytest.mark.parametrize(
    ("facts", "work", "precision", "chosen"),
    [
        (INSTALLED, MUCH, "fp32", "openvino"),
        (INSTALLED, MUCH, "bf16", "torch"),  # another figure is never taken silently
        (INSTALLED, Work(606.0, 24, 3), "fp32", "torch"),
        (INSTALLED, Work(1.0, 6, 50), "fp32", "torch"),
        (INSTALLED, Work(1.0, 6, 100), "fp32", "onednn"),  # packing costs less than converting
        (Facts(device="cuda", openvino="2026.4.1"), MUCH, "fp32", "torch"),
        (AMD, MUCH, "fp32", "onednn"),
        (AMD, Work(606.0, 24, 3), "fp32", "torch"),
        (INTEL, MUCH, "fp32", "torch"),
        (ON_INTEL, MUCH, "fp32", "openvino"),
        (ON_INTEL, replace(MUCH, windows=True), "fp32", "torch"),
        (INTEL, TINY, "fp32", "onednn"),  # of narrow blocks more is between the products
        (ON_INTEL, TINY, "fp32", "onednn"),  # a conversion costs more than it would save yet
        (ON_INTEL, replace(TINY, pictures=1000), "fp32", "openvino"),
        (INTEL, replace(TINY, pictures=100), "fp32", "torch"),
        (INTEL, replace(TINY, width=512), "fp32", "torch"),
        (Facts(vendor="GenuineIntel"), TINY, "fp32", "torch"),  # not measured without AVX-512
        (INSTALLED, replace(MUCH, windows=True), "fp32", "openvino"),
        (Facts(), MUCH, "fp32", "torch"),
    ],
)
def test_auto_decides_from_facts(facts: Facts, work: Work, precision: str, chosen: str) -> None:
    assert choose("auto", precision, facts, work) == chosen


def test_bfloat16_is_called_slow_where_it_was_measured_to_be() -> None:
    assert INTEL.slow_bf16
    assert not any(f.slow_bf16 for f in (AMD, replace(INTEL, amx=True), Facts()))


@pytest.mark.parametrize(
    ("asked", "precision", "facts", "message"),
    [
        ("openvino", "fp32", Facts(), r"OpenVINO is not installed; `pip install 'zsad\[cpu\]'`"),
        ("openvino", "fp16", INSTALLED, "has no fp16 on a CPU"),
        ("openvino", "bf16", INSTALLED, "does not multiply in bfloat16"),
        (
            "openvino",
            "int8",
            INSTALLED,
            r"does not multiply 8-bit integers \(avx512_vnni or avx_vnni",
        ),
        ("openvino", "int8", Facts(device="cuda", vnni=True), "runs on a CPU, not on cuda"),
        ("onednn", "bf16", AMD, "packs float32 weights"),
        ("onednn", "fp32", Facts(device="cuda"), "runs on a CPU, not on cuda"),
    ],
)
def test_what_an_engine_cannot_run_is_refused(
    asked: str, precision: str, facts: Facts, message: str
) -> None:
    with pytest.raises(RequestError, match=rf"backbone\.engine={asked}: .*{message}"):
        check(asked, precision, facts)


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(RequestError, match=r"backbone\.engine=tpu: choose one of auto, torch"):
        load("zsad-tiny", engine="tpu")


def test_a_runtime_that_is_hidden_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "openvino", None)
    assert processor.version("openvino") == ""


def test_the_multiplications_of_a_plain_pass() -> None:
    """ViT-L/14 at 518 pixels: 24 blocks of 1370 tokens, the last one for the class row alone."""
    tokens, width = 1370, 1024
    block = 12 * tokens * width**2 + 2 * tokens**2 * width
    last = (2 * tokens + 1 + 1 + 8) * width**2 + 2 * tokens * width
    patches = 1369 * 3 * 14 * 14 * width
    wanted = (23 * block + last + patches) / 1e9
    assert gmac([Tap("cls")], 24, width, (37, 37), 14) == pytest.approx(wanted)
    assert choice.VERIFIED_ON == 3


# --------------------------------------------------------------------- what identities say
@pytest.mark.parametrize(
    ("engine", "precision", "figures", "trained_by"),
    [
        ("auto", "fp32", "fp32", ""),
        ("torch", "bf16", "bf16", ""),
        ("openvino", "fp32", "fp32", "openvino"),
        ("onednn", "fp32", "fp32", "onednn"),
        ("openvino", "bf16", "bf16-openvino", "openvino"),
        ("openvino", "int8", "int8-openvino", "openvino"),
    ],
)
def test_engines_enter_identities_where_figures_change(
    engine: Any, precision: Any, figures: str, trained_by: str
) -> None:
    chosen = BackboneSettings(engine=engine, precision=precision)
    assert (chosen.figures, chosen.trained_by) == (figures, trained_by)


def test_training_reads_torch_unless_an_engine_is_asked_for(backbone: Backbone) -> None:
    encoder = backbone.image_encoder(EncoderVariant(image_size=40))
    for asked, name in (("auto", "torch"), ("openvino", "openvino")):
        engines = Faked(backbone.info, Fake(99), asked=asked)
        engines.pictures = 10**9
        assert engines.served(encoder, (40, 40), [Tap("cls")]).name == "openvino"
        with engines.torch_unless_asked():
            assert engines.served(encoder, (40, 40), [Tap("cls")]).name == name


# ------------------------------------------------------------------------------- whole runs
@needs_openvino
def test_a_cell_of_an_engine_is_that_of_torch(tmp_path: Path) -> None:
    """Equal fingerprint, metrics to four digits; the record says who computed it."""
    import zsad

    found = {}
    for engine in ("torch", "openvino"):
        results = tmp_path / engine
        options = {"backbone": "zsad-tiny", "limit": 2, "results": str(results)}
        zsad.bench(
            methods="clip",
            datasets="synthetic",
            overrides=[f"backbone.engine={engine}", "backbone.image_size=96"],
            **options,
        )
        records = [json.loads(p.read_text()) for p in results.rglob("cells/**/*.json")]
        found[engine] = {r["category"]: r for r in records if "metrics" in r}
    assert found["torch"].keys() == found["openvino"].keys() != set()
    for category, right in found["torch"].items():
        one = found["openvino"][category]
        assert one["fingerprint"] == right["fingerprint"]
        assert one["info"]["engine"]["name"] == "openvino"
        assert right["info"]["engine"]["name"] == "torch"
        for name, value in right["metrics"].items():
            assert one["metrics"][name] == pytest.approx(value, abs=5e-5)

"""Precision ``int8``: which layers multiply in integers, how near they are, and what is refused."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from zsad import backbones
from zsad.backbones import Backbone
from zsad.backbones.engines import dispatch, openvino_cpu, processor
from zsad.backbones.engines.calibration import Calibration, measure
from zsad.backbones.engines.graph_cache import DESCRIPTION
from zsad.backbones.engines.interface import Examples
from zsad.backbones.engines.openvino_cpu import OpenVinoGraph
from zsad.backbones.engines.quantised import Input, QuantisedBlock, Weight, quantised
from zsad.backbones.engines.recording import record
from zsad.backbones.engines.verification import compare
from zsad.config import BackboneSettings
from zsad.errors import CellError, RequestError
from zsad.types import EncoderVariant, FeatureRequest, Tap

# of the first two blocks, so that graphs are small
TAPS = sorted({Tap("tokens", 1), Tap("vv_proj", 2, 2), Tap("values_proj", 2)})
REQUEST = FeatureRequest(frozenset(TAPS), EncoderVariant(image_size=40))
ASKED = {"engine": "openvino", "precision": "int8"}

needs_int8 = pytest.mark.skipif(
    not (processor.version("openvino") and processor.facts().vnni),
    reason="OpenVINO is not installed (extra `cpu`), or the processor has no VNNI",
)


@pytest.fixture(scope="module")
def examples(images: Tensor) -> Examples:
    return Examples(
        {"dataset": "drawn", "group": "train", "pictures": len(images)},
        lambda: "by the recipe",
        lambda info, variant: iter(images.split(1)),
    )


@pytest.fixture(scope="module")
def inputs(backbone: Backbone, images: Tensor) -> dict[str, Input]:
    return measure(backbone.image_encoder(REQUEST.variant), images.split(1))


@pytest.fixture
def load(
    clip_state: dict[str, Tensor],
    examples: Examples,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Backbone]:
    """``load()``: the small CLIP in int8, with a cache of the test's own."""
    monkeypatch.setenv("ZSAD_CACHE", str(tmp_path / "cache"))
    torch.save(clip_state, tmp_path / "clip.pt")
    given = {"weights": tmp_path / "clip.pt", "examples": examples, **ASKED}
    return lambda **more: backbones.load("file", **{**given, **more})


# ------------------------------------------------------------------------------ the numbers
def test_weights_are_rounded_by_output_channel() -> None:
    exact = torch.tensor([[1.27, -0.013, 0.004], [0.0, 0.0, 0.0], [-254.0, 3.0, 1.0]])
    found = Weight.of(exact)
    assert found.integers.tolist() == [[127, -1, 0], [0, 0, 0], [-127, 2, 0]]
    assert found.integers.dtype is torch.int8
    near = found.integers * found.steps
    assert ((near - exact).abs() <= found.steps / 2 + 1e-6).all()


@pytest.mark.parametrize("shifts", [(), (2, 0, -1)])
def test_a_layer_is_its_integers(
    shifts: tuple[int, ...], backbone: Backbone, inputs: dict[str, Input]
) -> None:
    """The product as integers give it, computed here by hand for the layer "up"."""
    of = backbone.image_encoder(REQUEST.variant).blocks[0]
    weight, bias = of.weights("up")
    given = Input(-1.0, 4.0, (*shifts, *[0] * (weight.shape[1] - 3)) if shifts else ())
    block = QuantisedBlock(of, 1, {**inputs, "1.up": given})
    x = torch.randn(6, weight.shape[1], generator=torch.Generator().manual_seed(0))
    factors = torch.ones(weight.shape[1])
    factors[: len(shifts)] = 2.0 ** torch.tensor(shifts)
    rounded = Weight.of(weight.detach() * factors)
    integers = (x / factors / given.step).round().add(given.zero).clamp(0, 255) - given.zero
    products = integers.long() @ rounded.integers.long().T
    wanted = products * given.step * rounded.steps.T + bias.detach()
    torch.testing.assert_close(block.product(x, "up"), wanted, rtol=1e-4, atol=1e-5)


@needs_int8
def test_linear_layers_run_in_integers_and_nothing_else_does(
    backbone: Backbone, inputs: dict[str, Input], images: Tensor
) -> None:
    encoder = quantised(backbone.image_encoder(REQUEST.variant), inputs)
    program = record(encoder, 40, TAPS)
    products = sum("fake_quantize" in str(node.target) for node in program.graph.nodes)
    made = openvino_cpu.compiled(openvino_cpu.convert(program), "int8", 1)
    found: dict[str, Counter[str]] = {}
    for node in made.get_runtime_model().get_ordered_ops():
        kind, precision = (
            node.get_rt_info()[k].astype(str) for k in ("layerType", "runtimePrecision")
        )
        found.setdefault(kind, Counter())[precision] += 1
    layers = found.pop("FullyConnected")
    assert layers["u8"] + layers["i8"] == products == 4 + 3
    # two taps are projected to the shared space, which stays exact
    assert layers.keys() - {"u8", "i8"} == {"f32"}
    assert layers["f32"] == 2
    assert found["Convolution"] == {"f32": 1}
    for kind in found.keys() - {"Const", "Input", "Output", "Reshape", "Transpose", "Reorder"}:
        assert found[kind].keys() <= {"f32", "i32"}, kind  # attention among them
    graph = OpenVinoGraph(made, TAPS, program)
    plain = backbone.image_encoder(REQUEST.variant)
    for image in images.split(1):
        with torch.no_grad():
            rounded, exact = encoder.taps_of(image, TAPS), plain.taps_of(image, TAPS)
        found_here = graph(image)
        # It computes what was recorded; farther on a value that falls on the other side of a
        # border between two integers takes others along.
        assert compare(found_here[TAPS[0]], rounded[TAPS[0]]).error < 3e-4
        for tap, value in found_here.items():
            assert 1e-3 < compare(value, exact[tap]).error < 0.05, tap


# ------------------------------------------------------------------------------- whole ways
@needs_int8
def test_int8_is_near_kept_and_equal_to_the_bit_again(
    load: Callable[..., Backbone],
    backbone: Backbone,
    images: Tensor,
    examples: Examples,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Calibrated and converted once; what is damaged, foreign or without its end is made anew."""
    made: list[int] = []
    convert = openvino_cpu.convert
    monkeypatch.setattr(openvino_cpu, "convert", lambda p: made.append(1) or convert(p))
    wanted = backbone.encode_image(images, REQUEST)

    def features() -> dict[Tap, Tensor]:
        run = load()
        assert run.figures == "int8-openvino"
        found = run.encode_image(images, REQUEST).data
        account = run.engines.account(REQUEST.variant)
        assert account["name"] == "openvino"
        told = account["calibration"]
        assert (told["dataset"], told["pictures"], told["image_size"]) == ("drawn", 3, 40)
        assert len(told["digest"]) == 16
        return dict(found)

    first = features()
    for tap, right in wanted.data.items():
        assert 1e-4 < compare(first[tap], right).error < 0.05
    graphs, ranges = (tmp_path / "cache" / "engines" / n for n in ("graphs", "calibrations"))
    (graph,), (calibration,) = graphs.glob("*/graph.bin"), ranges.glob("*/ranges.json")

    def same(conversions: int) -> None:
        again = features()
        assert all(torch.equal(again[tap], value) for tap, value in first.items())
        assert len(made) == conversions

    same(1)
    graph.write_bytes(graph.read_bytes()[:-4] + b"\0\0\0\1")
    same(2)
    told = graph.parent / DESCRIPTION
    told.write_text(json.dumps({**json.loads(told.read_text()), "of": {"weights": "other"}}))
    same(3)
    told.unlink()  # as a killed process leaves it
    (calibration.parent / DESCRIPTION).unlink()
    same(4)
    calibration.write_text("{}")
    same(4)
    before = [p.name for p in graphs.glob("*/graph.bin")]
    darker = Examples(
        {**examples.of, "dataset": "darker"},
        examples.drawn_by,
        lambda info, variant: (0.7 * image for image in images.split(1)),
    )
    load(examples=darker).encode_image(images, REQUEST)  # another calibration, another graph
    assert len(list(graphs.glob("*/graph.bin"))) == len(before) + 1


def widened(inputs: Mapping[str, Input], by: float) -> dict[str, Input]:
    return {n: Input(by * g.low, by * g.high, g.shifts) for n, g in inputs.items()}


@needs_int8
@pytest.mark.parametrize("by", [8.0, 0.4])
def test_ranges_that_do_not_fit_are_found_out(
    by: float,
    load: Callable[..., Backbone],
    inputs: dict[str, Input],
    images: Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Too wide, all values are coarse; too narrow, the outer ones are cut off."""
    other = Calibration(widened(inputs, by), {})
    monkeypatch.setattr(dispatch, "of_backbone", lambda *_: other)
    with pytest.raises(CellError, match=r"precision=int8: its graph is \S+ from torch .*=fp32"):
        load().encode_image(images, REQUEST)


def test_windows_leave_nothing_of_a_recording_behind(
    backbone: Backbone, images: Tensor, inputs: dict[str, Input]
) -> None:
    """Their indices were kept while they were recorded, and no torch pass came through after."""
    taps, variant = [Tap("window", 4)], EncoderVariant(image_size=48)
    record(backbone.image_encoder(variant), 48, taps)
    shown = torch.nn.functional.interpolate(images, 48)
    found = backbone.image_encoder(variant).taps_of(shown, taps)[taps[0]]
    assert bool(torch.isfinite(found).all())


# --------------------------------------------------------------------------------- refusals
@pytest.mark.parametrize("engine", ["auto", "torch", "onednn"])
def test_int8_is_of_openvino_alone(engine: Any) -> None:
    message = (
        rf"precision=int8: only OpenVINO has it, not backbone\.engine={engine}; use .*openvino"
    )
    with pytest.raises(RequestError, match=message):
        backbones.load("zsad-tiny", precision="int8", engine=engine)
    from zsad.backbones.precision import resolved

    with pytest.raises(RequestError, match=message):
        resolved(BackboneSettings(precision="int8", engine=engine), "cpu")


def test_int8_needs_pictures() -> None:
    if not (processor.version("openvino") and processor.facts().vnni):
        pytest.skip("refused before")
    with pytest.raises(RequestError, match=r"give examples=zsad\.data\.calibration\.EXAMPLES"):
        backbones.load("zsad-tiny", **ASKED)


@needs_int8
def test_pictures_of_another_shape_are_not_computed_in_another_precision(
    load: Callable[..., Backbone], images: Tensor
) -> None:
    wide = torch.nn.functional.interpolate(images, (40, 56))
    free = FeatureRequest(REQUEST.taps, EncoderVariant(image_size=0))
    with pytest.raises(CellError, match=r"int8: takes square pictures alone, not 56 x 40 pixels"):
        load().encode_image(wide, free)


def test_int8_is_never_chosen_by_itself() -> None:
    assert BackboneSettings(engine="openvino").figures == "fp32"
    assert BackboneSettings(precision="int8", engine="openvino").figures == "int8-openvino"

"""The encoder of several methods in one pass, by every engine, beside open_clip's own tower.

    python -m zsad.benchmarks.speed.engines [--quick] [--backbone NAME] [--methods A,B] [--json]

One random image goes through open_clip's ``encode_image`` in torch and, with the taps of all
methods merged, through torch, oneDNN's packed layers and OpenVINO in float32 and (where the
processor multiplies in them) bfloat16 and 8-bit integers.  The integers' ranges are those of the
first pictures of a calibration: all of them take minutes at ViT-L, and change no time.  Engines
that are not installed are left out.  The ways take turns; ratios are taken within a turn.  The
peak is the best float32 matrix product of any engine in the same run; beside it stand the one in
8-bit integers and an attention.  How far every engine is from torch is printed beside its time.
Weights are random.

``--clock cpu`` counts this process' own work; ``--quick`` takes the bundled small backbone.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import torch

from zsad import backbones, registry
from zsad.backbones import Backbone
from zsad.backbones.clip_vit import ImageEncoder
from zsad.backbones.engines import openvino_cpu, processor
from zsad.backbones.engines.calibration import measure as measure_ranges
from zsad.backbones.engines.choice import gmac
from zsad.backbones.engines.interface import Graph
from zsad.backbones.engines.openvino_cpu import OpenVino
from zsad.backbones.engines.packed import OneDnn, works
from zsad.backbones.engines.quantised import Weight, quantised
from zsad.backbones.engines.verification import compare, pictures
from zsad.benchmarks.speed import measure
from zsad.benchmarks.speed.end_to_end import PLAIN, plain_tower
from zsad.data.calibration import EXAMPLES
from zsad.method import feature_request, new_method
from zsad.types import EncoderVariant, Tap

HEADS = (16, 1370, 64)  # of the attention that its time is measured with
CALIBRATED_ON = 4  # pictures
WAYS = ("onednn", "openvino", "openvino bf16", "openvino int8")  # beside torch


def merged_taps(backbone: Backbone, names: Sequence[str]) -> list[Tap]:
    """The taps of all methods, as one pass delivers them."""
    found: set[Tap] = set()
    for name in names:
        entry = registry.method(name)
        found |= feature_request(new_method(entry, entry.resolve(), backbone.info), 0).taps
    return sorted(found)


def engine_graphs(
    backbone: Backbone, size: int, taps: Sequence[Tap], wanted: Collection[str] = WAYS
) -> dict[str, Graph]:
    """What those of the ``wanted`` engines that are here make of the encoder, torch in any case."""
    encoder = backbone.image_encoder(EncoderVariant(image_size=size))
    facts = processor.facts()
    found: dict[str, Graph] = {"torch": lambda images: encoder.taps_of(images, taps)}
    if works() and "onednn" in wanted:
        found["onednn"] = OneDnn(backbone.engines.packed).graph(encoder, size, taps)
    able = {"fp32": True, "bf16": facts.bf16, "int8": facts.vnni}
    for precision in able if facts.openvino else ():
        way = "openvino" if precision == "fp32" else f"openvino {precision}"
        if not able[precision] or way not in wanted:
            continue
        recorded = _rounded(backbone, encoder) if precision == "int8" else encoder
        found[way] = OpenVino(precision, facts.openvino).graph(recorded, size, taps)
    return found


def _rounded(backbone: Backbone, encoder: ImageEncoder) -> ImageEncoder:
    """The encoder in 8-bit integers, on the first pictures of a calibration."""
    shown = EncoderVariant(image_size=backbone.info.native_size or backbone.info.image_size)
    some = itertools.islice(EXAMPLES.images(backbone.info, shown), CALIBRATED_ON)
    return quantised(encoder, measure_ranges(encoder, some))


def peaks(clock: str) -> dict[str, float]:
    """Multiply-accumulates a second of one large product, by engine and precision, and of one
    attention of ViT-L at 518 pixels, which 8-bit integers leave in float32."""
    facts = processor.facts()
    more: dict[str, tuple[measure.Way, float]] = {}
    if facts.openvino and facts.bf16:
        weight = torch.randn(measure.SHAPE[2], measure.SHAPE[1])
        product = measure.openvino_request("bf16", *measure.openvino_product(weight))
        more["openvino bf16"] = product, float(math.prod(measure.SHAPE))
    if facts.openvino and facts.vnni:
        product = measure.openvino_request("int8", *_rounded_product())
        more["openvino int8"] = product, float(math.prod(measure.SHAPE))
    if facts.openvino:
        heads, tokens, width = HEADS
        attention = measure.openvino_request("fp32", *_attention())
        more["openvino attention"] = attention, float(2 * heads * tokens**2 * width)
    return measure.peaks(clock, more=more)


def _rounded_product() -> tuple[Any, list[Any]]:
    """A product of :data:`measure.SHAPE` in 8-bit integers, as the encoder's are."""
    op: Any = openvino_cpu.runtime().opset13
    rows, inner, columns = measure.SHAPE
    given = op.parameter([rows, inner], np.float32)
    ends = [op.constant(np.float32(end)) for end in (-4.0, 4.0)]
    near = op.fake_quantize(given, *ends, *ends, 256)
    integers, steps = (t.numpy() for t in Weight.of(torch.randn(columns, inner)))
    weight = op.multiply(op.convert(op.constant(integers), np.float32), op.constant(steps))
    return op.matmul(near, weight, False, True), [given]


def _attention() -> tuple[Any, list[Any]]:
    op: Any = openvino_cpu.runtime().opset13
    given = [op.parameter([1, *HEADS], np.float32) for _ in range(3)]
    return op.scaled_dot_product_attention(*given, causal=False), given


@torch.no_grad()
def measure_engines(options: argparse.Namespace) -> dict[str, Any]:
    """Time all ways and return the document."""
    weights = None if options.backbone == "zsad-tiny" else "random"
    backbone = backbones.load(options.backbone, weights=weights, image_size=options.image_size)
    size, info = backbone.info.image_size, backbone.info
    taps = merged_taps(backbone, options.methods.split(","))
    tower = plain_tower(backbone, torch.float32)
    image = pictures(size)[:1]
    graphs = engine_graphs(backbone, size, taps, options.ways.split(","))
    right = graphs["torch"](image)
    off = {}
    for name, graph in graphs.items():
        graph(image)  # from the second inference on
        seen = [compare(value, right[tap]) for tap, value in graph(image).items()]
        off[name] = {"error": max(f.error for f in seen), "cosine": min(f.cosine for f in seen)}
    tower(image)
    ways: dict[str, Callable[[], Any]] = {PLAIN: lambda: tower(image)}
    for name, graph in graphs.items():
        ways[name] = functools.partial(graph, image)
    seconds = measure.interleaved(ways, options.repeats, "cpu", options.clock)
    found = peaks(options.clock)
    peak = max(v for name, v in found.items() if " " not in name)  # of float32
    work = gmac(taps, info.depth, info.width, info.grid(size), info.patch)
    rows = [
        {
            "way": name,
            "seconds_per_image": measure.spread(values),
            "times_plain": measure.ratio(values, seconds[PLAIN]),
            "share_of_peak": None
            if name == PLAIN
            else work * 1e9 / measure.spread(values)["median"] / peak,
            **off.get(name, {}),
        }
        for name, values in seconds.items()
    ]
    return {
        "conditions": measure.conditions(
            "cpu",
            backbone=options.backbone,
            methods=options.methods,
            image_size=size,
            repeats=options.repeats,
            clock=options.clock,
            processor=processor.name(),
            openvino=processor.version("openvino") or "absent",
            peak_gmac_per_second={k: round(v / 1e9, 1) for k, v in found.items()},
            gmac_per_image=round(work, 1),
        ),
        "ways": rows,
    }


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run it from the command line."""
    parser = measure.options(__doc__)
    parser.add_argument("--backbone", default="vit-l-14-336")
    parser.add_argument("--image-size", type=int, default=0)
    parser.add_argument("--methods", default="filo,faprompt,kanoclip,anomalyclip")
    parser.add_argument("--ways", default=",".join(WAYS), help="those to take beside torch")
    parser.add_argument("--quick", action="store_true", help="the bundled small backbone")
    options = parser.parse_args(argv)
    if options.quick:
        options.backbone, options.image_size = "zsad-tiny", options.image_size or 96
    torch.set_num_threads(options.threads)
    document = measure_engines(options)
    if options.json:
        print(json.dumps(document, indent=2))
        return document
    print(measure.headline(document["conditions"]))
    for row in document["ways"]:
        exact = f", {row['error']:.1e} from torch" if "error" in row else ""
        times = measure.shown(row["times_plain"])
        print(f"{row['way']:>24}: {measure.shown(row['seconds_per_image'], digits=3)} s"
              f" an image, {times} of plain{exact}")  # fmt: skip
    return document


if __name__ == "__main__":
    main()

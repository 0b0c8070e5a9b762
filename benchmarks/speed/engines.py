"""The encoder of several methods in one pass, by every engine, beside open_clip's own tower.

    python -m zsad.benchmarks.speed.engines [--quick] [--backbone NAME] [--methods A,B] [--json]

One random image goes through open_clip's ``encode_image`` in torch and, with the taps of all
methods merged, through torch, oneDNN's packed layers and OpenVINO in float32 and (where the
processor multiplies in it) bfloat16.  Engines that are not installed are left out.  The ways take
turns; ratios are taken within a turn.  The peak is the best matrix product of any engine in the
same run.  How far every engine is from torch is printed beside its time.  Weights are random.

``--clock cpu`` counts this process' own work; ``--quick`` takes the bundled small backbone.
"""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Callable, Sequence
from typing import Any

import torch

from zsad import backbones, registry
from zsad.backbones import Backbone
from zsad.backbones.engines import processor
from zsad.backbones.engines.choice import gmac
from zsad.backbones.engines.interface import Graph
from zsad.backbones.engines.openvino_cpu import OpenVino
from zsad.backbones.engines.packed import OneDnn, works
from zsad.backbones.engines.verification import compare, pictures
from zsad.benchmarks.speed import measure
from zsad.benchmarks.speed.end_to_end import PLAIN, plain_tower
from zsad.method import feature_request, new_method
from zsad.types import EncoderVariant, Tap


def merged_taps(backbone: Backbone, names: Sequence[str]) -> list[Tap]:
    """The taps of all methods, as one pass delivers them."""
    found: set[Tap] = set()
    for name in names:
        entry = registry.method(name)
        found |= feature_request(new_method(entry, entry.resolve(), backbone.info), 0).taps
    return sorted(found)


def engine_graphs(backbone: Backbone, size: int, taps: Sequence[Tap]) -> dict[str, Graph]:
    """What every engine that is here makes of the encoder."""
    encoder = backbone.image_encoder(EncoderVariant(image_size=size))
    facts = processor.facts()
    found: dict[str, Graph] = {"torch": lambda images: encoder.taps_of(images, taps)}
    if works():
        found["onednn"] = OneDnn(backbone.engines.packed).graph(encoder, size, taps)
    if facts.openvino:
        found["openvino"] = OpenVino("fp32", facts.openvino).graph(encoder, size, taps)
        if facts.bf16:
            found["openvino bf16"] = OpenVino("bf16", facts.openvino).graph(encoder, size, taps)
    return found


@torch.no_grad()
def measure_engines(options: argparse.Namespace) -> dict[str, Any]:
    """Time all ways and return the document."""
    weights = None if options.backbone == "zsad-tiny" else "random"
    backbone = backbones.load(options.backbone, weights=weights, image_size=options.image_size)
    size, info = backbone.info.image_size, backbone.info
    taps = merged_taps(backbone, options.methods.split(","))
    tower = plain_tower(backbone, torch.float32)
    image = pictures(size)[:1]
    graphs = engine_graphs(backbone, size, taps)
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
    found = measure.peaks(options.clock)
    peak = max(found.values())
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
            engine="as named",
            backbone=options.backbone,
            methods=options.methods,
            image_size=size,
            repeats=options.repeats,
            clock=options.clock,
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

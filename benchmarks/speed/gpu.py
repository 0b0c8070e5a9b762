"""Is a GPU right, and how fast is it: everything in a few minutes.

    python -m zsad.benchmarks.speed.gpu [--device cuda] [--precision bf16] [--batch 8] [--quick]

Speed: images a second, share of the measured matrix-product peak and memory of every method and of
all together (``end_to_end``), and by method the kernels, copies and waits that torch's profiler
counts.  Equality: the cells of all methods on generated images with the bundled backbone, on the
device in float32 and in ``--precision``, against those of the CPU; and once more with little
memory, which may change no figure.  ``--device cpu --quick`` rehearses it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, supported_activities

import zsad
from zsad import backbones, registry
from zsad.backbones.backbone import PRECISIONS
from zsad.benchmarks.speed import end_to_end
from zsad.benchmarks.speed.end_to_end import Pipeline

# what the profiler calls them
CALLS = {
    "launches": ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel"),
    "waits": ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize"),
    "copies": ("cudaMemcpyAsync", "cudaMemcpy"),
}
MEMORY = 350e6  # bytes beside what is in use, in the run with little memory
Cells = dict[tuple[str, str], dict[str, float | None]]


def calls(pipeline: Pipeline, names: Sequence[str], batch: int) -> dict[str, dict[str, int]]:
    """Launches, waits and copies of one batch by method, and of all together."""
    backbone = pipeline.backbone
    size, device = backbone.info.image_size, backbone.device
    images = torch.randn(batch, 3, size, size).to(device)
    masks = torch.zeros(batch, size, size, dtype=torch.bool)
    masks[::2, 9:30, 9:30] = True
    kinds = [ProfilerActivity.CPU]
    if device.type == "cuda" and ProfilerActivity.CUDA in supported_activities():
        kinds.append(ProfilerActivity.CUDA)  # without it calls of the driver are not seen
    found = {}
    for way in [[name] for name in names] + [list(names)]:
        run = partial(pipeline.run, way, images, masks)
        for _ in range(2):  # constants and prompts are made once
            run()
        with profile(activities=kinds) as seen:
            run()
        events = seen.key_averages()
        found["+".join(way)] = {
            kind: sum(e.count for e in events if e.key in keys) for kind, keys in CALLS.items()
        }
    return found


def swept(device: str, limit: int, precision: str, methods: str = "all") -> tuple[Cells, list[Any]]:
    """The cells of methods on generated images, and what failed."""
    with tempfile.TemporaryDirectory() as folder:
        document = zsad.bench(
            methods,
            "synthetic",
            backbone="zsad-tiny",
            limit=limit,
            device=device,
            untrained=any(m.trained for m in registry.select_methods(methods)),
            results=folder,
            overrides=[f"backbone.precision={precision}", "run.batch_size=16"],
        )
    cells = {(c["method"], c["category"]): c["metrics"] for c in document["cells"]}
    return cells, document["failed"]


def apart(found: Cells, wanted: Cells) -> float:
    """The largest difference of any metric; infinite where cells or values are missing."""
    if found.keys() != wanted.keys():
        return float("inf")
    worst = 0.0
    for key, metrics in wanted.items():
        for name, value in metrics.items():
            other = found[key][name]
            if (value is None) != (other is None):
                return float("inf")
            if value is not None and other is not None:
                worst = max(worst, abs(value - other))
    return worst


def equality(device: str, precision: str, quick: bool) -> dict[str, float]:
    """The largest differences of any metric, by comparison."""
    limit, methods = (2, "clip") if quick else (6, "all")
    wanted, _ = swept("cpu", limit, "fp32", methods)
    found = {}
    for kind in ("fp32", precision):
        cells, failed = swept(device, limit, kind, methods)
        found[f"{device} {kind} - cpu fp32"] = float("inf") if failed else apart(cells, wanted)
    some, many = ("clip", 4) if quick else ("filo,alfa,clip,musc", 16)
    ample, _ = swept(device, many, "fp32", some)
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
        total = torch.cuda.mem_get_info()[1]
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + MEMORY) / total)
    scarce, failed = swept(device, many, "fp32", some)
    if device.startswith("cuda"):
        torch.cuda.set_per_process_memory_fraction(1.0)
    found["little memory - ample"] = float("inf") if failed else apart(scarce, ample)
    return found


def show(document: Mapping[str, Any]) -> None:
    """Print the document as text."""
    end_to_end.show(document["speed"])
    print("a batch, by torch's profiler:")
    for name, counts in document["calls"].items():
        print(f"  {name:44}" + ", ".join(f"{n} {kind}" for kind, n in counts.items()))
    print("largest difference of any metric of any cell:")
    for name, value in document["equality"].items():
        print(f"  {name:44}{value:.1e}")


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, check, print and return the document.  Leaves with 2 where there is no device."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--precision", choices=sorted(PRECISIONS), default="bf16")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--image-size", type=int, default=518)
    parser.add_argument("--methods", default="filo,faprompt,kanoclip,anomalyclip")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="zsad-tiny, few images")
    options = parser.parse_args(arguments)
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print(
            "no CUDA device: nothing is measured; --device cpu --quick rehearses", file=sys.stderr
        )
        raise SystemExit(2)
    words = ["--device", options.device, "--precision", options.precision]
    words += ["--batch", str(options.batch), "--repeats", str(options.repeats)]
    words += ["--methods", options.methods, "--json"]
    words += ["--quick"] if options.quick else ["--image-size", str(options.image_size)]
    speed = _quietly(words)
    names = options.methods.split(",")
    backbone = backbones.load(
        "zsad-tiny" if options.quick else "vit-l-14-336",
        weights=None if options.quick else "random",
        image_size=0 if options.quick else options.image_size,
        precision=options.precision,
        device=options.device,
    )
    document = {
        "speed": speed,
        "calls": calls(Pipeline(backbone, names), names, options.batch),
        "equality": equality(options.device, options.precision, options.quick),
    }
    if options.json:
        print(json.dumps(document, indent=2))
    else:
        show(document)
    return document


def _quietly(words: list[str]) -> dict[str, Any]:
    """What ``end_to_end`` measures, without its print."""
    parsed = end_to_end.parser().parse_args(words)
    torch.set_num_threads(parsed.threads)
    if parsed.quick:
        parsed.backbone = "zsad-tiny"
    return end_to_end.measure_ways(parsed)


if __name__ == "__main__":
    main()

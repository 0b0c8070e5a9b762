"""What the speed benchmarks share: interleaved timing, spread, work counts, conditions.

Ways that are compared take turns, so that a machine that slows down slows all of them, and
ratios are taken within a turn.  Figures are medians with the smallest and largest value.
"""

from __future__ import annotations

import argparse
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zsad.backbones.engines import openvino_cpu, processor
from zsad.backbones.engines.packed import PackedLinear, works

SHAPE = (1370, 1024, 4096)  # of the product that a peak is measured with
Way = Callable[[], Any]


def options(doc: str | None, *, repeats: int = 3, threads: int = 1) -> argparse.ArgumentParser:
    """The options that the benchmarks share; ``doc``: the script's docstring.  A script adds its
    own, and ``--quick`` with what it means there."""
    parser = argparse.ArgumentParser(description=(doc or "").split("\n")[0])
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=threads)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--json", action="store_true")
    return parser


def now(device: str, clock: str = "wall") -> float:
    """Seconds of a clock.  ``cpu`` counts the work of all threads of this process, which other
    processes hardly disturb; on a GPU only ``wall`` makes sense, and waits for the device."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.process_time() if clock == "cpu" else time.perf_counter()


def interleaved(
    ways: Mapping[str, Way], repeats: int, device: str = "cpu", clock: str = "wall"
) -> dict[str, list[float]]:
    """Call every way in turn, ``repeats`` times; return their seconds.  Warm up before."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            start = now(device, clock)
            way()
            seconds[name].append(now(device, clock) - start)
    return seconds


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, smallest and largest value."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratio(ones: Sequence[float], others: Sequence[float]) -> dict[str, float]:
    """Spread of ``ones`` / ``others``, turn by turn."""
    return spread([a / b for a, b in zip(ones, others, strict=True)])


def shown(values: Mapping[str, float], scale: float = 1.0, digits: int = 2) -> str:
    """``median (min-max)`` as text."""
    median, low, high = (scale * values[k] for k in ("median", "min", "max"))
    return f"{median:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def macs(work: Way) -> float:
    """Multiply-accumulates of the matrix products, convolutions and attentions of one call."""
    from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

    # The counter passes shapes for tensors, and knows attention on GPUs only.
    def attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return int(sdpa_flop_count(query, key, value))

    def whole_attention(query: Any, *_: Any, **__: Any) -> int:
        rows, length, width = query  # four projections, then q k^T and its product with v
        return int(2 * rows * length * width * (4 * width + 2 * length))

    aten = torch.ops.aten
    known = {
        aten._scaled_dot_product_flash_attention_for_cpu: attention,
        aten._native_multi_head_attention: whole_attention,
    }
    with FlopCounterMode(display=False, custom_mapping=known) as counter:
        work()
    return float(counter.get_total_flops() / 2)


def peaks(
    clock: str, repeats: int = 5, more: Mapping[str, tuple[Way, float]] | None = None
) -> dict[str, float]:
    """Multiply-accumulates a second of one large float32 product, by engine.

    ``more``: further ways by name, each with its multiply-accumulates, measured in the same turns.
    """
    rows, inner, columns = SHAPE
    x, weight = torch.randn(rows, inner), torch.randn(columns, inner)
    ways: dict[str, Way] = {"torch": lambda: torch.nn.functional.linear(x, weight)}
    if works():
        packed = PackedLinear(on=True)
        ways["onednn"] = lambda: packed(x, weight, None)
    if processor.version("openvino"):
        ways["openvino"] = openvino_request("fp32", *openvino_product(weight), x)
    work = dict.fromkeys(ways, float(rows * inner * columns))
    for name, (way, macs_of_it) in (more or {}).items():
        ways[name], work[name] = way, macs_of_it
    with torch.no_grad():
        for way in ways.values():
            way()
        seconds = interleaved(ways, repeats, "cpu", clock)
    return {name: work[name] / min(values) for name, values in seconds.items()}


def openvino_product(weight: Tensor) -> tuple[Any, list[Any]]:
    """The product of an input of :data:`SHAPE` with a weight [out, in], as an OpenVINO graph."""
    op: Any = openvino_cpu.runtime().opset13
    given = op.parameter(list(SHAPE[:2]), np.float32)
    return op.matmul(given, op.constant(weight.numpy()), False, True), [given]


def openvino_request(precision: str, result: Any, given: list[Any], *values: Tensor) -> Way:
    """One call of an OpenVINO graph from ``given`` to ``result``; without values, random ones."""
    model = openvino_cpu.runtime().Model([result], given)
    made = openvino_cpu.compiled(model, precision, torch.get_num_threads())
    request = made.create_infer_request()
    chosen = values or [torch.randn(*(int(n) for n in one.shape)) for one in given]
    fed = {i: value.numpy() for i, value in enumerate(chosen)}
    return lambda: request.infer(fed)


def peak_macs(device: str, dtype: torch.dtype, repeats: int = 5, clock: str = "wall") -> float:
    """The most multiply-accumulates a second that a matrix product of the encoder's kind reaches
    here: the best of all engines and, on a GPU, of some shapes."""
    if device == "cpu" and dtype == torch.float32:
        return max(peaks(clock, repeats).values())
    shapes = [(1370, 1024, 4096), (4096, 1024, 4096)]
    if device.startswith("cuda"):
        shapes = [(8192, 8192, 8192), (16384, 1024, 4096), (16384, 4096, 1024)]
    best = 0.0
    for m, k, n in shapes:
        a = torch.randn(m, k, device=device).to(dtype)
        b = torch.randn(n, k, device=device).to(dtype)

        def product(a: torch.Tensor = a, b: torch.Tensor = b) -> None:
            torch.nn.functional.linear(a, b)

        product()
        for seconds in interleaved({"product": product}, repeats, device, clock)["product"]:
            best = max(best, m * k * n / seconds)
    return best


def memory_mib(device: str) -> dict[str, float]:
    """Peak memory of the process so far, and of the device since the last reset."""
    unit = 1 if sys.platform == "darwin" else 1024  # kilobytes on Linux
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
    found = {"host": host}
    if device.startswith("cuda"):
        found["device"] = torch.cuda.max_memory_allocated() / 2**20
    return found


def conditions(device: str = "cpu", **more: Any) -> dict[str, Any]:
    """What a figure depends on besides the code."""
    name = torch.cuda.get_device_name() if device.startswith("cuda") else platform.machine()
    return {
        "engine": "torch",
        **more,
        "device": device,
        "machine": name,
        "processor": processor.name(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def headline(given: Mapping[str, Any]) -> str:
    """Conditions as one line of text."""
    return ", ".join(f"{k} {v}" for k, v in given.items())

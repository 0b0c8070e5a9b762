"""What methods ask of a GPU, counted on a simulated one, and what that would take at best.

    python -m tests.gpu_counts [--batch 8] [--image-size 518] [--compile]

ViT-L/14@336 in bf16: kernels, waits, copies and bytes of a batch by method, metrics included, and a
roofline: every kernel takes what its arithmetic or its memory traffic needs on an H200-class device
at the shares of its peak that are usual, at least 2.5 us; a launch takes the host 8 us and a wait
20.  Between two waits host and device work side by side, so that the longer of the two counts.
These rates are assumptions, not measurements: `make speed-gpu` measures.  :data:`BEFORE` is the
same pricing of commit c8305d8, from its review.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch

from tests.fake_cuda import H200, Cost, Gpu, simulated
from zsad import backbones, registry
from zsad.backbones.batch_size import Portions
from zsad.config import MetricSettings
from zsad.metrics import CategoryMetrics
from zsad.metrics.regions import BatchRegions
from zsad.on_device import algorithms
from zsad.scoring import Scorer, encode
from zsad.types import Category, FeatureRequest, ImageFeatures, Scored

T = TypeVar("T")

FOUR = "filo,faprompt,kanoclip,anomalyclip"
BEFORE = {  # images a second of batches of 8, "as written"
    FOUR: 87,
    "filo": 136,
    "faprompt": 174,
    "kanoclip": 171,
    "anomalyclip": 190,
    "clip": 210,
    "aprilgan": 200,
    "winclip": 26,
    "alfa": 25,
}
NUT = Category("mvtec", "metal_nut", "metal nut")
WITHOUT_BOXES = {"filo": {"grounding": False}}
HALF = (torch.bfloat16, torch.float16)
FLOPS = {"product": 790e12 * 0.75, "attention": 790e12 * 0.5, "single": 60e12 * 0.8}
TF32 = 237e12
BANDWIDTH = 4.8e12 * 0.8
SHORTEST, LAUNCH, WAIT = 2.5e-6, 8e-6, 20e-6  # seconds


def seconds(cost: Cost) -> float:
    """What a kernel takes the device."""
    rate = FLOPS["attention"] if cost.name == "attention" else FLOPS["product"]
    if cost.dtype not in HALF:
        rate = TF32 if "convolution" in cost.name else FLOPS["single"]
    return max(SHORTEST, cost.flop / rate, cost.moved / BANDWIDTH)


@dataclass
class Stage:
    """Kernels, waits and seconds of device and host of one part of a batch."""

    name: str
    kernels: int
    waits: int
    device: float

    @property
    def host(self) -> float:
        return self.kernels * LAUNCH + self.waits * WAIT


class Counted:
    """The stages of a batch, as they are worked through."""

    def __init__(self, gpu: Gpu) -> None:
        self.gpu, self.stages = gpu, list[Stage]()

    def stage(self, name: str, work: Callable[[], T]) -> T:
        """Do a part and note what it took."""
        assert self.gpu.cost is not None
        kernels, waits, at = self.gpu.launched, self.gpu.waits.total(), len(self.gpu.cost)
        made = work()
        spent = sum(map(seconds, self.gpu.cost[at:]))
        self.stages.append(
            Stage(name, self.gpu.launched - kernels, self.gpu.waits.total() - waits, spent)
        )
        return made

    def add(self, stage: Stage) -> None:
        """Note a part that was counted elsewhere."""
        self.stages.append(stage)

    @property
    def took(self) -> float:
        """Seconds of the batch: the encoder goes on while the first head is launched."""
        first, *rest = self.stages
        whole = Stage("", first.kernels, first.waits, first.device)
        total = 0.0
        for stage in rest:
            whole = Stage(
                "",
                whole.kernels + stage.kernels,
                whole.waits + stage.waits,
                whole.device + stage.device,
            )
            if stage.waits:
                total += max(whole.device, whole.host)
                whole = Stage("", 0, 0, 0.0)
        return total + max(whole.device, whole.host)


def count(
    weights: backbones.Backbone, names: Sequence[str], batch: int, gpu: Gpu, metrics: Stage
) -> tuple[Counted, Counter[str], Counter[str]]:
    """Score two batches and count the second: its stages, and the bytes that go up and down by
    line.  ``metrics``: what the metrics of a method are."""
    scorers = {}
    for name in names:
        entry = registry.method(name)
        config = entry.resolve(("benchmark", WITHOUT_BOXES.get(name, {})))
        method = entry.load()(config, weights.info).to("cuda").eval()
        scorers[name] = Scorer(method, weights)
        scorers[name].prepare([NUT])
    size = weights.info.image_size
    images = torch.zeros(batch, 3, size, size, dtype=torch.uint8).pin_memory()
    groups: dict[object, list[str]] = {}
    for name in names:
        groups.setdefault(scorers[name].request.variant, []).append(name)
    counted = Counted(gpu)
    for number in range(2):
        gpu.clear()
        counted = Counted(gpu)
        for members in groups.values():
            request = FeatureRequest.merge([scorers[n].request for n in members])
            features = counted.stage("encode", partial(_encoded, weights, images, request))
            for name in members:
                own = features.restrict(scorers[name].request.taps)
                uids = [f"{number}-{i}" for i in range(batch)]
                counted.stage(name, partial(_scored, scorers[name], own, uids))
                counted.add(metrics)
    return counted, Counter(gpu.up_bytes), Counter(gpu.down_bytes)


def count_metrics(batch: int, size: int) -> Stage:
    """One update of metrics with maps [batch, size, size], not the first, half of them anomalous:
    counted with true values, since how often the host waits depends on them."""
    draw = torch.Generator().manual_seed(0)
    masks = torch.zeros(batch, size, size, dtype=torch.bool)
    masks[::2, size // 4 : size // 2, size // 4 : size // 2] = True
    labels = torch.arange(batch) % 2 == 0
    with simulated("cuda", cost=True) as gpu:
        metrics = CategoryMetrics.of(MetricSettings(), device=gpu.device)
        for _ in range(2):
            maps = torch.rand(batch, size, size, generator=draw).to(gpu.device)
            regions = BatchRegions(masks)
            regions.on(gpu.device)  # once for all methods
            gpu.clear()
            metrics.update(maps, masks, torch.rand(batch), labels, regions=regions)
        assert gpu.cost is not None
        spent = sum(map(seconds, gpu.cost))
        return Stage("metrics", gpu.launched, gpu.waits.total(), spent)


@dataclass(frozen=True)
class Priced:
    """What a group of methods asks for, and the images a second that it comes to."""

    stages: Sequence[Stage]
    up: int  # bytes to the device
    down: int
    rate: float

    def kernels(self, *names: str) -> int:
        """Those of some stages."""
        return sum(s.kernels for s in self.stages if s.name in names)


def priced(
    groups: Sequence[str],
    batch: int = 8,
    image_size: int = 518,
    backbone: str = "vit-l-14-336",
    compiled: bool = False,
) -> dict[str, Priced]:
    """Count and price groups of methods, by their names."""
    found = {}
    with simulated("cuda", cost=True, values=False, memory=H200) as gpu, torch.no_grad():
        weights = backbones.load(
            backbone,
            weights=None if backbone == "zsad-tiny" else "random",
            image_size=image_size,
            precision="bf16",
            device="cuda",
            compile=compiled,
        )
        size = weights.info.image_size
    metrics = count_metrics(batch, size)
    # Scoring on CUDA runs without torch's switch, which whoever calls may have turned on.
    with (
        algorithms(deterministic=False),
        simulated("cuda", cost=True, values=False, memory=H200) as gpu,
        torch.no_grad(),
    ):
        for group in groups:
            counted, up, down = count(weights, group.split(","), batch, gpu, metrics)
            rate = batch / counted.took
            found[group] = Priced(counted.stages, up.total(), down.total(), rate)
    return found


def _encoded(
    backbone: backbones.Backbone, images: torch.Tensor, request: FeatureRequest
) -> ImageFeatures:
    ((_, features),) = encode(backbone, images, request, Portions())
    return features


def _scored(scorer: Scorer, features: ImageFeatures, uids: list[str]) -> Scored[Any]:
    ((_, scored),) = scorer.score(features, scorer.context([NUT] * len(uids), uids=uids))
    return scored


def main(arguments: Sequence[str] | None = None) -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--image-size", type=int, default=518)
    parser.add_argument("--backbone", default="vit-l-14-336")
    parser.add_argument("--methods", action="append", help="a group; may be given several times")
    parser.add_argument("--compile", action="store_true", help="with fused blocks")
    options = parser.parse_args(arguments)
    groups = options.methods or list(BEFORE)
    for group, one in priced(
        groups, options.batch, options.image_size, options.backbone, options.compile
    ).items():
        print(f"{group}: {options.batch} images at {options.image_size} pixels")
        for s in one.stages:
            print(
                f"  {s.name:14}{s.kernels:7} kernels{s.waits:4} waits"
                f"{1e3 * s.device:9.2f} ms device{1e3 * s.host:8.2f} ms host"
            )
        before = f", {one.rate / BEFORE[group]:.2f} x before" if group in BEFORE else ""
        print(f"  up {one.up / 1e6:.2f} MB, down {one.down} bytes; {one.rate:.0f}/s{before}")


if __name__ == "__main__":
    main()

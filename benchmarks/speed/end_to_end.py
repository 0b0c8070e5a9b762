"""All methods together, each alone, and plain open_clip, on the same images in the same run.

    python -m zsad.benchmarks.speed.end_to_end [--quick] [--device cuda --precision bf16] [--json]

One batch of random images goes through open_clip's own image tower (``encode_image``), through
every method alone, through all of them together, and through ``--pair``, which says what a second
method adds to the first.  A method's time is all that it costs per image: its share of the
encoder pass, its head with the text that depends on the image, anomaly maps, image scores and
streaming metrics.  Text that does not depend on the image is prepared once and reported apart;
decoding is left to ``pipeline.py``.

The ways take turns and ratios are taken within a turn.  Work is counted, and related to the rate
of a plain matrix product measured in the same run.  Weights are random: time does not depend on
them, and the maps of all ways are compared.  FiLo runs without boxes, so that every image needs
the prompts of all nine positions.  ``--clock cpu`` counts this process' own work, for a machine
that is busy with other things; ``--quick`` takes the bundled small backbone.
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from zsad import backbones, registry
from zsad.backbones import Backbone
from zsad.backbones.backbone import PRECISIONS
from zsad.backbones.clip_vit import resize_positions
from zsad.benchmarks.speed import measure
from zsad.metrics import CategoryMetrics
from zsad.metrics.regions import BatchRegions
from zsad.runner.timing import StageTimer
from zsad.scoring import Scorer
from zsad.types import Category, FeatureRequest, Tap

PLAIN = "open_clip encode_image"
CATEGORY = Category("mvtec", "metal_nut", "metal nut")  # nine descriptions: 126 abnormal prompts
WITHOUT_BOXES = {"filo": {"grounding": False}}


def plain_tower(backbone: Backbone, dtype: torch.dtype) -> nn.Module:
    """open_clip's own image tower with the same weights, at the same size and precision."""
    tower: Any = copy.deepcopy(backbone.model.visual)
    table = resize_positions(tower.positional_embedding, backbone.info.grid(), "bicubic_aa")
    tower.positional_embedding = nn.Parameter(table, requires_grad=False)
    module: nn.Module = tower.to(dtype).eval()
    return module


class ClockTimer(StageTimer):
    """Stage times of the clock that the ways are timed with; on CUDA its device's own."""

    def __init__(self, device: torch.device, clock: str) -> None:
        super().__init__(device)
        self.clock = clock

    def _now(self) -> float:
        return measure.now(self.device.type, self.clock)


def _stage_of(timer: StageTimer, name: str, stage: str) -> AbstractContextManager[None]:
    """A stage of one method's scoring, timed for all methods together and for this one."""
    return timer.stage(stage, f"{stage} {name}")


class Pipeline:
    """Methods on one backbone, ready to score batches; text is prepared."""

    def __init__(self, backbone: Backbone, names: Sequence[str]) -> None:
        self.backbone = backbone
        self.scorers: dict[str, Scorer] = {}
        self.metrics = {name: CategoryMetrics(device=backbone.device) for name in names}
        self.text_seconds: dict[str, float] = {}
        device = str(backbone.device)
        for name in names:
            entry = registry.method(name)
            config = entry.resolve(("benchmark", WITHOUT_BOXES.get(name, {})))
            torch.manual_seed(0)
            method = entry.load()(config, backbone.info).to(backbone.device).eval()
            self.scorers[name] = Scorer(method, backbone)
            start = measure.now(device)
            self.scorers[name].prepare([CATEGORY])
            self.text_seconds[name] = measure.now(device) - start

    @torch.no_grad()
    def run(
        self, names: Sequence[str], images: Tensor, masks: Tensor, timer: StageTimer | None = None
    ) -> dict[str, Tensor]:
        """Encode once per encoder variant, score with every method; return the maps by name.

        Masks [B, H, W] belong on the CPU, where a sweep has them; others are brought there."""
        timer = timer or StageTimer(images.device)
        groups: dict[Any, list[str]] = {}
        for name in names:
            groups.setdefault(self.scorers[name].request.variant, []).append(name)
        found: dict[str, Tensor] = {}
        masks = masks.cpu()
        regions = BatchRegions(masks)  # once for all methods, as a sweep does
        for members in groups.values():
            request = FeatureRequest.merge([self.scorers[n].request for n in members])
            with timer.stage("encode"):
                features = self.backbone.encode_image(images, request)
            for name in members:
                scorer = self.scorers[name]
                scorer.stage = functools.partial(_stage_of, timer, name)
                own = features.restrict(scorer.request.taps)
                ((_, scored),) = scorer.score(own, scorer.context([CATEGORY] * len(images)))
                with timer.stage("metrics"):
                    labels = torch.arange(len(images)) % 2
                    final, scores = scored.maps.final, scored.image_scores
                    self.metrics[name].update(final, masks, scores, labels, regions=regions)
                found[name] = final
        return found


def measure_ways(options: argparse.Namespace) -> dict[str, Any]:
    """Time all ways and return the document."""
    device, dtype = options.device, PRECISIONS[options.precision]
    weights = None if options.backbone == "zsad-tiny" else "random"
    backbone = backbones.load(
        options.backbone,
        weights=weights,
        image_size=options.image_size,
        precision=options.precision,
        device=device,
        compile=options.compile,
    )
    tower = plain_tower(backbone, dtype)
    names = options.methods.split(",")
    pair = [n for n in options.pair.split("+") if n in names]
    pipeline = Pipeline(backbone, names)
    size = backbone.info.image_size
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(options.batch, 3, size, size, generator=generator).to(device)
    masks = torch.zeros(options.batch, size, size, dtype=torch.bool)
    masks[1::2, size // 4 : size // 2, size // 4 : size // 2] = True

    @torch.no_grad()
    def plain() -> Tensor:
        features: Tensor = tower(images.to(dtype))
        return features

    stages: list[dict[str, float]] = []

    def together() -> dict[str, Tensor]:
        timer = ClockTimer(images.device, options.clock)
        maps = pipeline.run(names, images, masks, timer)
        stages.append(dict(timer.seconds))
        return maps

    ways: dict[str, Callable[[], Any]] = {PLAIN: plain, "all together": together}
    if not options.only_together:
        chosen = {name: [name] for name in names}
        if len(pair) == 2:
            chosen["+".join(pair)] = pair
        ways |= {
            way: functools.partial(pipeline.run, members, images, masks)
            for way, members in chosen.items()
        }
    work, differences, memory = _warm_up(ways, names, device)
    stages.clear()
    seconds = measure.interleaved(ways, options.repeats, device, options.clock)
    peak = measure.peak_macs(device, dtype, clock=options.clock)
    rows = [
        {
            "way": name,
            "seconds_per_image": measure.spread([s / options.batch for s in values]),
            "times_plain": measure.ratio(values, seconds[PLAIN]),
            "images_per_second": options.batch / measure.spread(values)["median"],
            "gmac_per_image": work[name] / options.batch / 1e9,
            "share_of_peak": work[name] / measure.spread(values)["median"] / peak,
            **memory[name],
        }
        for name, values in seconds.items()
    ]
    document: dict[str, Any] = {
        "conditions": measure.conditions(
            device,
            backbone=options.backbone,
            image_size=size,
            batch=options.batch,
            precision=options.precision,
            compile=options.compile,
            repeats=options.repeats,
            clock=options.clock,
            peak_gmac_per_second=round(peak / 1e9, 1),
        ),
        "ways": rows,
        "stages_per_image": {
            name: measure.spread([s[name] / options.batch for s in stages]) for name in stages[0]
        },
        "text_once_seconds": pipeline.text_seconds,
        "largest_difference_of_maps": differences,
        "class_token_difference": _against_plain(backbone, images, plain()),
    }
    if "+".join(pair) in seconds and pair[0] in seconds:
        added = measure.ratio(seconds["+".join(pair)], seconds[pair[0]])
        document["added_by_the_second"] = {k: v - 1 for k, v in added.items()}
    return document


@torch.no_grad()
def _against_plain(backbone: Backbone, images: Tensor, expected: Tensor) -> float:
    """How far our class embedding is from open_clip's, relative to its size."""
    found = backbone.encode_image(images, FeatureRequest.of(Tap("cls")))[Tap("cls")]
    return float((found - expected).norm() / expected.norm())


def _warm_up(
    ways: Mapping[str, Callable[[], Any]], names: Sequence[str], device: str
) -> tuple[dict[str, float], dict[str, float], dict[str, dict[str, float]]]:
    """Call every way once: its multiply-accumulates, how far its maps are from those of all
    together, and its peak memory."""
    work: dict[str, float] = {}
    differences: dict[str, float] = {}
    memory: dict[str, dict[str, float]] = {}
    results: dict[str, Any] = {}
    for name, way in ways.items():
        if device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats()

        def keep(name: str = name, way: Callable[[], Any] = way) -> None:
            results[name] = way()

        work[name] = measure.macs(keep)
        memory[name] = {f"{k}_mib": v for k, v in measure.memory_mib(device).items()}
    for name in names:
        if name in results:
            alone, shared = results[name][name], results["all together"][name]
            differences[name] = float((alone - shared).abs().max())
    return work, differences, memory


def show(document: Mapping[str, Any]) -> None:
    """Print the document as text."""
    print(measure.headline(document["conditions"]))
    head = f"{'way':26}{'s per image':>22}{'x plain':>20}{'images/s':>10}{'GMAC':>8}{'of peak':>9}"
    print(f"{head}{'MiB':>9}")
    for row in document["ways"]:
        memory = row.get("device_mib", row["host_mib"])
        print(
            f"{row['way']:26}{measure.shown(row['seconds_per_image'], 1, 3):>22}"
            f"{measure.shown(row['times_plain']):>20}{row['images_per_second']:10.2f}"
            f"{row['gmac_per_image']:8.1f}{row['share_of_peak']:9.0%}{memory:9.0f}"
        )
    print("stages of all together, ms per image:")
    for name, values in document["stages_per_image"].items():
        print(f"  {name:22}{measure.shown(values, 1000, 1):>26}")
    text = ", ".join(f"{n} {s:.2f} s" for n, s in document["text_once_seconds"].items())
    print(f"text that no image changes, once per category: {text}")
    if "added_by_the_second" in document:
        print(f"the pair's second adds {measure.shown(document['added_by_the_second'], 100, 1)} %")
    worst = max(document["largest_difference_of_maps"].values(), default=0.0)
    print(f"maps together - maps alone: {worst:.1e} at most")
    print(f"class token, relative to open_clip's: {document['class_token_difference']:.1e}")


def parser() -> argparse.ArgumentParser:
    """The options of this benchmark."""
    parser = measure.options(__doc__)
    parser.add_argument("--backbone", default="vit-l-14-336")
    parser.add_argument("--image-size", type=int, default=0, help="pixels; 0: the backbone's own")
    parser.add_argument("--methods", default="filo,faprompt,kanoclip,anomalyclip")
    parser.add_argument("--pair", default="faprompt+anomalyclip")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--precision", choices=sorted(PRECISIONS), default="fp32")
    parser.add_argument("--compile", action="store_true", help="fuse the encoder's blocks")
    parser.add_argument("--only-together", action="store_true", help="no method alone")
    parser.add_argument("--quick", action="store_true", help="zsad-tiny")
    return parser


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print and return the document."""
    options = parser().parse_args(arguments)
    if options.quick:
        options.backbone = "zsad-tiny"
    torch.set_num_threads(options.threads)
    document = measure_ways(options)
    if options.json:
        print(json.dumps(document, indent=2))
    else:
        show(document)
    return document


if __name__ == "__main__":
    main()

"""One training step of the methods with stages, against doing it as the released code does.

    python -m zsad.benchmarks.speed.stages [--quick] [--backbone NAME] [--batch 8] [--device D]
                                      [--clock cpu] [--json]

``ours``: the frozen part of the encoder comes from the feature store, one channel of every stage's
logits is enlarged, and nothing is computed that no loss reads.  ``kept``: the same, but both
channels are enlarged before the softmax.  ``obvious``: as ``kept``, and every step encodes its
pictures from the start.  The last column is the largest relative difference of the gradients of
``ours`` and ``obvious``.  For MVFA-AD the blocks above the first stage, with their backward pass,
are the rest, and no cache can hold them.  Backbones that are not bundled get random weights.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from zsad import backbones, maps, registry
from zsad.benchmarks.speed import measure
from zsad.components import losses
from zsad.method import AnyMethod, feature_request
from zsad.types import Category, ScoreContext, TrainBatch

METHODS = ("aprilgan", "mvfa")


def two_channels(logits: Sequence[Tensor], masks: Tensor) -> dict[str, Tensor]:
    """Focal and Dice with both channels enlarged, then softmax."""
    focal, dice = masks.new_zeros(()), masks.new_zeros(())
    for stage in logits:
        probability = maps.upsample(stage, masks.shape[-1], True).softmax(1)
        focal = focal + losses.focal(probability, masks)
        dice = dice + losses.dice(probability[:, 1], masks)
    return {"focal": focal, "dice": dice}


def steps(
    name: str, options: argparse.Namespace
) -> tuple[AnyMethod, dict[str, Callable[[], None]]]:
    """Build a method and its ways of one step: forward and backward pass."""
    weights = options.weights or (None if options.backbone == "zsad-tiny" else "random")
    backbone = backbones.load(
        options.backbone, weights=weights, device=options.device, image_size=options.size
    )
    entry = registry.method(name)
    torch.manual_seed(0)
    method: Any = entry.load()(entry.resolve(), backbone.info).to(options.device).train()
    request = feature_request(method, 0)
    generator = torch.Generator().manual_seed(0)
    size = request.variant.image_size
    images = torch.randn(options.batch, 3, size, size, generator=generator).to(options.device)
    masks = (torch.rand(options.batch, 1, size, size, generator=generator) > 0.9).float()
    batch = TrainBatch(masks.to(options.device), torch.arange(options.batch) % 2)
    categories = [Category("any", "nut", "metal nut")] * options.batch
    encoder = backbone.text_encoder(request.variant)
    # as training makes it: without text, which a method encodes at every step, with gradients
    context: ScoreContext[Any] = ScoreContext(
        categories,
        {},
        text_encoder=encoder,
        image_encoder=backbone.image_encoder(request.variant),
    )
    method.begin_training(categories[:1], {}, encoder)
    stored = backbone.encode_image(images, request)
    own = method.stage_losses

    def step(encode: bool, stage_losses: Any) -> None:
        method.stage_losses = stage_losses
        features = backbone.encode_image(images, request) if encode else stored
        method.zero_grad()
        method.losses(features, batch, context)["total"].backward()

    return method, {
        "ours": lambda: step(False, own),
        "kept": lambda: step(False, two_channels),
        "obvious": lambda: step(True, two_channels),
    }


def difference(method: AnyMethod, ways: dict[str, Callable[[], None]]) -> float:
    """The largest difference of two ways' gradients, relative to the largest entry of each."""
    found = []
    for way in ("ours", "obvious"):
        ways[way]()
        found.append([p.grad.clone() for p in method.parameters() if p.grad is not None])
    pairs = [(a, b) for a, b in zip(*found, strict=True) if float(b.abs().max())]
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print and return the document."""
    parser = measure.options(__doc__, repeats=7)
    parser.add_argument("--backbone", default="zsad-tiny")
    parser.add_argument("--weights", help="file, for --backbone file")
    parser.add_argument("--size", type=int, default=0, help="pixels; 0: the backbone's own")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--quick", action="store_true", help="batch 2, 2 repeats")
    options = parser.parse_args(arguments)
    if options.quick:
        options.batch, options.repeats = 2, 2
    torch.set_num_threads(options.threads)
    rows: list[dict[str, Any]] = []
    for name in METHODS:
        method, ways = steps(name, options)
        largest = difference(method, ways)
        seconds = measure.interleaved(ways, options.repeats, options.device, options.clock)
        rows.append(
            {
                "method": name,
                **{f"{way}_seconds": measure.spread(values) for way, values in seconds.items()},
                "times_faster": measure.ratio(seconds["obvious"], seconds["ours"]),
                "relative_difference": largest,
            }
        )
    document: dict[str, Any] = {
        "conditions": measure.conditions(
            options.device,
            backbone=options.backbone,
            batch=options.batch,
            repeats=options.repeats,
            clock=options.clock,
        ),
        "methods": rows,
    }
    if options.json:
        print(json.dumps(document, indent=2))
        return document
    print(measure.headline(document["conditions"]))
    shown = ("ours", "kept", "obvious")
    print(f"{'a step, ms':12}" + "".join(f"{w:>26}" for w in shown) + f"{'faster':>18}{'diff':>9}")
    for row in rows:
        times = "".join(f"{measure.shown(row[f'{w}_seconds'], 1000, 1):>26}" for w in shown)
        faster = measure.shown(row["times_faster"], 1, 1)
        print(f"{row['method']:12}{times}{faster:>18}{row['relative_difference']:9.0e}")
    return document


if __name__ == "__main__":
    main()

"""FiLo's head at real size, and its two costly parts side by side: prompts per image, and MMCI.

    python -m zsad.benchmarks.speed.filo [--quick] [--repeats 3] [--json]

Prompts: the released way encodes every abnormal prompt of a category at all nine positions over
77 tokens, and the normal ones.  Ours runs what prompts begin with once: for all nine positions,
as an image without boxes needs them, and for the one position that a box names.  MMCI: six
convolutions per v-v stage against the folded one, that one with its input and weights laid out
channels-last, and in tiles of frequencies.  The head: text of nine positions, stages, scores, by
torch and as it runs here where there are pictures enough, in float32 and with a text tower in
bfloat16.  Random weights: times do not depend on them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

import zsad
from zsad import backbones
from zsad.backbones.engines.tiled_convolution import TiledConvolution
from zsad.backbones.text import TextEncoder
from zsad.benchmarks.speed import measure
from zsad.components.prompt_learning import PromptLearner
from zsad.inference.loaded_method import LoadedMethod
from zsad.methods.filo import prompts, texts
from zsad.methods.filo.config import Mmci, Prompt
from zsad.methods.filo.modules import MmciStage
from zsad.types import Category, ImageFeatures, Scores


@torch.no_grad()
def measure_text(options: argparse.Namespace) -> dict[str, Any]:
    """Both label embeddings of one image of the category, three ways."""
    name = "zsad-tiny" if options.quick else "vit-l-14-336"
    backbone = backbones.load(name, weights="random", device=options.device)
    ours = backbone.text_encoder()
    naive = TextEncoder(ours.tower, ours.tokenizer, truncate=False, reuse=False)
    category = Category("mvtec", "bottle", "bottle")
    wording = prompts.word(category, prompts.find_entry(category, "bank"), Prompt())
    info = backbone.info
    torch.manual_seed(0)
    size = (12, info.text_width, info.embed, True)
    pair = (PromptLearner(*size).to(options.device), PromptLearner(*size).to(options.device))
    image = F.normalize(torch.randn(1, info.embed), dim=-1).to(options.device)
    table = texts.tokenize(wording, ours)

    def encode(encoder: TextEncoder, cells: tuple[int, ...] | None) -> texts.TextSide:
        return texts.text_side(pair, [table], [cells], image, encoder)

    ways: dict[str, Callable[[], texts.TextSide]] = {
        "nine positions, 77 tokens": lambda: encode(naive, None),
        "nine positions": lambda: encode(ours, None),
        "one position": lambda: encode(ours, (4,)),
    }
    positions = {}
    results = {}
    for way, work in ways.items():
        counters = (naive if way.endswith("tokens") else ours).counters
        earlier = counters.text_tokens
        results[way] = work()  # warm up
        positions[way] = counters.text_tokens - earlier
    before, after = (results[w].pair for w in list(ways)[:2])
    found = _compare(ways, options)
    return {
        "prompts": len(wording.normal) + len(wording.abnormal),
        "positions": positions,
        "largest_difference": float((before - after).abs().max()),
        **found,
    }


@torch.no_grad()
def measure_mmci(options: argparse.Namespace) -> dict[str, Any]:
    """One v-v stage of one image."""
    side, width, embed = (8, 32, 24) if options.quick else (37, 1024, 768)
    torch.manual_seed(0)
    six = MmciStage(width, embed, Mmci(fold="never"))
    one = MmciStage(width, embed, Mmci(fold="always"))
    one.load_state_dict(six.state_dict())
    six, one = six.to(options.device), one.to(options.device)
    patches = torch.randn(1, side * side, width).to(options.device)
    weight, bias = one.folded()
    last = weight.contiguous(memory_format=torch.channels_last)
    planes = patches.transpose(1, 2).unflatten(2, (side, side))  # channels last in memory

    def channels_last() -> Tensor:
        return F.conv2d(planes, last, bias, padding=tuple(s // 2 for s in one.sides))

    weight, bias = one.folded()
    tiles: Callable[[Tensor], Tensor] = TiledConvolution(weight, bias, (side, side))
    ways: dict[str, Callable[[], Tensor]] = {
        "six convolutions": lambda: six(patches, (side, side))[0],
        "folded": lambda: one(patches, (side, side))[0],
        "folded, channels last": channels_last,
        "folded, in tiles": lambda: tiles(patches),
    }
    before, *found = (ways[w]() for w in ("six convolutions", "folded", "folded, in tiles"))
    channels_last()
    difference = max(float((before - a).abs().max() / before.abs().max()) for a in found)
    return {"largest_difference": difference, **_compare(ways, options)}


@torch.no_grad()
def measure_head(options: argparse.Namespace) -> dict[str, Any]:
    """The whole head of one image without boxes, by torch and as it runs here."""
    ways: dict[str, Callable[[], Scores]] = {}
    memory, told = [], {}
    for precision in ("fp32", "bf16"):
        one = zsad.load_method(
            "filo",
            "zsad-tiny" if options.quick else "vit-l-14-336",
            weights=None if options.quick else "random",
            image_size=0 if options.quick else 518,
            untrained=True,
            overrides=["filo.grounding=none", f"backbone.precision={precision}"],
        )
        one.backbone.engines.pictures = 1_000
        memory.append(one)
        category = Category("predict", "bottle", "bottle")
        context = one.scorer.context([category])
        features, method, heads = random_features(one), one.method, one.scorer.heads

        def here(
            method: Any = method,
            features: Any = features,
            context: Any = context,
            heads: Any = heads,
        ) -> Scores:
            with heads.active():
                return method.score(features, context)  # type: ignore[no-any-return]

        ways[f"torch, {precision}"] = partial(method.score, features, replace(context, heads=None))
        ways[f"here, {precision}"] = here
    found = {way: work() for way, work in ways.items()}  # warm up
    for precision, one in zip(("fp32", "bf16"), memory):
        told[precision] = one.scorer.heads.account()
    right = found["torch, fp32"].maps
    off = {
        way: max(float((a - b).norm() / b.norm()) for a, b in zip(scores.maps, right))
        for way, scores in found.items()
    }
    return {"largest_difference": off["here, fp32"], "ran": told, **_compare(ways, options)}


def random_features(one: LoadedMethod) -> ImageFeatures:
    """What FiLo's head reads of one picture, drawn."""
    generator = torch.Generator().manual_seed(0)
    info, grid = one.backbone.info, one.backbone.info.grid(one.image_size)
    data = {}
    for tap in sorted(one.request.taps):
        shape = (1, info.embed) if tap.kind == "cls" else (1, 1 + grid[0] * grid[1], info.width)
        data[tap] = torch.randn(shape, generator=generator)
    return ImageFeatures(grid, data)


def _compare(ways: dict[str, measure.Way], options: argparse.Namespace) -> dict[str, Any]:
    seconds = measure.interleaved(ways, options.repeats, options.device, options.clock)
    first = seconds[next(iter(ways))]
    return {
        "seconds": {way: measure.spread(values) for way, values in seconds.items()},
        "times_faster": {way: measure.ratio(first, values) for way, values in seconds.items()},
    }


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print and return both parts."""
    parser = measure.options(__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--only", choices=("text", "mmci", "head"), help="one part")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    parts = {"text": measure_text, "mmci": measure_mmci, "head": measure_head}
    chosen = [options.only] if options.only else list(parts)
    document: dict[str, Any] = {
        "conditions": measure.conditions(
            options.device,
            engine="torch, and what replaces it in heads",
            size="small" if options.quick else "vit-l-14-336, 518 px",
            repeats=options.repeats,
            clock=options.clock,
        ),
        **{name: parts[name](options) for name in chosen},
    }
    if options.json:
        print(json.dumps(document, indent=2))
        return document
    print(measure.headline(document["conditions"]))
    for part in chosen:
        found = document[part]
        print(f"{part:27}{'s per image':>24}{'times faster':>22}{'positions run':>15}")
        for way, values in found["seconds"].items():
            print(
                f"  {way:25}{measure.shown(values, 1, 4):>24}"
                f"{measure.shown(found['times_faster'][way], 1, 1):>22}"
                f"{found.get('positions', {}).get(way, ''):>15}"
            )
        print(f"  largest difference {found['largest_difference']:.1e}")
    return document


if __name__ == "__main__":
    main()

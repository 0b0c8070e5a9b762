"""What truncation and prefix reuse save in the text tower, side by side, on FiLo's prompts.

    python -m zsad.benchmarks.speed.text [--quick] [--backbone NAME] [--rows B] [--gradients]

14 descriptions at 9 positions (126 prompts) behind 12 learned context vectors, for ``--rows``
images whose context differs.  Four ways to the same features:

* ``naive``: all 77 positions of every prompt, as the released code runs them;
* ``truncated``: positions up to the longest end of text;
* ``prefix reuse``: also, [start, context] once per image, its keys and values shared;
* ``tree``: whatever several prompts begin with once per image.

The ways take turns, ``--repeats`` times; the largest difference between the ways is printed
beside them.  Weights are random: only time is measured.  ``--quick`` takes a small tower.
"""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from zsad.backbones import TextEncoder, load
from zsad.backbones.build import build_model
from zsad.backbones.specs import spec
from zsad.benchmarks.speed import measure

CONTEXT = 12
POSITIONS = [
    f"{row}{column}".strip() or "center"
    for row in ("top ", "", "bottom ")
    for column in ("left", "", "right")
]
DESCRIPTIONS = [
    f"abnormal metal nut with {what}"
    for what in (
        "scratches on the surface",
        "bent edges",
        "color stains",
        "missing threads",
        "deformed corners",
        "surface corrosion",
        "cracks near the hole",
        "foreign material attached",
        "an irregular outline",
    )
] + [
    "damaged metal nut",
    "broken metal nut",
    "metal nut with flaw",
    "metal nut with defect",
    "metal nut with damage",
]
PROMPTS = [
    " ".join(["X"] * CONTEXT) + f" {description} at {position}."
    for description in DESCRIPTIONS
    for position in POSITIONS
]


def run(encoder: TextEncoder, context: Tensor, tree: bool) -> tuple[Tensor, Tensor | None]:
    """Encode the prompts behind ``context`` [B, 12, W]; return features and, where the context
    wants it, its gradient."""
    tokens = encoder.tokenize(PROMPTS)
    with torch.set_grad_enabled(context.requires_grad):
        if tree:
            features = encoder.encode_tokens(tokens, context)
        else:
            embedded = encoder.embed_tokens(tokens)
            start = embedded[:1, :1].expand(len(context), -1, -1)
            suffix = embedded[None, :, 1 + CONTEXT :]
            features = encoder.encode_prefixed(torch.cat([start, context], 1), suffix, tokens.eot)
        if not context.requires_grad:
            return features, None
        (gradient,) = torch.autograd.grad(features.square().mean(), context)
    return features.detach(), gradient


def compare(model: Any, tokenize: Any, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per way."""
    switches: dict[str, dict[str, Any]] = {
        "naive": {"truncate": False, "reuse": False},
        "truncated": {"truncate": True, "reuse": False},
        "prefix reuse": {},
        "tree": {},
    }
    width = model.token_embedding.embedding_dim
    generator = torch.Generator().manual_seed(0)
    context = 0.02 * torch.randn(options.rows, CONTEXT, width, generator=generator)
    context = context.to(options.device).requires_grad_(options.gradients)
    ways: dict[str, Callable[[], Any]] = {}
    found: dict[str, list[Tensor]] = {}
    positions: dict[str, int] = {}
    for name, given in switches.items():
        encoder = TextEncoder(model, tokenize, **given)
        ways[name] = functools.partial(run, encoder, context, name == "tree")
        found[name] = [t for t in ways[name]() if t is not None]  # warms up, too
        positions[name] = encoder.counters.text_tokens
    seconds = measure.interleaved(ways, options.repeats, options.device, options.clock)
    return [
        {
            "way": name,
            "seconds": measure.spread(seconds[name]),
            "times_faster": measure.ratio(seconds["naive"], seconds[name]),
            "positions": positions[name],
            "relative_difference": max(
                float((a - b).abs().max() / b.abs().max())
                for a, b in zip(found[name], found["naive"])
            ),
        }
        for name in ways
    ]


def small_tower() -> Any:
    """A random CLIP whose text tower is a sixth of ViT-B's."""
    config = {
        "embed_dim": 256,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
        "text_cfg": {"vocab_size": 49408, "width": 256, "heads": 4, "layers": 4},
    }
    return build_model(spec("file"), config, "quick_gelu", None)


def main() -> None:
    from zsad.torchvision_compat import open_clip

    parser = measure.options(__doc__)
    parser.add_argument("--backbone", default="vit-l-14-336")
    parser.add_argument("--rows", type=int, default=1, help="images, each with its own context")
    parser.add_argument("--gradients", action="store_true", help="also back to the context")
    parser.add_argument("--quick", action="store_true", help="a small tower")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = small_tower() if options.quick else load(options.backbone, weights="random").model
    model.to(options.device)
    document: dict[str, Any] = {
        "conditions": measure.conditions(
            options.device,
            tower="small" if options.quick else options.backbone,
            prompts=len(PROMPTS),
            rows=options.rows,
            gradients=options.gradients,
            repeats=options.repeats,
            clock=options.clock,
        ),
        "ways": compare(model, open_clip.tokenize, options),
    }
    if options.json:
        print(json.dumps(document, indent=2))
        return
    print(measure.headline(document["conditions"]))
    print(f"{'way':14}{'s':>24}{'faster':>22}{'positions':>11}{'difference':>12}")
    for row in document["ways"]:
        print(
            f"{row['way']:14}{measure.shown(row['seconds'], 1, 4):>24}"
            f"{measure.shown(row['times_faster'], 1, 1):>22}"
            f"{row['positions']:11}{row['relative_difference']:12.1e}"
        )


if __name__ == "__main__":
    main()

"""What truncation and prefix reuse save in the text tower, side by side, on FiLo's prompts.

    python benchmarks/speed/text.py [--quick] [--backbone NAME] [--rows B] [--gradients] [--json]

14 descriptions at 9 positions (126 prompts) behind 12 learned context vectors, for ``--rows``
images whose context differs.  Three ways to the same features:

* ``naive``: all 77 positions of every prompt, as the released code runs them;
* ``truncated``: positions up to the longest end of text;
* ``prefix reuse``: also, [start, context] once per image, its keys and values shared.

Medians of ``--repeats`` runs; the largest difference between the ways is printed beside them.
Weights are random: only time is measured.  ``--quick`` takes a small tower.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from zsad.backbones import TextEncoder, load  # noqa: E402
from zsad.backbones.build import build_model  # noqa: E402
from zsad.backbones.specs import spec  # noqa: E402

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


def run(encoder: TextEncoder, context: Tensor) -> tuple[Tensor, Tensor | None]:
    """Encode the prompts behind ``context`` [B, 12, W]; return features and, where the context
    wants it, its gradient."""
    tokens = encoder.tokenize(PROMPTS)
    embedded = encoder.embed_tokens(tokens)
    start = embedded[:1, :1].expand(len(context), -1, -1)
    prefix = torch.cat([start, context], 1)
    with torch.set_grad_enabled(context.requires_grad):
        features = encoder.encode_prefixed(prefix, embedded[None, :, 1 + CONTEXT :], tokens.eot)
        if not context.requires_grad:
            return features, None
        (gradient,) = torch.autograd.grad(features.square().mean(), context)
    return features.detach(), gradient


def measure(model: Any, tokenize: Any, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per way."""
    ways = {
        "naive": {"truncate": False, "reuse": False},
        "truncated": {"truncate": True, "reuse": False},
        "prefix reuse": {"truncate": True, "reuse": True},
    }
    width = model.token_embedding.embedding_dim
    generator = torch.Generator().manual_seed(0)
    context = 0.02 * torch.randn(options.rows, CONTEXT, width, generator=generator)
    context = context.to(options.device).requires_grad_(options.gradients)
    table: list[dict[str, Any]] = []
    reference = None
    for name, switches in ways.items():
        encoder = TextEncoder(model, tokenize, **switches)
        run(encoder, context)
        encoder.counters.reset()
        seconds = []
        for _ in range(options.repeats):
            _synchronise(options.device)
            start = time.perf_counter()
            features, gradient = run(encoder, context)
            _synchronise(options.device)
            seconds.append(time.perf_counter() - start)
        found = [t for t in (features, gradient) if t is not None]
        reference = reference or found
        table.append(
            {
                "way": name,
                "seconds": statistics.median(seconds),
                "times_faster": table[0]["seconds"] / statistics.median(seconds) if table else 1.0,
                "positions": encoder.counters.text_tokens // options.repeats,
                "relative_difference": max(
                    float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, reference)
                ),
            }
        )
    return table


def _synchronise(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def small_tower() -> Any:
    """A random CLIP whose text tower is a sixth of ViT-B's."""
    config = {
        "embed_dim": 256,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
        "text_cfg": {"vocab_size": 49408, "width": 256, "heads": 4, "layers": 4},
    }
    return build_model(spec("file"), config, "quick_gelu", None)


def main() -> None:
    import open_clip

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--backbone", default="vit-l-14-336")
    parser.add_argument("--rows", type=int, default=1, help="images, each with its own context")
    parser.add_argument("--gradients", action="store_true", help="also back to the context")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="a small tower")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = small_tower() if options.quick else load(options.backbone, weights="random").model
    model.to(options.device)
    document = {
        "conditions": {
            "tower": "small" if options.quick else options.backbone,
            "prompts": len(PROMPTS),
            "rows": options.rows,
            "gradients": options.gradients,
            "device": options.device,
            "threads": options.threads,
            "repeats": options.repeats,
            "torch": torch.__version__,
            "machine": platform.machine(),
        },
        "ways": measure(model, open_clip.tokenize, options),
    }
    if options.json:
        print(json.dumps(document, indent=2))
        return
    given = document["conditions"]
    print(", ".join(f"{k} {v}" for k, v in given.items()))
    print(f"{'way':14}{'median s':>10}{'faster':>9}{'positions':>11}{'difference':>12}")
    for row in document["ways"]:
        print(
            f"{row['way']:14}{row['seconds']:10.3f}{row['times_faster']:8.1f}x"
            f"{row['positions']:11}{row['relative_difference']:12.1e}"
        )


if __name__ == "__main__":
    main()

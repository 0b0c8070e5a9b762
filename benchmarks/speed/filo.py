"""FiLo's two costly parts at real size, side by side: prompts per image, and MMCI.

Prompts: the released way encodes every abnormal prompt of a category at all nine positions over
77 tokens; ours encodes the one position that a box names, truncated, with the learned context
run once.  MMCI: six convolutions per v-v stage against the folded one.  Random weights (times do
not depend on them); medians.

    python -m benchmarks.speed.filo [--quick] [--repeats 3] [--json FILE]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from zsad import backbones
from zsad.backbones.text import TextEncoder
from zsad.io import write_json
from zsad.methods.filo import prompts, texts
from zsad.methods.filo.config import Mmci, Prompt
from zsad.methods.filo.modules import MmciStage, PromptLearner
from zsad.types import Category


def median(function: Callable[[], object], repeats: int) -> float:
    """Median seconds of a call, after one call to warm up."""
    function()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


@torch.no_grad()
def measure_text(quick: bool, repeats: int) -> dict[str, float]:
    """Seconds per image for both label embeddings of the category bottle, and their difference."""
    backbone = backbones.load("zsad-tiny" if quick else "vit-l-14-336", weights="random")
    ours = backbone.text_encoder()
    naive = TextEncoder(ours.tower, ours.tokenizer, truncate=False, reuse=False)
    category = Category("mvtec", "bottle", "bottle")
    wording = prompts.word(category, prompts.find_entry(category, "bank"), Prompt())
    info = backbone.info
    torch.manual_seed(0)
    pair = tuple(PromptLearner(12, info.text_width, info.embed, True) for _ in range(2))
    image = torch.nn.functional.normalize(torch.randn(1, info.embed), dim=-1)
    table = texts.tokenize(wording, ours)

    def encode(encoder: TextEncoder, cells: tuple[int, ...] | None) -> texts.TextSide:
        return texts.text_side(pair, [table], [cells], image, encoder)

    before, after = encode(naive, None), encode(ours, None)
    return {
        "prompts": float(len(wording.normal) + len(wording.abnormal)),
        "nine_positions_77_tokens_s": median(lambda: encode(naive, None), repeats),
        "nine_positions_s": median(lambda: encode(ours, None), repeats),
        "one_position_s": median(lambda: encode(ours, (4,)), repeats),
        "max_difference": float((before.pair - after.pair).abs().max()),
    }


@torch.no_grad()
def measure_mmci(quick: bool, repeats: int) -> dict[str, float]:
    """Seconds per image for one v-v stage, and the largest relative difference."""
    side, width, embed = (8, 32, 24) if quick else (37, 1024, 768)
    torch.manual_seed(0)
    six = MmciStage(width, embed, Mmci(fold="never"))
    one = MmciStage(width, embed, Mmci(fold="always"))
    one.load_state_dict(six.state_dict())
    patches = torch.randn(1, side * side, width)
    before, after = six(patches, (side, side))[0], one(patches, (side, side))[0]
    return {
        "six_convolutions_s": median(lambda: six(patches, (side, side)), repeats),
        "folded_s": median(lambda: one(patches, (side, side)), repeats),
        "max_difference": float((before - after).abs().max() / before.abs().max()),
    }


def main(arguments: list[str] | None = None) -> dict[str, dict[str, float]]:
    """Measure, print and return both parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", help="also write the figures to this file")
    options = parser.parse_args(arguments)
    text = measure_text(options.quick, options.repeats)
    mmci = measure_mmci(options.quick, options.repeats)
    text["ratio"] = text["nine_positions_77_tokens_s"] / text["one_position_s"]
    text["ratio_all_nine"] = text["nine_positions_77_tokens_s"] / text["nine_positions_s"]
    mmci["ratio"] = mmci["six_convolutions_s"] / mmci["folded_s"]
    for name, figures in (("text", text), ("mmci", mmci)):
        for key, value in figures.items():
            print(f"{name:5} {key:28} {value:.6g}")
    if options.json:
        write_json(options.json, {"text": text, "mmci": mmci, "threads": torch.get_num_threads()})
    return {"text": text, "mmci": mmci}


if __name__ == "__main__":
    main()

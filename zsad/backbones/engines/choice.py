"""Which engine runs an encoder: from facts, never by timing.

Equal requests give equal bits on a machine, so nothing here looks at a clock, a cache or what an
earlier run found out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from zsad.backbones.block_plan import WINDOW_KINDS, Rows, plan
from zsad.backbones.engines.interface import Facts
from zsad.errors import RequestError
from zsad.types import Tap

VERIFIED_ON = 3  # pictures
GMAC_PER_SECOND = 47.0  # of a core in torch's float32, measured where it is slow
SAVED = {"openvino": 0.5, "onednn": 0.3}  # share of torch's time on such a core
# There torch runs AVX-512 code itself.  Of ViT-L, measured; with windows nothing is saved: WinCLIP
# at ViT-B/16+ took 1.2 times torch's seconds.  Of narrow blocks more is between the products: of
# `zsad-tiny`'s measured, with windows and without.
SAVED_ON_INTEL = {"openvino": 0.07}
SAVED_ON_INTEL_NARROW = {"openvino": 0.12, "onednn": 0.05}
NARROW = 384  # width of a block, at most; the next wider CLIP has 512
PACKING = 6e-9  # seconds for a weight

# Of window passes on a GPU, whose short sequences are memory traffic for the most part; priced by
# a roofline (docs/performance.md), not measured.
GPU_GMAC_PER_SECOND = 160_000.0
SAVED_BY_FUSING = 0.25
COMPILING = 20.0  # seconds, whatever the encoder


@dataclass(frozen=True)
class Work:
    """``gmac``: 10^9 multiplications of one image; ``depth``: blocks of the encoder;
    ``pictures``: how many are known to come; ``windows``: whether there are window passes;
    ``width``: of its blocks."""

    gmac: float
    depth: int
    pictures: int
    windows: bool = False
    width: int = 1024


def check(asked: str, precision: str, facts: Facts) -> None:
    """Raise :class:`RequestError` for an engine that cannot run what was asked for."""
    require_engine(asked, precision)
    if asked in ("auto", "torch"):
        return
    said = f"backbone.engine={asked}"
    if facts.device != "cpu":
        raise RequestError(f"{said}: runs on a CPU, not on {facts.device}; leave the key out")
    if asked == "onednn" and precision != "fp32":
        raise RequestError(
            f"{said}: packs float32 weights, and torch runs {precision} by oneDNN itself; leave "
            f"the key out, or use backbone.precision=fp32"
        )
    if asked != "openvino":
        return
    if not facts.openvino:
        raise RequestError(
            f"{said}: OpenVINO is not installed; `pip install 'zsad[cpu]'`, or leave the key out"
        )
    if precision == "fp16":
        raise RequestError(
            f"{said}: has no fp16 on a CPU; use backbone.precision=fp32 or backbone.precision=bf16"
        )
    if precision == "bf16" and not facts.bf16:
        raise RequestError(
            f"{said}: this processor does not multiply in bfloat16 (avx512_bf16 or amx_bf16), and "
            f"it is not emulated; use backbone.precision=fp32"
        )
    if precision == "int8" and not facts.vnni:
        raise RequestError(
            f"{said}: this processor does not multiply 8-bit integers (avx512_vnni or avx_vnni), "
            f"and int8 is not emulated; use backbone.precision=fp32"
        )


def require_engine(asked: str, precision: str) -> None:
    """Raise :class:`RequestError` where int8 is asked of another engine than the one that has it.

    It is never taken for granted: whoever wants other figures says by whom."""
    if precision == "int8" and asked != "openvino":
        raise RequestError(
            f"backbone.precision=int8: only OpenVINO has it, not backbone.engine={asked}; use "
            f"backbone.precision=int8 backbone.engine=openvino"
        )


def choose(asked: str, precision: str, facts: Facts, work: Work) -> str:
    """Return ``torch``, ``onednn`` or ``openvino``.

    ``auto`` is that of OpenVINO (where installed) and oneDNN which saves most beyond what its
    conversion and verification cost, torch where neither does; it leaves every precision but
    float32 to torch, since figures would change.
    """
    if asked != "auto":
        return asked
    if facts.device != "cpu" or precision != "fp32":
        return "torch"
    others = ("openvino", "onednn") if facts.openvino else ("onednn",)
    gains = {"torch": 0.0} | {engine: gain(engine, facts, work) for engine in others}
    return max(gains, key=lambda engine: gains[engine])  # of equal ones the first


def saved(engine: str, facts: Facts, work: Work) -> float:
    """The share of torch's time that an engine saves; 0: nothing, or nobody has measured it."""
    if facts.slow_linear:
        return SAVED[engine]
    if facts.avx512 and work.width <= NARROW:
        return SAVED_ON_INTEL_NARROW[engine]
    return 0.0 if work.windows else SAVED_ON_INTEL.get(engine, 0.0)


def packing_pays(facts: Facts, width: int) -> bool:
    """Whether blocks of a ``width`` multiply faster by weights that oneDNN has packed."""
    return saved("onednn", facts, Work(gmac=0, depth=0, pictures=0, width=width)) > 0


def gain(engine: str, facts: Facts, work: Work) -> float:
    """Seconds that ``work.pictures`` save beyond what the engine costs before the first of them."""
    share, seconds = saved(engine, facts, work), work.gmac / GMAC_PER_SECOND
    weights = 12 * work.depth * work.width**2
    making = 3 + 0.25 * work.depth if engine == "openvino" else PACKING * weights
    return work.pictures * share * seconds - making - VERIFIED_ON * (2 - share) * seconds


def fusing_pays(precision: str, facts: Facts, work: Work) -> bool:
    """Whether ``backbone.compile=true`` would save more on a GPU than compiling costs.

    It is advice, not a choice of ``auto``: fused kernels round half precision less often, so their
    cells are another column (:attr:`zsad.config.BackboneSettings.figures`)."""
    if facts.device != "cuda" or precision not in ("bf16", "fp16") or not work.windows:
        return False
    seconds = work.gmac / GPU_GMAC_PER_SECOND
    return work.pictures * SAVED_BY_FUSING * seconds > COMPILING


def gmac(taps: Iterable[Tap], depth: int, width: int, grid: tuple[int, int], patch: int) -> float:
    """Return the 10^9 multiplications that these taps of one image take in the blocks and the
    patch embedding."""
    taps = list(taps)
    tokens = 1 + grid[0] * grid[1]
    total = (tokens - 1) * 3 * patch * patch * width + _blocks(taps, depth, width, tokens)
    for k in {tap.layer for tap in taps if tap.kind in WINDOW_KINDS}:
        count = (grid[0] - k + 1) * (grid[1] - k + 1)
        total += count * _blocks([Tap("cls")], depth, width, 1 + k * k)
    return total / 1e9


def _blocks(taps: list[Tap], depth: int, width: int, tokens: int) -> int:
    """Multiplications of the blocks for sequences of ``tokens``."""
    total = 0
    for need in plan(taps, depth):
        rows = {Rows.NONE: 0, Rows.CLASS: 1, Rows.ALL: tokens}
        attended, written = rows[need.attention], rows[need.output]
        keys = 2 * tokens if attended else tokens * (need.vv or need.values)
        total += (attended + keys) * width * width + attended * width * width
        total += 2 * attended * tokens * width + 8 * written * width * width
        if need.vv:
            total += tokens * width * width + 2 * tokens * tokens * width
    return total

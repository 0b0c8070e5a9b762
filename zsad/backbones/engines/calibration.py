"""What ranges the inputs of linear layers have: measured once for a backbone, and kept.

The pictures are always the same ones in the same order, at the size that the position table was
made for, and go through every kind of pass that a graph may hold: the ordinary one, v-v attention
and values of every block, and windows.  So the ranges depend on weights, activation function and
preprocessing alone, and one calibration serves all methods, taps and image sizes.  They are rounded
outward, so that the last bits of a processor's sums do not show.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zsad import config as cfg
from zsad.backbones.blocks import ALL_ROWS, PARTS, Block, Part
from zsad.backbones.engines.graph_cache import Entry
from zsad.backbones.engines.interface import Examples
from zsad.backbones.engines.quantised import RECIPE, Input, place, with_blocks
from zsad.backbones.windows import window_indices
from zsad.errors import ZsadError, counted, reason
from zsad.strict_json import parse_json
from zsad.types import BackboneInfo, EncoderVariant, Tap

if TYPE_CHECKING:
    from zsad.backbones.clip_vit import ImageEncoder

log = logging.getLogger(__name__)

BITS = 6  # of a range's mantissa that are kept
NARROWEST = 1e-6  # of a range: what is always zero has one, too
NORMED = ("in", "up")  # layers behind a layer norm, whose gain a channel can be divided in
MOST_SHIFT = 12  # powers of two
WINDOWS = 8  # of a picture, for each size of window
WINDOW_SIDES = (2, 3)  # patches
FILE = "ranges.json"


@dataclass(frozen=True)
class Calibration:
    """``inputs`` by :func:`~zsad.backbones.engines.quantised.place`; ``of``: which pictures they
    were measured on."""

    inputs: Mapping[str, Input]
    of: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """Hash of the ranges and of the recipe that makes integers with them."""
        return cfg.digest([RECIPE, {name: list(found) for name, found in self.inputs.items()}], 16)

    @property
    def account(self) -> dict[str, Any]:
        """What records say of it; no date, so that equal calibrations say the same."""
        return {**self.of, "recipe": RECIPE, "digest": self.digest}


class ObservedBlock(Block):
    """A block that notes the lowest and highest value that its linear layers are given, by channel
    [2, in]."""

    def __init__(self, of: Block, layer: int, seen: dict[str, Tensor]) -> None:
        super().__init__(of.block, of.activation)  # nothing fused: all goes through product
        self._layer, self._seen = layer, seen

    def product(self, x: Tensor, part: Part, rows: slice = ALL_ROWS) -> Tensor:
        name, rows_of_x = place(self._layer, part), x.flatten(0, -2)
        before = self._seen.get(name, torch.zeros(2, x.shape[-1]))
        low = torch.minimum(before[0], rows_of_x.amin(0))
        high = torch.maximum(before[1], rows_of_x.amax(0))
        self._seen[name] = torch.stack([low, high])
        return super().product(x, part, rows)


@torch.no_grad()
def measure(encoder: ImageEncoder, images: Iterable[Tensor]) -> dict[str, Input]:
    """Return what every linear layer is given over images [1, 3, S, S].

    Raises :class:`ZsadError` for activations that are not finite, and where there is no image.
    """
    seen: dict[str, Tensor] = {}
    watched = with_blocks(encoder, lambda layer, block: ObservedBlock(block, layer, seen))
    depth = encoder.depth
    whole = {Tap("tokens", depth), Tap("vv", depth, 1)}
    whole |= {Tap("values_proj", layer) for layer in range(1, depth + 1)}
    part_of_it = {Tap("tokens", depth), Tap("values_proj", depth)}
    for image in images:
        embedded, grid = watched.embed(image)
        watched.run(embedded, whole)
        for side in (k for k in WINDOW_SIDES if k <= min(grid)):
            index = window_indices(grid, side)
            some = index[:: max(1, len(index) // WINDOWS)]
            watched.run(embedded[0][some], part_of_it)
    if not seen:
        raise ZsadError("int8: there is no picture to calibrate on")
    found = {}
    for layer, block in enumerate(encoder.blocks, 1):
        for part in PARTS:
            name = place(layer, part)
            low, high = seen[name].unbind()
            if not bool((low.isfinite() & high.isfinite()).all()):
                raise ZsadError(f"int8: activations before linear layer {name} are not finite")
            found[name] = _input(low, high, block.weights(part)[0], part in NORMED)
    return found


def _input(low: Tensor, high: Tensor, weight: Tensor, normed: bool) -> Input:
    """The range of channels [in] that meet a weight [out, in], no narrower and of few bits."""
    shifts: tuple[int, ...] = ()
    if normed:
        largest = torch.maximum(-low, high).clamp(min=NARROWEST)
        share = (largest / weight.abs().amax(0).clamp(min=NARROWEST)).sqrt()
        apart = (share / share.median()).log2().round().clamp(-MOST_SHIFT, MOST_SHIFT)
        shifts = tuple(int(shift) for shift in apart)
        low, high = low / apart.exp2(), high / apart.exp2()
    lowest, highest = -_up(-float(low.min())), _up(float(high.max()))
    return Input(lowest, max(highest, lowest + NARROWEST), shifts)


def _up(value: float) -> float:
    mantissa, exponent = math.frexp(value)
    return math.ldexp(math.ceil(mantissa * 2**BITS), exponent - BITS)


def of_backbone(
    encoder: ImageEncoder,
    info: BackboneInfo,
    examples: Examples,
    folder: Path,
    source: str,
) -> Calibration:
    """The calibration of a backbone under an encoder's activation and input, kept in ``folder``.

    What is there and damaged, or of something else, counts for nothing and is measured anew.
    ``source``: hash of the code that it depends on.
    """
    variant = EncoderVariant(
        image_size=info.native_size or info.image_size,
        activation=encoder.variant.activation,
        input=encoder.variant.input,
    )
    of = {**examples.of, "image_size": variant.image_size}
    entry = Entry(
        folder,
        {
            "backbone": [info.name, info.weights_sha256 or info.weights_source],
            "activation": info.activation,
            "variant": asdict(variant),
            "pictures": of,
            "drawn_by": examples.drawn_by(),
            "torch": str(torch.__version__),
            "source": source,
        },
    )
    if (kept := _read(entry, encoder.depth)) is not None:
        return Calibration(kept, of)
    log.info(
        "int8: measuring ranges on %s, once for the backbone", counted(of["pictures"], "picture")
    )
    inputs = measure(encoder, examples.images(info, variant))
    content = json.dumps({name: list(found) for name, found in inputs.items()})
    entry.write(lambda folder: _write(folder / FILE, content))
    return Calibration(inputs, of)


def _write(path: Path, content: str) -> None:
    path.write_text(content, encoding="utf-8")


def _given(low: float, high: float, shifts: Iterable[int]) -> Input:
    return Input(float(low), float(high), tuple(int(shift) for shift in shifts))


def _read(entry: Entry, depth: int) -> dict[str, Input] | None:
    """What an entry holds, if it is a calibration of so many blocks."""
    found = entry.read() or {}
    names = [place(layer, part) for layer in range(1, depth + 1) for part in PARTS]
    try:
        kept = parse_json(found[FILE], FILE)
        return {name: _given(*kept[name]) for name in names}
    except KeyError:
        return None
    except (ZsadError, TypeError, ValueError) as error:
        log.warning("the kept ranges %s are measured again: %s", entry.path, reason(error))
        return None

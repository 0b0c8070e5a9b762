"""2x2 mosaics of one category: the only augmentation of APRIL-GAN's and FiLo's released code,
on MVTec AD alone.

Released code makes a new mosaic whenever it draws one.  Here they come from a fixed, seeded pool,
so that frozen features can be kept; and a mosaic's label follows its tiles (released code keeps
the label of the image that the mosaic replaces).  No torch.
"""

from __future__ import annotations

import base64
import json
import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from zsad.data.ignored import of_sample
from zsad.data.images import nearest, read_image, read_mask, register_reader
from zsad.io import parse_json
from zsad.types import Sample

SCHEME = "mosaic"
FIELDS = ("image", "mask", "crop", "extra_masks", "mask_threshold")
LATER = ("bits", "ignore")  # told only of tiles that have them


@dataclass(frozen=True)
class Mosaic:
    """``train.mosaic.*``: 2x2 mosaics of the same category, with probability ``p``, when the
    auxiliary dataset is one of ``datasets``; drawn from a fixed, seeded pool."""

    p: float = 0.2
    pool: Literal["fixed"] = "fixed"
    datasets: tuple[str, ...] = ("mvtec",)

    def __post_init__(self) -> None:
        if not 0 <= self.p <= 1:
            raise ValueError(f"train.mosaic.p={self.p} must lie in 0..1")

    def applies(self, datasets: Iterable[str]) -> bool:
        """Whether a training on ``datasets`` mixes mosaics in."""
        return self.p > 0 and not set(self.datasets).isdisjoint(datasets)


def epoch(samples: Sequence[Sample], config: Mosaic, seed: int, key: str) -> list[Sample]:
    """Return the samples of an epoch, shuffled, each replaced by a mosaic with probability p.

    A pure function of its arguments; ``key`` names phase and epoch.
    """
    ordered = sorted(samples, key=lambda s: s.uid)
    groups: dict[str, list[Sample]] = {}
    for sample in ordered:
        groups.setdefault(sample.category, []).append(sample)
    pools = {c: pool(group, config, f"{seed}/{c}") for c, group in sorted(groups.items())}
    draw = random.Random(f"{seed}/{key}")
    chosen = [draw.choice(pools[s.category]) if draw.random() < config.p else s for s in ordered]
    draw.shuffle(chosen)
    return chosen


def pool(group: Sequence[Sample], config: Mosaic, key: str) -> list[Sample]:
    """Return the mosaics of a category: as many as an epoch draws on average, at least one.

    Tiles are drawn defect type first, as released, so that rare types are not rare here.
    """
    draw = random.Random(f"pool/{key}")
    kinds = sorted({s.defect for s in group})
    found = []
    for i in range(max(1, math.ceil(config.p * len(group)))):
        tiles = []
        for _ in range(4):
            kind = draw.choice(kinds)
            tiles.append(draw.choice([s for s in group if s.defect == kind]))
        found.append(mosaic(tiles, f"mosaic/{group[0].category}/{i}"))
    return found


def mosaic(tiles: Sequence[Sample], uid: str) -> Sample:
    """Describe the mosaic of four samples as a sample."""
    content = [
        {f: getattr(t, f) for f in FIELDS} | {f: v for f in LATER if (v := getattr(t, f))}
        for t in tiles
    ]
    code = base64.urlsafe_b64encode(json.dumps(content).encode()).decode()
    label = int(any(t.label for t in tiles))
    return Sample(
        image=f"{SCHEME}://image/{code}",
        label=label,
        category=tiles[0].category,
        mask=f"{SCHEME}://mask/{code}" if label else None,
        defect="mosaic",
        split=tiles[0].split,
        uid=uid,
    )


def read(uri: str) -> Image.Image:
    """Draw the picture or the mask that a URI of :func:`mosaic` denotes."""
    kind, _, code = uri.partition("://")[2].partition("/")
    tiles = [_tile(value) for value in parse_json(base64.urlsafe_b64decode(code), uri)]
    first = read_image(tiles[0].image, tiles[0].crop, tiles[0].bits)
    width, height = first.size
    whole = Image.new("RGB" if kind == "image" else "L", (2 * width, 2 * height))
    for i, tile in enumerate(tiles):
        if kind == "image":
            part = first if i == 0 else read_image(tile.image, tile.crop, tile.bits)
            part = part.resize((width, height)) if part.size != (width, height) else part
        else:
            marked = read_mask(tile, (height, width))
            if tile.ignore is not None:  # what is not looked at is no defect to learn
                shape = read_image(tile.image, tile.crop, tile.bits).size[::-1]
                hidden = of_sample(tile, shape)
                marked &= True if hidden is None else ~nearest(hidden, (height, width))
            part = Image.fromarray(marked.astype(np.uint8) * 255)
        whole.paste(part, (i % 2 * width, i // 2 * height))
    return whole


def _tile(value: dict[str, object]) -> Sample:
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}
    return Sample(label=0, category="", **values)  # type: ignore[arg-type]


register_reader(SCHEME, read)

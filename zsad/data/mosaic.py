"""2x2 mosaics of one category: the only augmentation of APRIL-GAN's and FiLo's released code,
on MVTec AD alone.

Released code makes a new mosaic whenever it draws one, which keeps the label of the image that it
replaces.  Unless that is asked for, they come from a fixed, seeded pool, so that frozen features
can be kept, and a mosaic's label follows its tiles.  No torch.
"""

from __future__ import annotations

import dataclasses
import json
import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from PIL import Image

from zsad import config as cfg
from zsad.config.method_config import MethodConfig
from zsad.data.described import address, defects, description, original
from zsad.data.images import read_image, register_reader
from zsad.types import Sample

SCHEME = "mosaic"
FIELDS = ("image", "mask", "crop", "extra_masks", "mask_threshold")
LATER = ("bits", "ignore")  # told only of tiles that have them


@dataclass(frozen=True)
class Mosaic:
    """``train.mosaic.*``: 2x2 mosaics of the same category, with probability ``p``, when the
    auxiliary dataset is one of ``datasets``.

    ``pool``: drawn from a fixed, seeded pool, or made afresh each time.  ``label``: anomalous if
    one of the tiles is, or that of the image that the mosaic replaces.
    """

    p: float = 0.2
    pool: Literal["fixed", "fresh"] = "fixed"
    datasets: tuple[str, ...] = ("mvtec",)
    label: Literal["tiles", "replaced"] = cfg.added("tiles")

    def __post_init__(self) -> None:
        if not 0 <= self.p <= 1:
            raise ValueError(f"train.mosaic.p={self.p} must lie in 0..1")

    def applies(self, datasets: Iterable[str]) -> bool:
        """Whether a training on ``datasets`` mixes mosaics in."""
        return self.p > 0 and not set(self.datasets).isdisjoint(datasets)

    def mixed(
        self,
        samples: Sequence[Sample],
        datasets: Iterable[str],
        seed: int,
        key: str,
        *,
        anomalous: bool = False,
    ) -> list[Sample] | None:
        """Return what :func:`epoch` does for a training on ``datasets``; None where that mixes no
        mosaics in."""
        if not self.applies(datasets):
            return None
        return epoch(samples, self, seed, key, anomalous=anomalous)


class MosaicTrain(Protocol):
    """``train.*`` of a method that mixes mosaics in."""

    @property
    def mosaic(self) -> Mosaic: ...


class MosaicConfig(MethodConfig):
    """What :class:`zsad.data.mixed_training.MosaicTraining` reads; sub-classes declare the keys."""

    train: MosaicTrain


def epoch(
    samples: Sequence[Sample], config: Mosaic, seed: int, key: str, *, anomalous: bool = False
) -> list[Sample]:
    """Return the samples of an epoch, shuffled, each replaced by a mosaic with probability p.

    A pure function of its arguments; ``key`` names phase and epoch.  ``anomalous``: of anomalous
    images alone, where a category has some.
    """
    ordered = sorted(samples, key=lambda s: s.uid)
    groups: dict[str, list[Sample]] = {}
    for sample in ordered:
        groups.setdefault(sample.category, []).append(sample)
    if anomalous:
        groups = {c: [s for s in g if s.label] or g for c, g in groups.items()}
    draw = random.Random(f"{seed}/{key}")
    if config.pool == "fresh":

        def drawn(replaced: Sample) -> Sample:
            return tiled(groups[replaced.category], draw, f"mosaic/{key}/{replaced.uid}", config)

    else:
        pools = {c: pool(group, config, f"{seed}/{c}") for c, group in sorted(groups.items())}

        def drawn(replaced: Sample) -> Sample:
            return draw.choice(pools[replaced.category])

    chosen = []
    for sample in ordered:
        one = drawn(sample) if draw.random() < config.p else sample
        kept = config.label == "replaced"
        chosen.append(dataclasses.replace(one, label=sample.label) if kept else one)
    draw.shuffle(chosen)
    return chosen


def pool(group: Sequence[Sample], config: Mosaic, key: str) -> list[Sample]:
    """Return the mosaics of a category: as many as an epoch draws on average, at least one."""
    draw = random.Random(f"pool/{key}")
    count = max(1, math.ceil(config.p * len(group)))
    return [tiled(group, draw, f"mosaic/{group[0].category}/{i}", config) for i in range(count)]


def tiled(group: Sequence[Sample], draw: random.Random, uid: str, config: Mosaic) -> Sample:
    """Draw the mosaic of four samples of a category.

    Tiles are drawn defect type first, as released, so that rare types are not rare here.
    """
    kinds = sorted({s.defect for s in group})
    tiles = []
    for _ in range(4):
        kind = draw.choice(kinds)
        tiles.append(draw.choice([s for s in group if s.defect == kind]))
    return mosaic(tiles, uid, masked=config.label == "replaced")


def mosaic(tiles: Sequence[Sample], uid: str, *, masked: bool = False) -> Sample:
    """Describe the mosaic of four samples as a sample, anomalous if one of them is.

    ``masked``: with a mask even if that is empty, for a sample that gets another label.
    """
    content = [
        {f: getattr(t, f) for f in FIELDS} | {f: v for f in LATER if (v := getattr(t, f))}
        for t in tiles
    ]
    told = json.dumps(content)
    label = int(any(t.label for t in tiles))
    return Sample(
        image=address(SCHEME, "image", told),
        label=label,
        category=tiles[0].category,
        mask=address(SCHEME, "mask", told) if label or masked else None,
        defect="mosaic",
        split=tiles[0].split,
        uid=uid,
    )


def read(uri: str) -> Image.Image:
    """Draw the picture or the mask that a URI of :func:`mosaic` denotes."""
    what, told = description(uri)
    tiles = [original(value) for value in told]
    first = read_image(tiles[0].image, tiles[0].crop, tiles[0].bits)
    width, height = first.size
    whole = Image.new("RGB" if what == "image" else "L", (2 * width, 2 * height))
    for i, tile in enumerate(tiles):
        if what == "image":
            part = first if i == 0 else read_image(tile.image, tile.crop, tile.bits)
            part = part.resize((width, height)) if part.size != (width, height) else part
        else:
            marked = defects(tile, (height, width))
            part = Image.fromarray(marked.astype(np.uint8) * 255)
        whole.paste(part, (i % 2 * width, i // 2 * height))
    return whole


register_reader(SCHEME, read)

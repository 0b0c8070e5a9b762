"""Draws training batches from the pool: random crops, turns, flips and colours of picture pairs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from zsad.benchmarks.tiny.pool import open_pool
from zsad.data.synthetic.generator import SIZE
from zsad.io import parse_json

MEAN = torch.tensor((0.48145466, 0.4578275, 0.40821073)).view(1, 3, 1, 1)
STD = torch.tensor((0.26862954, 0.26130258, 0.27577711)).view(1, 3, 1, 1)
PATCH = 16
# How often a class is drawn, others 1: plain textures are learned first, things need more views.
SHARE = {"woven fabric": 0.3, "brushed metal": 0.3, "marble": 0.3, "carpet": 0.3, "surface": 0.7}


@dataclass
class Batch:
    """``images`` [B, 3, S, S] normalised; ``cover`` [B, h, w]: how anomalous each patch is, 0..1;
    ``defective`` [B] bool; ``certain`` [B] bool: False where a crop shows a mere trace of the
    defect; ``positions``: centre of the defect (x, y) in 0..1."""

    images: Tensor
    cover: Tensor
    defective: Tensor
    certain: Tensor
    facts: list[dict[str, str]]
    positions: list[tuple[float, float] | None]


class Pool:
    """The pool of :mod:`zsad.benchmarks.tiny.pool`, as far as it is filled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        pairs = (folder / "pictures.u8").stat().st_size // (2 * SIZE * SIZE * 3)
        self.pictures, self.masks = open_pool(folder, pairs, "r")
        self.reload()

    def reload(self) -> None:
        """Take in the pairs that were drawn since."""
        text = (self.folder / "facts.jsonl").read_text("utf-8")
        facts = [
            parse_json(line, "facts.jsonl") for line in text[: text.rfind("\n") + 1].splitlines()
        ]
        shares = np.array([SHARE.get(f["class"], 1.0) for f in facts])
        self.drawn = facts, shares / shares.sum()  # in one go: batches are cut in another thread

    def draw(self, rng: np.random.Generator, pairs: int, side: int) -> Batch:
        """``pairs`` pairs of pictures at ``side`` pixels; both of a pair are cut the same way."""
        # Mostly cut at the scale at which pictures are evaluated, sometimes from further away.
        facts, shares = self.drawn
        window = side
        if side < SIZE and rng.random() < 0.35:
            window = int(rng.integers(side, min(SIZE, side + 64) + 1))
        chosen = np.sort(rng.choice(len(facts), pairs, replace=False, p=shares))
        pictures = np.empty((pairs, 2, window, window, 3), np.uint8)
        masks = np.empty((pairs, window, window), np.uint8)
        for i, k in enumerate(chosen):
            whole = np.unpackbits(self.masks[k]).reshape(SIZE, SIZE)
            top, left = place_window(rng, whole, window)
            cut = np.s_[top : top + window, left : left + window]
            turns, flip = int(rng.integers(4)), bool(rng.integers(2))
            mask = whole[cut]
            both = self.pictures[k][:, cut[0], cut[1]]
            masks[i] = np.rot90(mask[:, ::-1] if flip else mask, turns)
            pictures[i] = np.rot90(both[:, :, ::-1] if flip else both, turns, (1, 2))
        images = torch.from_numpy(pictures).flatten(0, 1).permute(0, 3, 1, 2)
        if window != side:  # bytes in channels-last order: torch's fast path
            images = F.interpolate(
                images, (side, side), mode="bilinear", antialias=True, align_corners=False
            )
        images = images.contiguous().float().div_(255)
        images = (colours(rng, images, pairs) - MEAN) / STD

        bits = torch.from_numpy(masks)[:, None].float()
        area = bits.sum((1, 2, 3))
        grid = F.adaptive_avg_pool2d(bits, side // PATCH)[:, 0]  # share of each patch
        bad = area >= 24
        cover = torch.stack([torch.zeros_like(grid), (grid * 8).clamp(max=1)], 1).flatten(0, 1)
        defective = torch.stack([torch.zeros_like(bad), bad], 1).flatten()
        certain = torch.stack([torch.ones_like(bad), bad | (area == 0)], 1).flatten()
        axis = torch.arange(window) / window
        x = (bits.sum((1, 2)) * axis).sum(1) / area.clamp(min=1)
        y = (bits.sum((1, 3)) * axis).sum(1) / area.clamp(min=1)
        positions = [p for i in range(pairs) for p in (None, (float(x[i]), float(y[i])))]
        said = [facts[k] for k in chosen for _ in range(2)]
        return Batch(images, cover, defective, certain, said, positions)


def place_window(rng: np.random.Generator, mask: np.ndarray, window: int) -> tuple[int, int]:
    """Top left corner of a square of ``window`` pixels; nine in ten show some of the defect."""
    room = mask.shape[0] - window
    if room == 0:
        return 0, 0
    corner = rng.integers(0, room + 1, 2)
    rows, columns = np.nonzero(mask)
    if len(rows) and rng.random() < 0.9:
        at = int(rng.integers(len(rows)))
        seen_from = rng.integers(window // 8, window - window // 8, 2)
        corner = np.clip(np.array((rows[at], columns[at])) - seen_from, 0, room)
    return int(corner[0]), int(corner[1])


def colours(rng: np.random.Generator, images: Tensor, pairs: int) -> Tensor:
    """Change light, contrast, saturation and now and then the channels, alike within a pair."""

    def per_pair(low: float, high: float, channels: int = 1) -> Tensor:
        values = rng.uniform(low, high, (pairs, channels, 1, 1)).astype(np.float32)
        return torch.from_numpy(values).repeat_interleave(2, 0)

    images = images * per_pair(0.8, 1.2) * per_pair(0.94, 1.06, 3)
    middle = images.mean((1, 2, 3), keepdim=True)
    images = middle + (images - middle) * per_pair(0.7, 1.25)
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * per_pair(0.3, 1.3)
    if rng.random() < 0.25:
        images = images[:, torch.from_numpy(rng.permutation(3))]
    return images.clamp(0, 1)


def cut_windows(rng: np.random.Generator, batch: Batch) -> tuple[Tensor, Tensor]:
    """Token rows [B, 1 + k*k] of one window of k x k patches per picture (class token first), and
    whether it shows the defect [B].  Half of the windows lie on the defect where there is one."""
    count, side = batch.cover.shape[0], batch.cover.shape[1]
    k = int(rng.integers(2, 5))
    corner = rng.integers(0, side - k + 1, (count, 2))
    for i in range(count):
        hits = torch.nonzero(batch.cover[i] > 0.3)
        if len(hits) and rng.random() < 0.5:
            corner[i] = np.clip(
                hits[int(rng.integers(len(hits)))].numpy() - rng.integers(0, k, 2), 0, side - k
            )
    offsets = (np.arange(k)[:, None] * side + np.arange(k)).ravel()
    rows = torch.from_numpy(1 + corner[:, :1] * side + corner[:, 1:] + offsets)
    rows = torch.cat([torch.zeros(count, 1, dtype=torch.long), rows], 1)
    found = torch.gather(batch.cover.flatten(1), 1, rows[:, 1:] - 1).amax(1)
    return rows, (found > 0.3).float()

"""One of several processes that encode together: ``FOLDER RANK WORLD WEIGHTS DATA BROKEN``.

DATA and BROKEN are folders of pictures; what is found goes to FOLDER/<case>-<rank>.pt.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from zsad import backbones
from zsad.config import BackboneSettings, DataSettings, RunSettings, Settings
from zsad.data.index import load_index
from zsad.errors import ZsadError
from zsad.training.feature_store import FeatureStore
from zsad.training.images import TrainingImages
from zsad.types import FeatureRequest, Tap

TAPS = FeatureRequest.of(Tap("cls"), Tap("tokens", 4), Tap("vv_proj", 6, 2))
GROUP = 4
SIZE = 32


def encoded(weights: Path, data: Path, room: int, group: int = GROUP) -> dict[str, Any]:
    """Features and masks of all pictures of a folder, and how many this process encoded."""
    torch.set_num_threads(1)
    backbone = backbones.load("file", weights=weights, image_size=SIZE)
    settings = Settings(
        backbone=BackboneSettings(name="file", image_size=SIZE),
        data=DataSettings(workers=0),
        run=RunSettings(feature_cache_gb=0.05),
    )
    samples = load_index(f"folder:{data}").samples
    with FeatureStore(host_bytes=room) as store:
        images = TrainingImages(backbone, settings, store, group=group)
        images.prepare(samples, TAPS)
        shared = backbone.counters.images
        features, targets = images.batch(samples, TAPS, TAPS.taps)
    return {
        "shared": shared,
        "group": images.group,
        "features": [features[tap] for tap in sorted(TAPS.taps)],
        "masks": targets.masks,
    }


def main(folder: Path, rank: int, world: int, weights: Path, data: Path, broken: Path) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'rendezvous'}", rank=rank, world_size=world
    )
    little = 1 << 16 if rank else 1 << 28
    cases: dict[str, tuple[Path, int, int]] = {
        "whole": (data, 1 << 28, GROUP),
        "chosen": (data, 1 << 28, 0),
        "little": (data, little, GROUP),
        "broken": (broken, 1 << 28, GROUP),
    }
    for case, (place, room, group) in cases.items():
        try:
            found = encoded(weights, place, room, group)
        except ZsadError as error:
            found = {"error": str(error)}
        torch.save(found, folder / f"{case}-{rank}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(
        Path(sys.argv[1]),
        int(sys.argv[2]),
        int(sys.argv[3]),
        *(Path(word) for word in sys.argv[4:7]),
    )

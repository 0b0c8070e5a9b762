"""The runner's small dataset and backbone, and maps that another program might make."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest

from tests.runner.conftest import bench, definition, write_dataset
from zsad.data.index import load_index
from zsad.types import Sample

__all__ = ["bench", "definition", "write_dataset"]


@pytest.fixture
def samples(definition: Path) -> list[Sample]:
    """The test images of the small dataset, in its order."""
    return [s for s in load_index(str(definition)).samples if s.split == "test"]


def plane_of(sample: Sample, size: int = 64) -> np.ndarray:
    """A map [size, size] that says something of the image, the same every time."""
    rng = np.random.default_rng(zlib.crc32(sample.uid.encode()))
    plane = rng.random((size, size)) * 0.5
    if sample.label:
        plane[10:30, 10:30] += rng.random() * 0.6
    return plane.astype(np.float32)

"""What `zsad data check` says of masks of another size, and of one that may be inverted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from zsad.data.check import check
from zsad.data.folder_dataset import folder_spec


def write(path: Path, marked: int, size: tuple[int, int] = (20, 30)) -> None:
    """A grey picture whose first ``marked`` rows are white."""
    values = np.zeros(size, np.uint8)
    values[:marked] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def test_single_masks_that_are_odd_are_named(tmp_path: Path) -> None:
    for i in range(4):
        write(tmp_path / "normal" / f"n{i}.png", i)
        write(tmp_path / "anomalous" / f"a{i}.png", 10 + i)
        write(tmp_path / "masks" / f"a{i}.png", 18 if i == 2 else 3)
    write(tmp_path / "masks" / "a3.png", 6, (40, 60))
    said = [f.text for f in check(folder_spec(tmp_path)).findings if "mask" in f.text]
    assert said == [
        "1 of 4 masks marks more than half of the picture (first: anomalous/a2.png): look "
        "whether the defect is that large, or the mask inverted",
        "1 mask has another size than the picture, and is scaled to it (first: anomalous/a3.png)",
    ]

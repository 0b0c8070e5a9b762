"""What goes wrong while a method is trained."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.fault.place import Place, document
from tests.fault.process import zsad
from tests.training.conftest import backbone, dataset, index, settings, weights
from tests.training.test_engine import Diverging
from zsad import registry
from zsad.backbones import Backbone
from zsad.config import Settings
from zsad.data.index import DatasetIndex
from zsad.errors import CellError
from zsad.training import fit

__all__ = ["backbone", "dataset", "index", "settings", "weights"]  # fixtures

pytestmark = pytest.mark.fault


class Gluttonous(Diverging):
    """Asks for a pebibyte per image."""

    name = "gluttonous"

    def losses(self, features: Any, batch: Any, context: Any) -> dict[str, Tensor]:
        torch.empty((features.batch_size, 1 << 48))
        raise AssertionError("there was room")


def test_no_memory_for_a_batch_says_what_to_lower(
    index: DatasetIndex, backbone: Backbone, settings: Settings, tmp_path: Path
) -> None:
    method = Gluttonous(registry.method("anomalyclip").resolve(), backbone.info)
    words = "gluttonous: out of memory in phase only with batches of 4; lower gluttonous.train"
    with pytest.raises(CellError, match=words):
        fit([method], index, backbone, settings=settings, seed=0, out_dir=tmp_path)
    assert not list(tmp_path.rglob("zsad-features-*"))


def test_an_image_that_cannot_be_read_fails_its_methods_by_name(
    own_place: Place, tmp_path: Path
) -> None:
    (own_place.images / "bolt" / "test" / "spot" / "002.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    done = zsad(*own_place.train(tmp_path / "results"))
    assert done.code == 3
    assert document(done)["checkpoints"] == []
    assert len(document(done)["failed"]) == 2
    assert all("bolt/test/spot/002.png" in f["error"] for f in document(done)["failed"])


def test_data_that_changes_is_trained_on_again(own_place: Place, tmp_path: Path) -> None:
    image = own_place.images / "bolt" / "test" / "spot" / "002.png"
    pixels = image.read_bytes()

    def train(comment: bytes, time: int) -> dict[str, Any]:
        image.write_bytes(pixels + comment)  # what follows the picture is not looked at
        os.utime(image, ns=(time, time))
        done = zsad(*own_place.train(tmp_path / "results", "--seeds", "0"))
        assert done.code == 0
        (checkpoint,) = document(done)["checkpoints"]
        return dict(checkpoint)

    first = train(b"one", 1)
    assert not first["reused"]
    other = train(b"two", 2)
    assert not other["reused"]
    assert other["checkpoint"] != first["checkpoint"]
    back = train(b"one", 3)
    assert back["reused"]
    assert back["checkpoint"] == first["checkpoint"]

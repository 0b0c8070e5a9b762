"""APRIL-GAN trained on a miniature of MVTec AD: mosaics are visited, and encoded once, or anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.data.miniatures import write_miniature
from zsad import checkpoints, registry
from zsad.backbones import Backbone
from zsad.config import BackboneSettings, DataSettings, Settings
from zsad.data.index import load_index
from zsad.method import new_method
from zsad.training import fit


@pytest.mark.parametrize("preset", ["default", "released"])
def test_mosaics_are_encoded_once_for_all_epochs_unless_they_are_drawn_anew(
    small_backbone: Callable[..., Backbone], tmp_path: Path, preset: str
) -> None:
    backbone = small_backbone(38, size=56, vision_layers=4, text_layers=1)
    write_miniature("mvtec", tmp_path / "data")
    index = load_index("mvtec", tmp_path / "data")
    samples = [
        s for s in index.samples if s.split == "test" and s.category in ("bottle", "capsule")
    ]
    entry = registry.method("aprilgan")
    config = entry.resolve(("test", {"preset": preset, "train": {"mosaic": {"p": 0.5}}}))
    method = new_method(entry, config, backbone.info, 0)
    (result,) = fit(
        [method],
        index,
        backbone,
        settings=Settings(
            backbone=BackboneSettings(name="file", image_size=56), data=DataSettings(workers=0)
        ),
        seed=0,
        out_dir=tmp_path / "out",
        samples=samples,
    )
    (phase,) = method.phases()
    epochs = [method.epoch_samples(samples, phase, e, 0) or [] for e in range(phase.epochs)]
    visits = [s for visited in epochs for s in visited if s.uid.startswith("mosaic/")]
    mosaics = {s.uid for s in visits}
    assert (len(mosaics) < len(visits)) == (preset == "default")
    assert backbone.counters.images == len(samples) + len(mosaics)
    meta = checkpoints.read_meta(result.checkpoint)
    assert meta is not None
    assert meta.epochs == phase.epochs == len(result.history) == 3
    assert result.history[-1]["total"] < result.history[0]["total"]
    assert meta.trained_on is not None
    assert set(meta.trained_on.uids) == {s.uid for s in samples}  # no mosaic passes for an image

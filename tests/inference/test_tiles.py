"""Tiles and own proportions: geometry, blending, what is scored, what is refused."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import zsad
from zsad import registry
from zsad.errors import RequestError
from zsad.inference.tiles import LEAST_PATCHES, Framing
from zsad.runtime.boxes import in_tile
from zsad.runtime.tiles import MOST_AUTO, OVERLAP, Grid, Joined, spans, weights
from zsad.types import Boxes


def loaded(method: str = "clip", **options: Any) -> Any:
    return zsad.load_method(
        method, backbone="zsad-tiny", device="cpu", image_size=128, untrained=True, **options
    )


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(90, 130, (height, width, 3), dtype=np.uint8)
    pixels[height // 2 : height // 2 + 6, width // 4 : width // 4 + 6] = 250
    return Image.fromarray(pixels)


# ------------------------------------------------------------------------------ geometry
def test_known_spans() -> None:
    assert spans(10, 10) == spans(10, 99) == ((0, 10),)
    assert spans(100, 40) == ((0, 40), (30, 70), (60, 100))


@given(st.integers(1, 3000), st.integers(1, 700))
def test_spans_cover_evenly_and_overlap(length: int, side: int) -> None:
    cover = spans(length, side)
    assert (cover[0][0], cover[-1][1]) == (0, length)
    assert {end - start for start, end in cover} == {min(side, length)}
    for (_, end), (start, _) in pairwise(cover):
        assert end - start >= side * OVERLAP - 1


@given(st.integers(1, 2000), st.integers(4, 500))
def test_weights_add_up_to_one_and_vanish_at_seams(length: int, side: int) -> None:
    cover = spans(length, side)
    total = np.zeros(length)
    for weight, (start, end) in zip(weights(cover), cover, strict=True):
        total[start:end] += weight
    np.testing.assert_allclose(total, 1, atol=1e-5)


def test_joined_maps_of_a_ramp_are_the_ramp() -> None:
    grid = Grid.of(60, 90, 24)
    ramp = np.add.outer(np.arange(60.0), 2 * np.arange(90.0)).astype(np.float32)
    joined = Joined(grid, 24)
    for i, (left, top, right, bottom) in enumerate(grid.boxes):
        joined.add(i, ramp[top:bottom, left:right])
    np.testing.assert_allclose(joined.values, ramp, atol=1e-3)


def test_numbers_of_tiles() -> None:
    assert len(Framing.of("4").cut(300, 400, 64)) == 12
    assert len(Framing.of(4).cut(100, 2500, 64)) == 4  # a line scan: one row
    assert len(Framing.of("auto").cut(64, 60, 64)) == 1  # no detail to gain
    assert len(Framing.of("auto").cut(64, 160, 64)) == 3
    assert len(Framing.of("auto").cut(9000, 9000, 64)) <= MOST_AUTO
    assert not Framing.of(1).tiled
    assert Framing.of(None).identity() == {}
    for wrong in ("x", "-2", 65, "2.5"):
        with pytest.raises(RequestError, match=f"--tiles {wrong}"):
            Framing.of(wrong)


def test_sizes_in_own_proportions() -> None:
    framing = Framing(keep_aspect=True)
    assert framing.input_size(500, 500, 64, 8) == (64, 64)
    assert framing.input_size(400, 100, 64, 8) == (128, 32)
    assert framing.input_size(3, 4, 224, 16) == (192, 256)
    height, width = framing.input_size(100, 100_000, 64, 8)
    assert height == LEAST_PATCHES * 8
    assert width == 128
    assert Framing().input_size(400, 100, 64, 8) == (64, 64)


def test_boxes_of_a_tile() -> None:
    whole = Boxes([[0.5, 0.5, 0.5, 0.5], [0.1, 0.1, 0.1, 0.1]], [0.9, 0.8], ["hole", "dent"])
    found = in_tile(whole, (50, 50, 100, 100), (100, 100))
    assert found == Boxes([[0.25, 0.25, 0.5, 0.5]], [0.9], ["hole"])
    assert in_tile(None, (0, 0, 1, 1), (9, 9)) is None


# ----------------------------------------------------------------------------- predictions
def test_score_and_map_are_the_larger_of_whole_and_tiles() -> None:
    image = picture(96, 160)
    grid = Framing.of(3).cut(96, 160, 128)
    whole = loaded().predict(image, "nut")[0]
    tiles = loaded().predict([image.crop(box) for box in grid.boxes], "nut")
    joined = Joined(grid, 128)
    for i, tile in enumerate(tiles):
        joined.add(i, tile.anomaly_map)
    found = loaded(tiles=3).predict(image, "nut")[0]
    scores = [whole.image_score, *(t.image_score for t in tiles)]
    assert found.image_score == pytest.approx(max(scores), abs=1e-5)
    assert found.anomaly_map.shape == (96, 160)
    expected = np.maximum(whole.anomaly_map, joined.values)
    np.testing.assert_allclose(found.anomaly_map, expected, atol=0.02)  # one resampling less
    best = int(np.argmax(scores))
    if best:
        left, top, right, bottom = grid.boxes[best - 1]
        box = (left / 160, top / 96, right / 160, bottom / 96)
        assert found.explanations[0].region == pytest.approx(box)
        assert "tile" in found.explanations[0].note


def test_a_square_picture_is_scored_as_ever_with_own_proportions() -> None:
    images = [picture(80, 80), picture(80, 80, 1)]
    for expected, found in zip(
        loaded().predict(images, "nut"),
        loaded(keep_aspect=True).predict(images, "nut"),
        strict=True,
    ):
        assert expected.image_score == found.image_score
        np.testing.assert_array_equal(expected.anomaly_map, found.anomaly_map)


@pytest.mark.parametrize("method", sorted(registry.methods()))
def test_every_method_takes_own_proportions(method: str) -> None:
    """Batches of several proportions; each picture as if it were alone."""
    few = {"overrides": {"shots": 1}} if method == "patchcore" else {}
    near = [picture(60, 120, 9)] if few else []
    images = [picture(60, 120), picture(60, 120, 1), picture(120, 60), picture(90, 90)]
    if method == "musc":
        with pytest.raises(RequestError, match="same proportions"):
            loaded(method, keep_aspect=True).predict(images, "nut")
        images = images[:2]
    found = loaded(method, keep_aspect=True, **few).predict(images, "nut", references=near)
    assert [f.anomaly_map.shape for f in found] == [(i.height, i.width) for i in images]
    assert all(np.isfinite(f.anomaly_map).all() for f in found)
    if method not in ("musc", "anovl"):
        alone = loaded(method, keep_aspect=True, **few).predict(images[1], "nut", references=near)
        assert alone[0].image_score == pytest.approx(found[1].image_score, abs=1e-4)


def test_references_are_cut_as_pictures_are() -> None:
    normal, image = picture(96, 160, 3), picture(96, 160)
    method = loaded("patchcore", tiles=3, overrides={"shots": 1})
    same = method.predict(normal, "nut", references=[normal], explanations=0)[0]
    assert same.anomaly_map.max() < 0.05  # every tile has its own like in the memory
    assert method.predict(image, "nut", references=[normal])[0].image_score > same.image_score


def test_what_cannot_be_cut_is_refused() -> None:
    with pytest.raises(RequestError, match="--tiles: method 'musc' scores a picture with others"):
        loaded("musc", tiles=2)
    import torch

    with pytest.raises(RequestError, match="load the method without tiles"):
        loaded(tiles=2).predict_tensor(torch.zeros(1, 3, 128, 128), "nut")
    with pytest.raises(RequestError, match="same proportions"):
        loaded("patchcore", keep_aspect=True, overrides={"shots": 2}).predict(
            picture(60, 90), "nut", references=[picture(60, 90), picture(90, 60)]
        )


@pytest.mark.parametrize("other", [{}, {"tiles": 3}, {"tiles": 2, "keep_aspect": True}])
def test_a_calibration_is_bound_to_the_tiling(tmp_path: Path, other: dict[str, Any]) -> None:
    from zsad.inference import calibration

    normal = [picture(64, 96, seed) for seed in (1, 2)]
    method = loaded(tiles=2)
    path = calibration.save(
        tmp_path / "c.json", method.calibrate(normal, "nut"), method.identity("nut")
    )
    assert calibration.load(path, method.identity("nut")).rule == "calibrated"
    with pytest.raises(RequestError, match=r"was made for (tiles|keep_aspect)"):
        calibration.load(path, loaded(**other).identity("nut"))


def test_what_is_ignored_leaves_tiles_too() -> None:
    from zsad.data.ignored import Ignored

    image = picture(96, 160)
    method = loaded("patchcore", tiles=3, overrides={"shots": 1})
    noise = np.random.default_rng(3).integers(90, 130, (96, 160, 3), dtype=np.uint8)
    near = [Image.fromarray(noise)]
    hidden = Ignored(rectangle=(0, 0, 80, 96))  # the flaw, and some tiles altogether
    seen = next(method.stream([image], "nut", references=near))
    left = next(method.stream([image], "nut", references=near, ignore=hidden))
    assert left.ignored is not None
    assert left.size == (96, 160)
    assert left.values is not None
    assert np.isfinite(left.values).all()
    assert left.seen is not None
    assert seen.values is not None
    assert left.seen.max() < seen.values.max()

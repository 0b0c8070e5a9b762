"""From detections to kept boxes and positions."""

from __future__ import annotations

import pytest
import torch

from zsad.maps import suppress_boxes
from zsad.methods.filo.boxes import locate
from zsad.methods.filo.config import Grounding
from zsad.methods.filo.prompts import POSITIONS
from zsad.types import Boxes

ASKED = ("anomaly", "crack")


def one(box: list[float], score: float = 0.6, phrase: str = "crack") -> Boxes:
    return Boxes([box], [score], [phrase])


@pytest.mark.parametrize("arithmetic", ["exact", "released"])
@pytest.mark.parametrize("cell", range(9))
def test_each_of_the_nine_positions_is_reached(arithmetic: str, cell: int) -> None:
    centre = [(cell % 3 + 0.5) / 3, (cell // 3 + 0.5) / 3]
    found = locate(one([*centre, 0.1, 0.1]), ASKED, Grounding(), arithmetic, 518)
    assert found.position == cell
    assert POSITIONS[cell] == POSITIONS[found.position]


def test_exact_cells_have_no_gap_and_released_ones_do() -> None:
    gap = one([172.5 / 518, 0.5, 0.1, 0.1])
    assert locate(gap, ASKED, Grounding(), "exact", 518).position == 3
    assert locate(gap, ASKED, Grounding(), "released", 518).position is None


@pytest.mark.parametrize("centre,cell", [((1.0, 1.0), 8), ((0.0, 0.0), 0), ((-0.01, 1.02), 6)])
def test_exact_centres_on_and_over_the_edge(centre: tuple[float, float], cell: int) -> None:
    found = locate(one([*centre, 0.1, 0.1]), ASKED, Grounding(), "exact", 240)
    assert found.position == cell


def test_no_answer_means_all_positions_and_no_suppression() -> None:
    for boxes in (None, Boxes([], [], [])):
        found = locate(boxes, ASKED, Grounding(), "exact", 518)
        assert found.kept is None
        assert found.position is None


def test_low_and_large_boxes_fall_and_the_best_is_the_fallback() -> None:
    boxes = Boxes(
        [[0.5, 0.5, 0.95, 0.95], [0.2, 0.2, 0.1, 0.1], [0.8, 0.8, 0.1, 0.1]],
        [0.9, 0.26, 0.2],
        ["crack"] * 3,
    )
    kept = locate(boxes, ASKED, Grounding(), "exact", 518).kept
    assert kept is not None
    assert kept.scores == [0.26]
    lone = locate(boxes, ASKED, Grounding(box_threshold=0.95), "exact", 518).kept
    assert lone is not None
    assert lone.scores == [0.9]


def test_phrases_are_compared_without_case_or_with_it_as_released() -> None:
    capital = one([0.1, 0.1, 0.1, 0.1], phrase="CRACK")
    assert locate(capital, ASKED, Grounding(), "exact", 518).position == 0
    released = locate(capital, ASKED, Grounding(), "released", 518)
    assert released.position == 4  # no word matched: "center"
    assert released.kept is not None
    free = locate(one([0.1, 0.1, 0.1, 0.1], phrase="shine"), ASKED, Grounding(), "exact", 518)
    assert free.kept is None
    off = Grounding(phrase_filter=False)
    assert locate(capital, (), off, "exact", 518).position == 0


def test_released_cuts_scores_and_takes_the_later_of_equals() -> None:
    boxes = Boxes([[0.1, 0.1, 0.1, 0.1], [0.9, 0.9, 0.1, 0.1]], [0.618, 0.612], ["crack"] * 2)
    assert locate(boxes, ASKED, Grounding(), "released", 518).position == 8
    assert locate(boxes, ASKED, Grounding(), "exact", 518).position == 0


def test_a_defect_under_a_box_survives_and_the_same_outside_is_damped() -> None:
    maps = torch.full((1, 60, 60), 0.1)
    maps[0, 10:14, 10:14] = 0.9
    maps[0, 40:44, 40:44] = 0.9
    raw = one([0.2, 0.2, 0.2, 0.2])
    for arithmetic in ("exact", "released"):
        place = locate(raw, ASKED, Grounding(), arithmetic, 60)
        out = suppress_boxes(maps, [place.kept], 0.7, arithmetic)
        assert torch.equal(out[0, 10:14, 10:14], maps[0, 10:14, 10:14])
        torch.testing.assert_close(out[0, 40:44, 40:44], 0.7 * maps[0, 40:44, 40:44])


def test_released_suppresses_an_image_whose_boxes_are_all_dropped() -> None:
    maps = torch.rand(1, 20, 20, generator=torch.Generator().manual_seed(0))
    place = locate(one([0.5, 0.5, 0.4, 0.4], phrase="shine"), ASKED, Grounding(), "released", 20)
    torch.testing.assert_close(suppress_boxes(maps, [place.kept], 0.7, "released"), 0.7 * maps)


def test_the_new_detector_is_recorded_and_hashed_as_before() -> None:
    from zsad import config as cfg
    from zsad import registry

    entry = registry.method("filo")
    config = entry.resolve()
    old = entry.resolve(("a test", {"grounding": {"detector": "groundingdino"}}))
    assert cfg.identity(config)["grounding"]["detector"] == "transformers"
    assert cfg.hashed(config) == cfg.hashed(old) == cfg.identity(old)
    other = entry.resolve(
        ("a test", {"grounding": {"detector": "tests.grounding.detectors:whole"}})
    )
    assert cfg.hashed(other) != cfg.hashed(config)

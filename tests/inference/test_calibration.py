"""Thresholds: answers worked out by hand, and the promise about false alarms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zsad.errors import DataError, RequestError
from zsad.inference import calibration
from zsad.inference.prediction import Prediction, Thresholds


def above(value: float) -> float:
    """The next number of single precision."""
    return float(np.nextafter(np.float32(value), np.float32(np.inf)))


@pytest.mark.parametrize(
    ("n", "share", "k", "bound"),
    [
        (5, 0.05, 5, 1 / 6),  # too few for 5 %: the largest, and one in six
        (19, 0.05, 19, 0.05),  # just enough
        (39, 0.05, 38, 0.05),
        (39, 0.1, 36, 0.1),
        (9, 0.5, 5, 0.5),  # the median
        (1, 0.05, 1, 0.5),
    ],
)
def test_the_threshold_is_a_known_order_statistic(
    n: int, share: float, k: int, bound: float
) -> None:
    scores = [float(v) for v in np.random.default_rng(n).permutation(n) + 1]
    threshold, expected = calibration.conformal(scores, share)
    assert threshold == above(k)
    assert expected == pytest.approx(bound)


def test_both_thresholds_come_from_their_own_figures() -> None:
    found = calibration.calibrated([0.1, 0.3, 0.2], [0.7, 0.6, 0.9])
    assert found == Thresholds(above(0.3), above(0.9), "calibrated", 3, 0.25)
    assert not any(s >= found.image for s in (0.1, 0.2, 0.3))  # no picture of the calibration


@given(st.integers(1, 60), st.floats(0.01, 0.9), st.integers(0, 2**32 - 1))
def test_new_normal_pictures_keep_the_promise(n: int, share: float, seed: int) -> None:
    """Exact by symmetry: leave each of n + 1 scores out in turn and see how many lie above."""
    scores = np.random.default_rng(seed).normal(size=n + 1).astype(np.float32)
    alarms = 0
    for i in range(n + 1):
        threshold, bound = calibration.conformal(np.delete(scores, i).tolist(), share)
        alarms += scores[i] >= threshold
    assert alarms / (n + 1) <= bound + 1e-9
    assert bound == pytest.approx(max(bound, 1 / (n + 1)))
    assert bound <= max(share, 1 / (n + 1)) + 1e-9


def test_the_rule_of_thumb_by_hand() -> None:
    values = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 100.0]])  # median 3.5, deviations 0.5 ... 96.5
    deviation = 1.4826 * 1.5  # of 2.5 1.5 0.5 0.5 1.5 96.5
    found = calibration.uncalibrated(values, reads_text=True)
    assert found.image == 0.5
    assert found.pixel == pytest.approx(3.5 + 5 * deviation)
    assert found.rule == "uncalibrated"
    assert Prediction(0.5, values, thresholds=found).anomalous is True
    assert Prediction(0.5, values, thresholds=found).mask.sum() == 1


def test_the_rule_of_thumb_follows_the_scale_of_the_map() -> None:
    values = np.random.default_rng(0).gamma(2, size=(30, 40))
    one = calibration.uncalibrated(values, True).pixel
    assert calibration.uncalibrated(7 * values - 2, True).pixel == pytest.approx(7 * one - 2)


def test_a_flat_map_has_nothing_that_stands_out_but_its_peak() -> None:
    flat = np.full((8, 8), 0.25, dtype=np.float32)
    assert not Prediction(0.1, flat, thresholds=calibration.uncalibrated(flat, True)).mask.any()
    flat[2, 3] = 0.3
    marked = Prediction(0.1, flat, thresholds=calibration.uncalibrated(flat, True)).mask
    assert np.argwhere(marked).tolist() == [[2, 3]]


def test_a_method_without_texts_gives_no_verdict() -> None:
    found = calibration.uncalibrated(np.zeros((2, 2)), reads_text=False)
    assert found.image is None
    assert Prediction(0.9, np.zeros((2, 2)), thresholds=found).anomalous is None


def test_thresholds_by_hand_replace_only_what_they_name() -> None:
    prediction = Prediction(0.4, np.zeros((2, 2)), thresholds=Thresholds(0.5, 0.7))
    prediction.set_by_hand()
    assert prediction.thresholds == Thresholds(0.5, 0.7)
    prediction.set_by_hand(image=0.4)
    assert prediction.thresholds == Thresholds(0.4, 0.7, "given")
    assert prediction.anomalous is True


@pytest.mark.parametrize(("scores", "share"), [([], 0.1), ([0.5], 0.0), ([0.5], 1.0)])
def test_impossible_wishes_are_refused(scores: list[float], share: float) -> None:
    with pytest.raises(RequestError):
        calibration.calibrated(scores, scores, share)


def test_a_stored_calibration_fits_only_what_it_was_made_for(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    made_for = {"method": "clip", "class_name": "nut"}
    limits = calibration.calibrated([0.1, 0.25], [0.5, 0.75])
    calibration.save(path, limits, made_for)
    assert calibration.load(path, made_for) == limits
    with pytest.raises(RequestError, match="was made for class_name 'nut', not 'bolt'"):
        calibration.load(path, {**made_for, "class_name": "bolt"})


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[1]",
        '{"thresholds": {"image": 1}, "made_for": {}}',
        '{"thresholds": {"image": 0.5, "pixel": "high"}, "made_for": {}}',
    ],
)
def test_another_file_is_no_calibration(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(DataError, match="not a calibration file"):
        calibration.load(path, {})

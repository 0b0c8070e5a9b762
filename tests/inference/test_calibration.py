"""Thresholds: answers worked out by hand, and the promise about false alarms."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zsad.errors import DataError, RequestError
from zsad.inference import calibration
from zsad.inference.prediction import Prediction
from zsad.runtime.thresholds import Thresholds, of_picture


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
    found = calibration.calibrated([0.1, 0.3, 0.2], [7.0, 6.0, 9.0])
    assert found == Thresholds(above(0.3), None, "calibrated", 3, 0.25, above(9.0))
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


def test_contrast_by_hand() -> None:
    values = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 100.0]])  # median 3.5
    assert calibration.contrast(values) == pytest.approx(96.5 / (1.4826 * 1.5))
    assert calibration.contrast(np.full((3, 3), 0.4)) == 0
    mostly_flat = np.array([0.0] * 9 + [1.0])  # no median deviation: the mean one, 0.1
    assert calibration.contrast(mostly_flat) == pytest.approx(1 / (1.2533 * 0.1))


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 100), st.floats(-10, 10))
def test_contrast_does_not_depend_on_the_level_of_a_map(
    seed: int, scale: float, level: float
) -> None:
    values = np.random.default_rng(seed).gamma(2, size=(12, 15))
    assert calibration.contrast(scale * values + level) == pytest.approx(
        calibration.contrast(values), rel=1e-6
    )


def test_a_pixel_is_marked_above_the_contrast_and_above_half_of_the_peak() -> None:
    values = np.array([[0, 1, 2, 3, 4, 5, 6, 7, 8, 50]], dtype=np.float32)  # median 4.5
    spread = 1.4826 * 2.5
    limits = Thresholds(0.5, None, "calibrated", 5, 0.2, contrast=2.0)
    found = calibration.of_picture(limits, values, True)
    assert found.pixel == pytest.approx(4.5 + 45.5 / 2)  # half way between 4.5 and 50
    found = calibration.of_picture(replace(limits, contrast=10.0), values, True)
    assert found.pixel == pytest.approx(4.5 + 10 * spread)
    found = calibration.of_picture(replace(limits, contrast=13.0), values, True)
    assert found.pixel > 50  # the peak is 12.3 deviations high


def test_a_map_that_rises_everywhere_is_not_marked_everywhere() -> None:
    """What a threshold in values of the map did: all of an anomalous picture was white."""
    rng = np.random.default_rng(0)
    normal = [0.05 + 0.01 * rng.random((20, 20)).astype(np.float32) for _ in range(9)]
    limits = calibration.calibrated([0.1] * 9, [calibration.contrast(m) for m in normal])
    wrong = 0.3 + 0.01 * rng.random((20, 20)).astype(np.float32)
    wrong[4:8, 5:9] = 0.9
    marked = Prediction(0.9, wrong, thresholds=calibration.of_picture(limits, wrong, True)).mask
    expected = np.zeros((20, 20), dtype=bool)
    expected[4:8, 5:9] = True
    np.testing.assert_array_equal(marked, expected)


@given(st.integers(1, 40), st.floats(0.02, 0.9), st.integers(0, 2**32 - 1))
def test_masks_of_new_normal_pictures_keep_the_promise(n: int, share: float, seed: int) -> None:
    """Leave each of n + 1 maps out in turn: how many of them have any pixel marked?"""
    rng = np.random.default_rng(seed)
    maps = [
        (rng.normal(size=(6, 7)) * rng.uniform(0.01, 3) + rng.normal()).astype(np.float32)
        for _ in range(n + 1)
    ]
    contrasts = [calibration.contrast(m) for m in maps]
    alarms = 0
    for i, values in enumerate(maps):
        others = contrasts[:i] + contrasts[i + 1 :]
        limits = calibration.calibrated([0.0] * n, others, share)
        mask = Prediction(0, values, thresholds=calibration.of_picture(limits, values, True)).mask
        assert mask.any() == (contrasts[i] >= limits.contrast)
        alarms += mask.any()
    assert alarms / (n + 1) <= limits.false_alarms + 1e-9


def test_the_promise_over_many_draws() -> None:
    """Coverage as stated, for the score and for the mask: 2000 calibrations on 19 pictures."""
    rng = np.random.default_rng(5)
    called = marked = 0
    for _ in range(2000):
        scores = rng.gamma(2, size=20).astype(np.float32)
        maps = rng.gamma(2, size=(20, 5, 5)).astype(np.float32)
        limits = calibration.calibrated(
            scores[:19].tolist(), [calibration.contrast(m) for m in maps[:19]], 0.05
        )
        found = calibration.of_picture(limits, maps[19], True)
        new = Prediction(float(scores[19]), maps[19], thresholds=found)
        called += bool(new.anomalous)
        marked += bool(new.mask.any())
    # 5 % of 2000 is 100, and one standard deviation of such a count is 10.
    assert limits.false_alarms == pytest.approx(0.05)
    assert 60 < called < 140
    assert 60 < marked < 140


@pytest.mark.parametrize(
    ("n", "share", "estimated"),
    [(10, 0.05, True), (20, 0.0025, True), (20, 0.05, False), (9, 0.05, False), (400, 0.01, False)],
)
def test_what_no_order_statistic_can_promise_is_estimated(
    n: int, share: float, estimated: bool
) -> None:
    heights = np.random.default_rng(n).gumbel(20.0, 3.0, n).tolist()
    scores = [0.1 + i / 1000 for i in range(n)]
    found = calibration.calibrated(scores, heights, share)
    promised, bound = calibration.conformal(heights, share)
    assert found.image == calibration.conformal(scores, share)[0]
    assert found.false_alarms == pytest.approx(bound)
    assert found.contrast is not None
    assert (found.mask_false_alarms == share) == estimated
    assert found.contrast >= promised  # the promise holds whatever the estimate is worth
    if not estimated:
        assert found.contrast == promised
        assert found.mask_false_alarms is None


def test_the_estimate_by_hand_and_for_the_distribution_that_it_supposes() -> None:
    # Mean 2, half the mean difference (1 + 1 + 2) / 3 / 2 = 2/3, of which scale and place follow.
    scale = (2 / 3) / np.log(2)
    expected = 2 - calibration.EULER * scale - scale * np.log(-np.log(0.99))
    assert calibration.exceeded([1.0, 3.0, 2.0], 0.01) == pytest.approx(expected)
    rng = np.random.default_rng(0)
    alarms = [
        (rng.gumbel(5.0, 2.0, 500) >= calibration.of_heights(drawn, 0.01)[0]).mean()
        for drawn in rng.gumbel(5.0, 2.0, (400, 20)).tolist()
    ]
    # With 20 the highest alone would let 4.8 % pass.
    assert np.mean(alarms) == pytest.approx(0.013, abs=0.004)


def test_in_a_map_of_tiles_the_rise_counts() -> None:
    """A varied surface and a plain one with the same peak; a defect in one tile of many."""
    rng = np.random.default_rng(0)
    plain = rng.normal(0.1, 0.01, (40, 40)).astype(np.float32)
    varied = rng.normal(0.1, 0.02, (40, 40)).astype(np.float32)
    for surface in (plain, varied):
        surface[3, 3] = 0.5
        assert calibration.height(surface, tiled=True) == pytest.approx(0.4, abs=0.01)
    assert calibration.height(plain) > 1.8 * calibration.height(varied)
    limits = calibration.calibrated([0.1], [0.2], tiled=True)
    assert (limits.contrast, limits.rise) == (None, above(0.2))
    low = of_picture(limits, varied, reads_text=True)
    assert (varied >= low.pixel).sum() == 1
    varied[3, 3] = 0.25
    assert not (varied >= of_picture(limits, varied, reads_text=True).pixel).any()


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


def test_what_is_ignored_leaves_thresholds_and_mask() -> None:
    values = np.random.default_rng(1).random((10, 10)).astype(np.float32)
    ignored = np.zeros((10, 10), dtype=bool)
    ignored[:3] = True
    bright = values.copy()
    bright[:3] = 40
    seen = [Prediction(0.5, m, ignored=ignored) for m in (values, bright)]
    limits = [calibration.uncalibrated(p.seen, True) for p in seen]
    assert limits[0] == limits[1]
    for prediction, limit in zip(seen, limits):
        prediction.thresholds = limit
        assert not prediction.mask[:3].any()


def test_anomalous_as_a_whole() -> None:
    flat = np.full((4, 4), 0.9, dtype=np.float32)
    found = Prediction(0.9, flat, thresholds=calibration.uncalibrated(flat, True))
    assert found.note == "anomalous as a whole, nothing stands out"
    flat[1, 1] = 1
    found = Prediction(0.9, flat, thresholds=calibration.uncalibrated(flat, True))
    assert found.note == ""
    found = Prediction(0.1, np.full((4, 4), 0.9), thresholds=Thresholds(0.5, 1.0))
    assert found.note == ""
    found = Prediction(0.9, np.full((4, 4), 0.9), thresholds=Thresholds(0.5, None))
    assert (found.mask, found.findings, found.note) == (None, None, "")


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
    with pytest.raises(RequestError, match="was made for ignore None, not '0,0,2,2'"):
        calibration.load(path, {**made_for, "ignore": "0,0,2,2"})
    calibration.save(path, limits, {**made_for, "ignore": "0,0,2,2"})
    with pytest.raises(RequestError, match="was made for ignore '0,0,2,2', not None"):
        calibration.load(path, made_for)


def test_a_calibration_by_an_earlier_rule_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(
        '{"thresholds": {"image": 0.5, "pixel": 0.1, "rule": "calibrated", "normal_pictures": 5, '
        '"false_alarms": 0.2}, "made_for": {}}'
    )
    with pytest.raises(RequestError, match=r"by an earlier version.*calibrate again"):
        calibration.load(path, {})


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


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("image", True, "a threshold is not a number"),
        ("image", None, "no threshold of a picture"),
        ("contrast", -1.0, "a contrast below 0"),
        ("normal_pictures", "x", "of 'x' normal pictures"),
        ("normal_pictures", 0, "of 0 normal pictures"),
        ("false_alarms", 7, "false alarms are not a share"),
        ("mask_false_alarms", "much", "a threshold is not a number"),
        ("rule", "given", "its rule is 'given'"),
        ("more", 1, "unexpected keyword"),
    ],
)
def test_what_no_calibration_gives_is_refused(
    tmp_path: Path, key: str, value: Any, said: str
) -> None:
    """A word in place of a number ended as an internal error, others promised 700 %."""
    path = calibration.save(tmp_path / "c.json", calibration.calibrated([0.1, 0.2], [1, 2]), {})
    assert calibration.load(path, {}).normal_pictures == 2
    content = json.loads(path.read_text())
    content["thresholds"][key] = value
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=f"not a calibration file .*{said}"):
        calibration.load(path, {})

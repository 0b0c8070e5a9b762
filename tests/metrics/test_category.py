"""CategoryMetrics: cases, merging, processes, invariance, memory."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zsad.errors import CellError, RequestError
from zsad.metrics import CategoryMetrics, MetricResult, spec

METRICS = spec.names()
PIXEL = list(spec.names("pixel"))
IMAGE = list(spec.names("image"))
MODES = ["binned", "exact"]


def stack(count: int = 8, side: int = 24, seed: int = 0, ties: bool = False):
    """Maps, masks, image scores and labels; every second image is anomalous."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    masks = torch.zeros(count, side, side, dtype=torch.bool)
    for i in range(1, count, 2):
        masks[i, i : i + 5, 3:9] = True
        masks[i, 20, 20 - i] = True
    maps = torch.rand(count, side, side, generator=g) + 0.4 * masks
    scores = torch.rand(count, generator=g) + 0.3 * labels
    if ties:
        maps, scores = torch.round(maps * 8) / 8, torch.round(scores * 4) / 4
    return maps, masks, scores, labels


def run(batch, mode="binned", size: int = 3, **options) -> MetricResult:
    metrics = CategoryMetrics(mode, **options)
    for start in range(0, len(batch[3]), size):
        metrics.update(*(None if x is None else x[start : start + size] for x in batch))
    return metrics.compute()


def assert_equal(a: MetricResult, b: MetricResult, tolerance: float = 1e-12) -> None:
    assert a.undefined == b.undefined
    assert (a.n_normal, a.n_anomalous) == (b.n_normal, b.n_anomalous)
    assert a.metrics == pytest.approx(b.metrics, abs=tolerance)


# ------------------------------------------------------------------------------------ plain
@pytest.mark.parametrize("ties", [False, True])
def test_binned_agrees_with_exact_within_its_bounds(ties):
    batch = stack(ties=ties)
    binned, exact = run(batch, "binned"), run(batch, "exact")
    assert list(binned.metrics) == list(METRICS)
    assert exact.bounds == {}
    assert set(binned.bounds) == set(PIXEL)
    for name in PIXEL:
        assert abs(binned.metrics[name] - exact.metrics[name]) <= binned.bounds[name] + 1e-12
        assert binned.bounds[name] < (1e-12 if ties else 1e-3)
    for name in IMAGE:
        assert binned.metrics[name] == exact.metrics[name]


@pytest.mark.parametrize("mode", MODES)
def test_batch_size_and_order_change_nothing(mode):
    batch = stack()
    whole = run(batch, mode, size=8, aupro_200=True)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(3))
    for size in (1, 3):
        assert_equal(run(batch, mode, size=size, aupro_200=True), whole)
        assert_equal(run([x[order] for x in batch], mode, size, aupro_200=True), whole)


@pytest.mark.parametrize("mode", MODES)
def test_perfect_maps(mode):
    _, masks, _, labels = stack()
    result = run((masks.float() * 3 - 7, masks, labels.float() * 100, labels), mode)
    assert result.metrics == pytest.approx(dict.fromkeys(METRICS, 1.0))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("value", [0.0, 0.5, -3.7, 1e30])
def test_constant_maps_are_chance_not_an_error(mode, value):
    maps, masks, _, labels = stack()
    flat = torch.full_like(maps, value)
    result = run((flat, masks, torch.full((8,), value), labels), mode, aupro_200=True)
    share = masks.double().mean().item()
    assert result.metrics["pixel_auroc"] == 0.5
    assert result.metrics["image_auroc"] == 0.5
    assert result.metrics["pixel_ap"] == pytest.approx(share)
    assert result.metrics["pixel_f1max"] == pytest.approx(2 * share / (1 + share))
    assert result.metrics["pixel_aupro"] == pytest.approx(0.15)
    assert result.metrics["pixel_aupro_200"] is None
    assert "200 thresholds" in result.undefined["pixel_aupro_200"]


# -------------------------------------------------------------------------------- undefined
@pytest.mark.parametrize("mode", MODES)
def test_one_class_is_undefined_with_the_reason(mode):
    maps, masks, scores, labels = stack()
    normal = labels == 0
    only_normal = run((maps[normal], masks[normal], scores[normal], labels[normal]), mode)
    assert only_normal.metrics == dict.fromkeys(METRICS)
    assert only_normal.undefined["image_ap"] == "no anomalous images: all 4 are normal"
    assert only_normal.undefined["pixel_aupro"] == "no anomalous pixels: all 2304 are normal"
    assert (only_normal.n_normal, only_normal.n_anomalous) == (4, 0)
    only_bad = run((maps[~normal], masks[~normal], scores[~normal], labels[~normal]), mode)
    assert [only_bad.metrics[m] for m in IMAGE] == [None] * 3
    assert only_bad.undefined["image_auroc"] == "no normal images: all 4 are anomalous"
    assert all(only_bad.metrics[m] is not None for m in PIXEL)
    full = run((maps[:1], torch.ones_like(masks[:1]), scores[:1], labels[:1]), mode)
    assert full.undefined["pixel_auroc"].startswith("no normal pixels")


@pytest.mark.parametrize("mode", MODES)
def test_nothing_seen(mode):
    result = CategoryMetrics(mode).compute()
    assert result.metrics == dict.fromkeys(METRICS)
    assert result.undefined["image_auroc"] == "no images"
    assert result.undefined["pixel_auroc"] == "no pixels"


@pytest.mark.parametrize("mode", MODES)
def test_an_anomalous_image_without_mask_undefines_pixel_metrics(mode):
    maps, masks, scores, labels = stack()
    has_mask = labels == 0
    has_mask[1] = True  # one of four anomalous ones has a mask
    metrics = CategoryMetrics(mode)
    metrics.update(maps, masks, scores, labels, has_mask)
    result = metrics.compute()
    assert [result.metrics[m] for m in PIXEL] == [None] * 4
    assert all(result.undefined[m] == "3 of the anomalous images have no mask" for m in PIXEL)
    assert all(result.metrics[m] is not None for m in IMAGE)
    without = run((maps, None, scores, labels), mode)
    assert [without.metrics[m] for m in PIXEL] == [None] * 4
    assert "have no mask" in without.undefined["pixel_ap"]


@pytest.mark.parametrize("mode", MODES)
def test_normal_images_need_no_mask(mode):
    maps, masks, scores, labels = stack()
    expected = run((maps, masks, scores, labels), mode)
    metrics = CategoryMetrics(mode)
    for i in range(8):
        part = slice(i, i + 1)
        truth = masks[part] if labels[i] else None
        metrics.update(maps[part], truth, scores[part], labels[part])
    assert_equal(metrics.compute(), expected)


@pytest.mark.parametrize("mode", MODES)
def test_an_empty_mask_of_an_anomalous_image_counts_as_it_is(mode):
    """A thin region may vanish when its mask is resized; its pixels are normal ones then."""
    maps, masks, scores, labels = stack()
    masks[3] = False
    result = run((maps, masks, scores, labels), mode)
    assert result.undefined == {}
    assert result.n_anomalous == 4


def test_methods_without_maps():
    _, masks, scores, labels = stack()
    result = run((None, masks, scores, labels))
    assert all(result.undefined[m] == "the method gives no anomaly maps" for m in PIXEL)
    assert all(result.metrics[m] is not None for m in IMAGE)


# ----------------------------------------------------------------------------------- errors
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_no_scores_fail_the_cell(mode, bad):
    maps, masks, scores, labels = stack()
    broken = maps.clone()
    broken[2, 3, 4] = bad
    with pytest.raises(CellError, match="hold 1 value that is NaN or infinite"):
        run((broken, masks, scores, labels), mode)
    scores[5] = bad
    with pytest.raises(CellError, match="1 of 3 image scores are NaN or infinite"):
        run((maps, masks, scores, labels), mode)


def test_wrong_shapes_and_settings():
    maps, masks, scores, labels = stack()
    with pytest.raises(ValueError, match="do not fit"):
        CategoryMetrics().update(maps[:, :-1], masks, scores, labels)
    with pytest.raises(ValueError, match="do not fit 8 labels"):
        CategoryMetrics().update(maps[:-1], masks[:-1], scores, labels)
    with pytest.raises(ValueError, match="must be boolean"):
        CategoryMetrics().update(maps, masks.float(), scores, labels)
    with pytest.raises(RequestError, match="'binned' or 'exact', not 'fast'"):
        CategoryMetrics("fast")  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="fpr_limit must be above 0"):
        CategoryMetrics(fpr_limit=0)


# ------------------------------------------------------------------- invariance, scale, type
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.booleans(), st.sampled_from(["affine", "exp", "cube", "sigmoid"]))
def test_a_monotone_change_of_scores_changes_no_ranking_metric(seed, ties, change):
    maps, masks, scores, labels = stack(seed=seed, ties=ties)
    maps, scores = maps.double(), scores.double()  # so that the change merges no two scores
    apply = {
        "affine": lambda x: 1000 * x - 3000,
        "exp": lambda x: torch.exp(5 * x) * 1e4,
        "cube": lambda x: (x - 0.7) ** 3,
        "sigmoid": lambda x: torch.sigmoid(x - 3),
    }[change]
    before = run((maps, masks, scores, labels), "exact")
    after = run((apply(maps), masks, apply(scores), labels), "exact")
    assert_equal(before, after)
    binned = run((apply(maps), masks, apply(scores), labels), "binned")
    for name in PIXEL:
        # float32 rounding of the changed scores adds ties that the float64 ones do not have
        slack = binned.bounds[name] + (1e-12 if ties else 2e-4)
        assert abs(binned.metrics[name] - before.metrics[name]) <= slack


def test_half_precision_maps_are_taken_as_they_are():
    maps, masks, scores, labels = stack()
    half = maps.to(torch.bfloat16)
    for mode in MODES:
        assert_equal(
            run((half, masks, scores.to(torch.bfloat16), labels), mode),
            run((half.float(), masks, scores.to(torch.bfloat16).float(), labels), mode),
        )


def test_maps_that_need_gradients_and_inference_mode():
    maps, masks, scores, labels = stack()
    expected = run((maps, masks, scores, labels))
    assert_equal(run((maps.requires_grad_(), masks, scores, labels)), expected)
    with torch.inference_mode():
        assert_equal(run((maps.detach(), masks, scores, labels)), expected)


# --------------------------------------------------------------------------- reset, merging
@pytest.mark.parametrize("mode", MODES)
def test_reset_starts_the_next_category(mode):
    metrics = CategoryMetrics(mode)
    metrics.update(*stack(seed=1))
    metrics.compute()
    metrics.reset()
    metrics.update(*stack(seed=2))
    assert_equal(metrics.compute(), run(stack(seed=2), mode))


@pytest.mark.parametrize("mode", MODES)
def test_compute_can_be_called_between_updates(mode):
    first, second = stack(seed=1), stack(seed=2)
    metrics = CategoryMetrics(mode)
    metrics.update(*first)
    assert_equal(metrics.compute(), run(first, mode))
    metrics(*second)
    assert_equal(metrics.compute(), run([torch.cat(p) for p in zip(first, second)], mode))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shares", [[8], [3, 5], [0, 8], [8, 0], [2, 1, 5], [1] * 8])
def test_merged_states_equal_one_run(mode, shares):
    """Shares of no image at all and scores in disjoint ranges among them."""
    maps, masks, scores, labels = stack()
    maps = maps * torch.logspace(-6, 6, 8)[:, None, None]
    batch = (maps, masks, scores, labels)
    parts, start = [], 0
    for share in shares:
        part = CategoryMetrics(mode, aupro_200=True)
        if share:
            part.update(*(x[start : start + share] for x in batch))
        parts.append(part)
        start += share
    parts[0].compute()  # a value computed before must not be served again
    for other in parts[1:]:
        parts[0].merge_state(other)
    assert_equal(parts[0].compute(), run(batch, mode, aupro_200=True))


def test_only_like_metrics_merge():
    with pytest.raises(ValueError, match="cannot merge"):
        CategoryMetrics().merge_state({})
    with pytest.raises(ValueError, match="instance of PixelHistogram"):
        CategoryMetrics("binned").merge_state(CategoryMetrics("exact"))


def test_copies_are_independent():
    metrics = CategoryMetrics()
    metrics.update(*stack(seed=1))
    other = copy.deepcopy(metrics)
    other.update(*stack(seed=2))
    assert_equal(metrics.compute(), run(stack(seed=1)))


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch has no distributed part")
def test_processes_together_equal_one(tmp_path: Path):
    """Two processes, both with data, then one without; each of them returns the whole."""
    batch = stack()
    cases = [[[x[:3] for x in batch], [x[3:] for x in batch]], [batch, None]]
    torch.save(cases, tmp_path / "shares.pt")
    root = Path(__file__).resolve().parents[2]
    script = Path(__file__).with_name("process.py")
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(tmp_path), str(rank), "2"], env=environment
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    for mode in MODES:
        expected = run(batch, mode, names=list(spec.METRICS))
        for case, rank in ((0, 0), (0, 1), (1, 0), (1, 1)):
            found = json.loads((tmp_path / f"{case}-{mode}-{rank}.json").read_text())
            assert_equal(MetricResult(**found), expected)


# ----------------------------------------------------------------------------------- memory
def test_binned_memory_does_not_grow_with_the_images():
    metrics = CategoryMetrics()
    maps, masks, scores, labels = stack(4, 128)

    def held() -> int:
        states = [*metrics.pixel.metric_state.values()]
        return sum(s.element_size() * s.numel() for s in states)

    metrics.update(maps, masks, scores, labels)
    before = held()
    for seed in range(20):
        noise = torch.randn(4, 128, 128, generator=torch.Generator().manual_seed(seed))
        metrics.update(noise * 10.0 ** (seed - 10), masks, scores, labels)
    assert held() == before < 32e6
    tracemalloc.start()
    metrics.compute()
    assert tracemalloc.get_traced_memory()[1] < 200e6
    tracemalloc.stop()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@pytest.mark.parametrize("mode", MODES)
def test_cuda_equals_cpu(mode):
    batch = stack()
    on_device = [x.cuda() for x in batch]
    assert_equal(run(on_device, mode, aupro_200=True), run(batch, mode, aupro_200=True))
    mixed = (on_device[0], *batch[1:])
    assert_equal(run(mixed, mode), run(batch, mode))


def test_numpy_scalars_do_not_leak_into_results():
    result = run(stack(), aupro_200=True)
    assert all(type(v) is float for v in result.metrics.values())
    assert all(type(v) is float for v in result.bounds.values())
    assert not isinstance(result.n_normal, np.integer)


# ---------------------------------------------------------------------------------- ignored
@pytest.mark.parametrize("mode", MODES)
def test_ignored_pixels_are_as_if_they_were_not_there(mode):
    """A frame of 4 pixels is ignored: every figure is that of the pictures without it."""
    maps, masks, scores, labels = stack()
    framed = torch.nn.functional.pad(maps, (4,) * 4, value=9.0)
    truth = torch.nn.functional.pad(masks, (4,) * 4, value=False)
    truth[0, 0, :5] = True  # a defect of the frame alone is none
    ignored = torch.ones_like(truth)
    ignored[:, 4:-4, 4:-4] = False
    found = run((framed, truth, scores, labels, None, ignored), mode, names=spec.METRICS)
    whole = run((maps, masks, scores, labels), mode, names=spec.METRICS)
    assert_equal(found, whole)
    assert found.per_image == whole.per_image
    assert found.bounds == pytest.approx(whole.bounds)


def test_a_region_is_what_is_seen_of_it():
    """Two thirds of a region's pixels are ignored between its ends: it is one region still, and
    half of it is found."""
    masks = torch.zeros(1, 3, 12, dtype=torch.bool)
    masks[0, 1, :] = True
    ignored = torch.zeros_like(masks)
    ignored[0, :, 2:10] = True
    maps = torch.zeros(1, 3, 12)
    maps[0, 1, :2] = 1.0
    metrics = CategoryMetrics("exact", names=("pixel_auroc", "pixel_aupro"))
    metrics.update(maps, masks, torch.ones(1), torch.ones(1), None, ignored)
    assert int(metrics.pixel.regions) == 1
    assert metrics.pixel.curve().overlap.sum() == pytest.approx(1.0)
    # 4 anomalous pixels, 2 above and 2 tied with all 8 normal ones
    assert metrics.compute().metrics["pixel_auroc"] == pytest.approx(0.75)


def test_ignored_pixels_have_the_shape_of_the_maps():
    maps, masks, scores, labels = stack()
    with pytest.raises(ValueError, match=r"ignored .* do not fit maps"):
        CategoryMetrics().update(maps, masks, scores, labels, None, masks[:, 1:])

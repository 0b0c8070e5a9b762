"""Dense-map core: known answers, independent references, properties."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import scipy.ndimage
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from zsad import maps as core
from zsad.types import Boxes, MapSpec, Scores

GRID = 37
PATCH = 14
SIZE = GRID * PATCH


def boxes(*rectangles: tuple[float, float, float, float]) -> Boxes:
    n = len(rectangles)
    return Boxes([list(r) for r in rectangles], [0.9] * n, ["damage"] * n)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


# ------------------------------------------------------------------------ similarity, pairs
def test_similarity_is_scaled_cosine():
    patches = torch.tensor([[[3.0, 0.0], [0.0, 2.0], [1.0, 1.0], [-1.0, 0.0]]])
    text = torch.tensor([[5.0, 0.0], [0.0, 0.1]])
    logits = core.similarity(patches, text, (2, 2), scale=10.0)
    r = 10 / 2**0.5
    expected = torch.tensor([[[[10, 0], [r, -10]], [[0, 10], [r, 0]]]])
    torch.testing.assert_close(logits, expected)
    raw = core.similarity(patches, text, (2, 2), normalize=False)
    assert raw[0, 0, 0, 0].item() == 15.0
    half = core.similarity(patches, text, (2, 2), normalize="patches")
    torch.testing.assert_close(half, torch.tensor([5.0, 0.1]).view(2, 1, 1) * expected / 10)


def test_a_patch_of_zeros_is_like_nothing():
    patches = torch.zeros(1, 4, 3, requires_grad=True)
    logits = core.similarity(patches, noise(2, 3), (2, 2), scale=100.0)
    logits.sum().backward()
    assert torch.equal(logits, torch.zeros(1, 2, 2, 2))
    assert bool(patches.grad.isfinite().all())


def test_similarity_with_one_text_pair_per_image():
    patches, text = noise(3, 6, 8), noise(3, 2, 8, seed=1)
    together = core.similarity(patches, text, (2, 3), 7.0)
    for i in range(3):
        torch.testing.assert_close(
            together[i], core.similarity(patches[i : i + 1], text[i], (2, 3), 7.0)[0]
        )


def test_similarity_refuses_a_wrong_grid():
    with pytest.raises(ValueError, match="do not fill a 2x2 grid"):
        core.similarity(noise(1, 5, 3), noise(2, 3), (2, 2))


def test_pair_probability_is_the_softmax_channel_and_the_pair_mean():
    logits = 20 * (noise(2, 2, 5, 5) - 0.5)
    probability = logits.softmax(1)
    a = core.pair_probability(logits)
    torch.testing.assert_close(a, probability[:, 1])
    torch.testing.assert_close(a, (probability[:, 1] - probability[:, 0] + 1) / 2)
    torch.testing.assert_close(core.pair_probability(logits.flip(1)), 1 - a)


# ---------------------------------------------------------------------------------- blurring
@settings(max_examples=40, deadline=None)
@given(
    sigma=st.floats(0.3, 12),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    truncate=st.sampled_from([4.0, 3.0]),
)
def test_gaussian_equals_scipy_for_any_size(sigma, height, width, truncate):
    """Also where the kernel is many times longer than the image."""
    maps = noise(2, height, width, seed=height * 41 + width)
    ours = core.gaussian_blur(maps, sigma, truncate)
    for got, image in zip(ours, maps):
        expected = scipy.ndimage.gaussian_filter(
            image.numpy(), sigma, mode="reflect", truncate=truncate
        )
        np.testing.assert_allclose(got.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("sigma", [4.0, 10.0])
def test_gaussian_equals_scipy_at_full_size(sigma):
    maps = noise(2, SIZE, SIZE)
    expected = np.stack([scipy.ndimage.gaussian_filter(m.numpy(), sigma) for m in maps])
    np.testing.assert_allclose(core.gaussian_blur(maps, sigma).numpy(), expected, atol=1e-5)


def test_blurred_impulse_keeps_its_sum_and_has_variance_sigma_squared():
    sigma, side = 5.0, 101
    impulse = torch.zeros(1, side, side)
    impulse[0, 50, 50] = 1
    out = core.gaussian_blur(impulse, sigma)[0].double()
    assert out.sum().item() == pytest.approx(1, abs=1e-5)
    offset = torch.arange(side, dtype=torch.float64) - 50
    assert (out.sum(0) * offset**2).sum().item() == pytest.approx(sigma**2, rel=0.01)
    assert (out.sum(1) * offset**2).sum().item() == pytest.approx(sigma**2, rel=0.01)


def test_blur_without_sigma_changes_nothing_and_constants_stay():
    maps = noise(1, 9, 9)
    assert core.gaussian_blur(maps, 0.0) is maps
    torch.testing.assert_close(
        core.gaussian_blur(torch.full((1, 8, 9), 0.3), 3), torch.full((1, 8, 9), 0.3)
    )


def test_blur_stays_in_full_precision_under_autocast():
    maps = noise(1, 32, 32)
    expected = core.gaussian_blur(maps, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(core.gaussian_blur(maps, 4), expected)


@pytest.mark.parametrize("sigma", [0.8, 4.0])
def test_kernel3_equals_torchvision(sigma):
    from zsad import torchvision_compat

    torchvision_compat.ensure()
    from torchvision.transforms import GaussianBlur

    maps = noise(3, 21, 34)
    torch.testing.assert_close(core.kernel3_blur(maps, sigma), GaussianBlur(3, sigma)(maps))


# ----------------------------------------------------------------------------------- min-max
def test_minmax_per_image_and_for_constants():
    maps = torch.stack([torch.tensor([[1.0, 3.0], [2.0, 5.0]]), torch.full((2, 2), 7.0)])
    expected = torch.tensor([[[0, 0.5], [0.25, 1]], [[0, 0], [0, 0]]])
    torch.testing.assert_close(core.minmax(maps), expected)


# ------------------------------------------------------------------------------- suppression
def test_exact_suppression_by_area():
    """A box over x 0.5..2, y 1..3 of a 4x4 map: column 0 is covered by half."""
    maps = torch.ones(1, 4, 4)
    box = boxes((1.25 / 4, 2 / 4, 1.5 / 4, 2 / 4))
    out = core.suppress_boxes(maps, [box], 0.6)[0]
    row = torch.tensor([0.8, 1.0, 0.6, 0.6])
    torch.testing.assert_close(
        out, torch.stack([torch.full((4,), 0.6), row, row, torch.full((4,), 0.6)])
    )


def test_exact_union_counts_overlap_once_and_adds_disjoint_halves():
    left, right = (0.125, 0.5, 0.25, 1.0), (0.375, 0.5, 0.25, 1.0)  # halves of the left pixel of 2
    maps = torch.ones(2, 2, 2)
    out = core.suppress_boxes(maps, [boxes(left, right), boxes(left, left)], 0.0)
    torch.testing.assert_close(out[0], torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    torch.testing.assert_close(out[1], torch.tensor([[0.5, 0.0], [0.5, 0.0]]))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(*[st.integers(-4, 36)] * 2, *[st.integers(0, 30)] * 2), min_size=1, max_size=4
    )
)
def test_exact_union_equals_supersampling(rectangles):
    """Boxes on a quarter-pixel raster: counting 4x4 sub-pixels is an exact reference."""
    side, fine = 8, 32
    union = np.zeros((fine, fine), bool)
    entries = []
    for x, y, w, h in rectangles:
        union[max(y, 0) : max(y + h, 0), max(x, 0) : max(x + w, 0)] = True
        entries.append(((x + w / 2) / fine, (y + h / 2) / fine, w / fine, h / fine))
    expected = union.reshape(side, 4, side, 4).mean((1, 3))
    got = core.suppress_boxes(torch.ones(1, side, side), [boxes(*entries)], 0.0)
    np.testing.assert_allclose(got[0].numpy(), expected, atol=1e-6)


def test_no_box_no_suppression_and_an_empty_rectangle_protects_nothing():
    maps = noise(3, 6, 6)
    out = core.suppress_boxes(maps, [None, boxes(), boxes((0, 0, 0, 0))], 0.7)
    torch.testing.assert_close(out[:2], maps[:2])
    torch.testing.assert_close(out[2], 0.7 * maps[2])


def test_released_suppression_quirks():
    maps = torch.full((3, 10, 10), 0.5)
    maps[:, 9, 9] = 1.0
    over_left = boxes((0.05, 0.5, 0.5, 0.4))  # left corner at -2: a negative index, empty
    cut = boxes((0.55, 0.5, 0.38, 0.4))  # columns 3.6..7.4 -> 3..6, rows 3..6
    over_right = boxes((0.95, 0.95, 0.3, 0.3))  # clipped
    out = core.suppress_boxes(maps, [over_left, cut, over_right], 0.7, "released")
    assert out[0, :9].unique().tolist() == pytest.approx([0.35])
    assert (out[1] == 0.5).nonzero()[:, 1].unique().tolist() == [3, 4, 5, 6]
    assert (out[1] == 0.5).nonzero()[:, 0].unique().tolist() == [3, 4, 5, 6]
    assert out[2, 8:, 8:].reshape(-1).tolist() == [0.5, 0.5, 0.5, 1.0]
    assert (out[:, 9, 9] == 1).all()  # already exactly 1


def test_released_maps_of_filo(recipe, golden):
    """Blur, mean and suppression of released FiLo on images whose best box is usable as it is."""
    arrays, spec = golden("filo_post_a")
    detections = json.loads(str(arrays["detections_json"]))
    chosen = [0, 1, 2, 3, 4, 6, 9, 10, 11]  # one phrase filter away from the raw answer, or none
    for i in chosen:
        kept = Boxes.from_dict(detections[i])
        if i == 6:  # its only phrase is no anomaly word: the rectangle stays, empty
            kept = boxes((0, 0, 0, 0))
        stages = recipe.filo_layer_maps(spec["image_size"], spec["layers"], spec["seed"] * 100 + i)
        scores = Scores([m[:, 1] for m in stages], torch.zeros(1), kind="values")
        how = MapSpec(blur="kernel3", sigma=4.0, box_factor=0.7, box_arithmetic="released")
        built = core.build_maps(scores, how, spec["image_size"], [kept])
        final = built.final[0].numpy()
        np.testing.assert_allclose(
            final[::7, ::7], arrays["map_every7"][i], atol=1e-6, err_msg=str(i)
        )
        stats = [final.max(), final.min(), final.mean()]
        np.testing.assert_allclose(stats, arrays["map_stats"][i], atol=1e-5, err_msg=str(i))
        score = (arrays["text_probs"][i, 1] + built.unsuppressed.max().item()) / 2
        assert score == pytest.approx(arrays["image_score"][i], abs=1e-6)


# --------------------------------------------------------------------------------- assembly
def naive(stages: list[torch.Tensor], spec: MapSpec, size: int) -> torch.Tensor:
    """Every step on both channels and every stage at full size, as the released code does."""
    total = torch.zeros(stages[0].shape[0], size, size)
    for logits in stages:
        if spec.order == "softmax_then_upsample":
            pair = F.interpolate(
                logits.softmax(1), (size, size), mode="bilinear", align_corners=spec.align_corners
            )
        else:
            pair = F.interpolate(
                logits, (size, size), mode="bilinear", align_corners=spec.align_corners
            ).softmax(1)
        stage = (pair[:, 1] - pair[:, 0] + 1) / 2
        if spec.blur == "gaussian":
            stage = torch.stack(
                [
                    torch.from_numpy(scipy.ndimage.gaussian_filter(m.numpy(), spec.sigma))
                    for m in stage
                ]
            )
        total += stage
    return total / len(stages) if spec.fuse == "mean" else total


@pytest.mark.parametrize("order", ["softmax_then_upsample", "upsample_then_softmax"])
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("fuse", ["mean", "sum"])
def test_build_maps_equals_the_naive_order_of_steps(order, align_corners, fuse):
    spec = MapSpec(order=order, align_corners=align_corners, fuse=fuse, blur="gaussian", sigma=4)
    stages = [30 * noise(2, 2, 9, 9, seed=s) for s in range(3)]
    built = core.build_maps(Scores(stages, torch.zeros(2)), spec, 70)
    torch.testing.assert_close(built.final, naive(stages, spec, 70), atol=2e-5, rtol=0)
    assert built.unsuppressed is built.final


@pytest.mark.parametrize("fuse", ["mean", "sum"])
def test_added_values_are_enlarged_and_fused_like_probabilities(fuse):
    spec = MapSpec(order="upsample_then_softmax", align_corners=True, fuse=fuse)
    stages = [noise(2, 2, 9, 9, seed=s) for s in range(2)]
    values = [noise(2, 9, 9, seed=s).abs() for s in (5, 6)]
    plain = core.build_maps(Scores(stages, torch.zeros(2)), spec, 70).final
    both = core.build_maps(Scores(stages, torch.zeros(2), added=values), spec, 70).final
    share = 2 if fuse == "mean" else 1
    expected = plain + sum(core.upsample(v, 70, True) for v in values) / share
    torch.testing.assert_close(both, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [70, (33, 50), (9, 7), 4])
@pytest.mark.parametrize("sigma", [0.0, 0.7, 10.0])
def test_enlarging_and_smoothing_in_one_equals_one_after_the_other(align_corners, size, sigma):
    x = noise(2, 9, 7)
    expected = core.gaussian_blur(core.upsample(x, size, align_corners), sigma)
    found = core.smooth_upsample(x, size, align_corners, sigma)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)
    kept = core.smooth_upsample(x.double(), size, align_corners, sigma)
    assert kept.dtype == torch.float64
    torch.testing.assert_close(kept.float(), expected, rtol=0, atol=2e-6)


def test_smoothing_waits_for_a_stretch_that_is_not_linear():
    stage = noise(1, 2, 9, 9)
    spec = MapSpec(norm="minmax", blur="gaussian", sigma=3)
    built = core.build_maps(Scores([stage], torch.zeros(1)), spec, 40).final
    plane = core.upsample(core.pair_probability(stage), 40, False)
    torch.testing.assert_close(built, core.gaussian_blur(core.minmax(plane), 3))


def test_orders_differ_so_the_option_is_real():
    stages = [30 * noise(1, 2, 5, 5)]
    one, two = (
        core.build_maps(Scores(stages, torch.zeros(1)), MapSpec(order=o), 40).final
        for o in ("softmax_then_upsample", "upsample_then_softmax")
    )
    assert (one - two).abs().max() > 0.05


def test_stage_weights_and_mixed_grids():
    first, second = noise(1, 4, 4), noise(1, 8, 8, seed=1)
    spec = MapSpec(weights=(3.0, 1.0))
    built = core.build_maps(Scores([first, second], torch.zeros(1), kind="values"), spec, 16).final
    expected = 0.75 * core.upsample(first, 16, False) + 0.25 * core.upsample(second, 16, False)
    torch.testing.assert_close(built, expected)
    with pytest.raises(ValueError, match="2 map weights for 1 stage"):
        core.build_maps(Scores([first], torch.zeros(1), kind="values"), spec, 16)


def test_a_batch_equals_its_images():
    stages = [20 * noise(9, 2, 6, 6, seed=s) for s in range(2)]  # more than are in one piece
    spec = MapSpec(norm="minmax", blur="gaussian", sigma=2, box_factor=0.7)
    entries = [boxes((0.3, 0.4, 0.2, 0.3)), None, boxes(), boxes((0.9, 0.9, 0.4, 0.4)), *[None] * 5]
    together = core.build_maps(Scores(stages, torch.zeros(9)), spec, 48, entries)
    for i in range(9):
        alone = core.build_maps(
            Scores([s[i : i + 1] for s in stages], torch.zeros(1)), spec, 48, entries[i : i + 1]
        )
        torch.testing.assert_close(together.final[i], alone.final[0])
        torch.testing.assert_close(together.unsuppressed[i], alone.unsuppressed[0])


def test_boxes_can_come_before_the_blur():
    """A constant map: the edge of the box is sharp after the blur, and smooth before it."""
    stage, entries = torch.full((1, 8, 8), 0.5), [boxes((0.5, 0.5, 0.5, 0.5))]
    after = MapSpec(blur="gaussian", sigma=4, box_factor=0.7)
    before = replace(after, box_order="before_blur")
    scores = Scores([stage], torch.zeros(1), kind="values")
    sharp, soft = (core.build_maps(scores, s, 48, entries) for s in (after, before))
    flat = torch.full((1, 48, 48), 0.5)
    inside = core.suppress_boxes(flat, entries, 0.7)
    torch.testing.assert_close(sharp.final, inside)
    torch.testing.assert_close(soft.final, core.gaussian_blur(inside, 4))
    torch.testing.assert_close(soft.unsuppressed, flat)
    assert (sharp.final - soft.final).abs().max() > 0.05
    # Without a box there is nothing to put in order.
    pictures = Scores([noise(1, 8, 8)], torch.zeros(1), kind="values")
    plain = [core.build_maps(pictures, s, 48, [None]).final for s in (after, before)]
    torch.testing.assert_close(*plain)


def test_boxes_that_the_method_kept_win_over_the_raw_answer():
    stage, spec = noise(1, 8, 8), MapSpec(box_factor=0.5)
    raw, kept = [boxes((0.5, 0.5, 1, 1))], [boxes((0.25, 0.5, 0.5, 1))]
    plain = core.build_maps(Scores([stage], torch.zeros(1), kind="values"), spec, 8, raw)
    torch.testing.assert_close(plain.final, stage)
    chosen = Scores([stage], torch.zeros(1), kind="values", boxes=kept)
    built = core.build_maps(chosen, spec, 8, raw)
    torch.testing.assert_close(built.final[..., :4], stage[..., :4])
    torch.testing.assert_close(built.final[..., 4:], 0.5 * stage[..., 4:])
    torch.testing.assert_close(built.unsuppressed, stage)


def planted(row: int, column: int) -> torch.Tensor:
    """Map of an image whose only anomalous patch is at (row, column)."""
    normal, anomalous = torch.eye(8)[0], torch.eye(8)[1]
    patches = normal.expand(1, GRID * GRID, 8).clone()
    patches[0, row * GRID + column] = anomalous
    logits = core.similarity(patches, torch.stack([normal, anomalous]), (GRID, GRID), 1 / 0.07)
    return core.build_maps(
        Scores([logits], torch.zeros(1)), MapSpec(blur="gaussian", sigma=4), SIZE
    ).final[0]


def test_a_planted_patch_is_found_and_moves_by_one_patch():
    first, moved = planted(10, 20), planted(10, 21)
    peak = divmod(first.argmax().item(), SIZE)
    assert peak[0] // PATCH == 10
    assert peak[1] // PATCH == 20
    assert planted(10, 20).max() > 0.5
    torch.testing.assert_close(first[:, : SIZE - PATCH], moved[:, PATCH:], atol=1e-4, rtol=0)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("size", [(224, 224), (9, 30), (14, 14), 5])
def test_enlarging_with_gradients_equals_torch(
    size: int | tuple[int, int], align_corners: bool
) -> None:
    """While something is learned it takes another way, to the same values and gradients."""
    found = []
    for enlarge in (
        lambda x: core.upsample(x, size, align_corners),
        lambda x: F.interpolate(x, size=size, mode="bilinear", align_corners=align_corners),
    ):
        x = noise(2, 3, 14, 14).requires_grad_()
        y = enlarge(x)
        y.backward(noise(*y.shape, seed=1))
        found.append((y.detach(), x.grad))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=0, atol=1e-6)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-5, atol=1e-4)
    still = core.upsample(noise(2, 14, 14), size, align_corners)
    moving = core.upsample(noise(2, 14, 14).requires_grad_(), size, align_corners)
    torch.testing.assert_close(still, moving.detach(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("width", [core.NARROW, core.NARROW + 1])
def test_enlarging_a_patch_grid_equals_torch(width: int) -> None:
    """By products where it is narrow, and wider ones by torch itself."""
    x = noise(3, 9, width)
    found = core.upsample(x, (40, 200), True)
    right = F.interpolate(x[:, None], size=(40, 200), mode="bilinear", align_corners=True)[:, 0]
    torch.testing.assert_close(found, right, rtol=0, atol=2e-6)
    assert torch.equal(found, right) == (width > core.NARROW)


@pytest.mark.parametrize("sides", [(224, 130), (31, 33), (5, 70)])
def test_smoothing_near_pixels_is_smoothing_all(sides: tuple[int, int]) -> None:
    """Of nine maps, in pieces; with gradients every pixel is multiplied."""
    maps = noise(9, *sides)
    found = core.gaussian_blur(maps, 4.0)
    whole = core.gaussian_blur(maps.clone().requires_grad_(), 4.0)
    torch.testing.assert_close(found, whole.detach(), rtol=0, atol=1e-6)


def test_gradients_reach_patches_and_text():
    patches = noise(1, 9, 4).requires_grad_()
    text = noise(2, 4, seed=1).requires_grad_()
    logits = core.similarity(patches, text, (3, 3), 10.0)
    core.build_maps(Scores([logits], torch.zeros(1)), MapSpec(), 12).final.sum().backward()
    assert patches.grad is not None
    assert text.grad is not None
    assert patches.grad.abs().sum() > 0
    assert text.grad.abs().sum() > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_cpu_and_cuda_agree():
    stages = [20 * noise(2, 2, 9, 9, seed=s) for s in range(3)]
    spec = MapSpec(blur="gaussian", sigma=10, box_factor=0.7)
    entries = [boxes((0.3, 0.4, 0.2, 0.3)), None]
    cpu = core.build_maps(Scores(stages, torch.zeros(2)), spec, 100, entries)
    gpu = core.build_maps(Scores([s.cuda() for s in stages], torch.zeros(2)), spec, 100, entries)
    torch.testing.assert_close(cpu.final, gpu.final.cpu(), atol=1e-5, rtol=0)


# ----------------------------------------------------------------- groups, harmonic means, parts
def test_groups_are_fused_at_the_output_size() -> None:
    """The mean of a group, the harmonic mean of the other, their harmonic mean: written out."""
    stages = [noise(2, g, g, seed=i) + 0.1 for i, g in enumerate((3, 3, 6, 3, 3))]
    spec = MapSpec(fuse="harmonic", groups=(("mean", 3), ("harmonic", 2)))
    built = core.build_maps(Scores(stages, noise(2), "values"), spec, 12)
    a, b, c, d, e = (core.upsample(s, 12, False) for s in stages)
    first, second = (a + b + c) / 3, 2 / (1 / d + 1 / e)
    torch.testing.assert_close(built.final, 2 / (1 / first + 1 / second))
    early = core.upsample(2 / (1 / stages[3] + 1 / stages[4]), 12, False)
    assert (early - second).abs().max() > 1e-3  # harmonic means and enlarging do not commute
    with pytest.raises(ValueError, match="groups"):
        core.build_maps(Scores(stages[:4], noise(2), "values"), spec, 12)
    with pytest.raises(ValueError, match="no weights"):
        core.build_maps(
            Scores(stages, noise(2), "values"), MapSpec(fuse="harmonic", weights=(1.0,) * 5), 12
        )


def test_a_harmonic_mean_with_a_zero_is_zero() -> None:
    stages = [torch.zeros(1, 2, 2), torch.ones(1, 2, 2)]
    built = core.build_maps(Scores(stages, noise(1), "values"), MapSpec(fuse="harmonic"), 4)
    assert torch.equal(built.final, torch.zeros(1, 4, 4))


def test_what_is_kept_changes_no_map() -> None:
    scores = Scores([noise(2, 2, 3, 3, seed=s) * 4 for s in range(3)], noise(2))
    spec = MapSpec("upsample_then_softmax", True, weights=(1, 2, 1), blur="gaussian", sigma=2.0)
    plain = core.build_maps(scores, spec, 12)
    assert plain.fused is None
    assert plain.stages == []
    for keep in ("fused", "stages"):
        built = core.build_maps(scores, replace(spec, keep=keep), 12)
        torch.testing.assert_close(built.final, plain.final)
        assert built.fused is not None
        torch.testing.assert_close(core.gaussian_blur(built.fused, 2.0), built.final)
    parts = [core.upsample(core.pair_difference(s), 12, True).sigmoid() for s in scores.maps]
    torch.testing.assert_close(torch.stack(built.stages), torch.stack(parts))
    torch.testing.assert_close(built.fused, (parts[0] + 2 * parts[1] + parts[2]) / 4)
    halved = built.each(lambda planes: planes[:1])
    assert halved.fused is not None
    assert len(halved.fused) == len(halved.stages[0]) == 1


def test_grid_blur_is_torchvisions_gaussian() -> None:
    from torchvision.transforms.functional import gaussian_blur

    planes = noise(2, 6, 7)
    for kernel, sigma in ((7, 1.0), (9, 1.5)):
        expected = gaussian_blur(planes, [kernel, kernel], [sigma, sigma])
        torch.testing.assert_close(core.grid_blur(planes, kernel, sigma), expected)
    assert torch.equal(core.grid_blur(planes, 7, 0.0), planes)
    assert core.grid_blur(noise(1, 3, 3), 7, 1.0).shape == (1, 3, 3)

"""The dense-map core: from scores on the patch grid to anomaly maps at the output size.

One implementation for all methods: batched, on the device of its input, without labels.
Gradients flow through everything that training uses (similarity, pair probability, upsampling).
What is linear is fused before it is enlarged, so most methods enlarge one channel per image.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from zsad.errors import counted
from zsad.on_device import constant
from zsad.runtime.boxes import Arithmetic, coverage
from zsad.types import Boxes, BuiltMaps, Fuse, MapSpec, Scores

PAIR = 2  # (normal, anomalous)
SMALLEST_NORM = 1e-12  # that a vector is divided by, as in torch's normalize
NARROW = 64  # columns, up to which enlarging by products is faster on a CPU
TOGETHER = 4  # maps of a few hundred pixels a side that a processor's caches hold
BAND = 32  # rows or columns that are smoothed at once, of those near them


# ------------------------------------------------------------------------- on the patch grid
def similarity(
    patches: Tensor,
    text: Tensor,
    grid: tuple[int, int],
    scale: float = 1.0,
    normalize: bool | Literal["patches"] = True,
) -> Tensor:
    """Return ``scale`` * <patch, text> on the patch grid: logits [B, T, h, w].

    patches [B, L, E]; text [T, E] for the whole batch or [B, T, E] per image, T = 2 for a
    (normal, anomalous) pair.  With ``normalize`` both sides are divided by their L2 norm, so
    that the result is ``scale`` times a cosine; without it they are used as they are.
    ``normalize="patches"``: the text is used as it is.  ``scale`` is the inverse temperature.
    """
    height, width = grid
    if patches.shape[-2] != height * width:
        raise ValueError(f"{patches.shape[-2]} patch tokens do not fill a {height}x{width} grid")
    if normalize is True:
        text = F.normalize(text, dim=-1)
    logits = scale * (text @ patches.transpose(-1, -2))  # [B, T, L]
    if normalize:  # a division for each product, not for each of a patch's E values
        length = torch.linalg.vector_norm(patches, dim=-1).clamp(min=SMALLEST_NORM)
        logits = logits / length[..., None, :]
    planes: Tensor = logits.unflatten(-1, (height, width))
    return planes


def pair_probability(logits: Tensor) -> Tensor:
    """Return the anomalous channel of the softmax over a pair: [B, 2, h, w] -> [B, h, w] in [0, 1].

    With two labels the softmax is a sigmoid of the difference, and (a - n + 1) / 2 = a, the
    fusion of FiLo Eq. 4, KAnoCLIP Eq. 10 and FAPrompt Eq. 12, is this very channel.
    """
    return torch.sigmoid(pair_difference(logits))


def pair_difference(logits: Tensor) -> Tensor:
    """Return anomalous minus normal logit: [B, 2, h, w] -> [B, h, w], unbounded."""
    if logits.shape[1] != PAIR:
        raise ValueError(f"expected a (normal, anomalous) pair in dim 1, got {logits.shape[1]}")
    return logits[:, 1] - logits[:, 0]


# --------------------------------------------------------------------------------- enlarging
def upsample(x: Tensor, size: int | tuple[int, int], align_corners: bool) -> Tensor:
    """Enlarge [B, C, h, w] or [B, h, w] bilinearly to ``size`` pixels (one side, or (H, W)).

    ``align_corners`` False samples pixel centres (FAPrompt, AnomalyCLIP), True maps corner
    centres onto corner centres (FiLo).
    """
    target = (size, size) if isinstance(size, int) else size
    if x.shape[-2:] == target:
        return x
    narrow = _in_pieces(x) and x.shape[-1] <= NARROW
    if (narrow or x.requires_grad) and x.dtype in (torch.float32, torch.float64):
        # As one matrix per axis the backward pass is several times faster, and on CUDA, where
        # that of F.interpolate adds up in any order, it is deterministic.  On a CPU a patch grid
        # is enlarged five times faster.
        with torch.autocast(x.device.type, enabled=False):
            down, across = (
                constant(_enlarging_matrix, *sides, align_corners, device=x.device, dtype=x.dtype)
                for sides in zip(x.shape[-2:], target)
            )
            return down @ x @ across.T
    planes = x if x.dim() == 4 else x[:, None]
    out = F.interpolate(planes, size=target, mode="bilinear", align_corners=align_corners)
    return out if x.dim() == 4 else out[:, 0]


def _in_pieces(x: Tensor) -> bool:
    """Whether it pays to work through ``x`` in pieces that stay in caches: on a CPU, where no
    gradient is wanted and nothing is recorded."""
    return x.device.type == "cpu" and not x.requires_grad and not torch.compiler.is_compiling()


@lru_cache(maxsize=32)
def _enlarging_matrix(side: int, size: int, align_corners: bool) -> Tensor:
    """Return the weights [size, side] of linear interpolation along one axis, as torch has them."""
    unit = torch.eye(side)[None]
    return F.interpolate(unit, size=size, mode="linear", align_corners=align_corners)[0].T


# --------------------------------------------------------------------------------- smoothing
def gaussian_blur(maps: Tensor, sigma: float, truncate: float = 4.0) -> Tensor:
    """Smooth [B, H, W] maps; equal to ``scipy.ndimage.gaussian_filter(m, sigma, truncate=...)``.

    ``sigma`` in pixels; the kernel reaches ``int(truncate * sigma + 0.5)`` pixels, the border
    repeats the edge pixel when it mirrors (scipy's "reflect"), also for kernels longer than the
    image.  The filter is applied as one banded matrix per axis: exact for any radius, and never
    in reduced precision.
    """
    if sigma <= 0:
        return maps
    kind = maps.dtype if maps.dtype in (torch.float32, torch.float64) else torch.float32
    rows, columns = maps.shape[-2:]
    with torch.autocast(maps.device.type, enabled=False):
        down, across = (
            constant(
                _blur_matrix, side, float(sigma), float(truncate), device=maps.device, dtype=kind
            )
            for side in (rows, columns)
        )
        planes = maps.to(kind)
        if not _in_pieces(planes):
            return (down @ planes @ across.T).to(maps.dtype)
        radius = int(truncate * sigma + 0.5)
        parts = [_banded(part, down, across.T, radius) for part in planes.split(TOGETHER)]
        return (torch.cat(parts) if len(parts) > 1 else parts[0]).to(maps.dtype)


def _banded(planes: Tensor, down: Tensor, across: Tensor, radius: int) -> Tensor:
    """``down @ planes @ across`` for planes [B, H, W] and filters that reach ``radius`` pixels:
    what lies beyond them is not multiplied."""
    rows, found = torch.empty_like(planes), torch.empty_like(planes)
    lines, out = rows.flatten(0, 1), found.flatten(0, 1)  # [B * H, W], of the same memory
    for some, near in _bands(planes.shape[1], radius):
        filters = down[some, near].expand(len(planes), -1, -1)
        torch.bmm(filters, planes[:, near], out=rows[:, some])
    for some, near in _bands(planes.shape[2], radius):
        torch.mm(lines[:, near], across[near, some], out=out[:, some])
    return found


def _bands(side: int, radius: int) -> list[tuple[slice, slice]]:
    """Which of ``side`` places are smoothed together, and those that they are made of."""
    starts = range(0, side, BAND)
    return [(slice(a, a + BAND), slice(max(0, a - radius), a + BAND + radius)) for a in starts]


def smooth_upsample(
    maps: Tensor, size: int | tuple[int, int], align_corners: bool, sigma: float
) -> Tensor:
    """Enlarge [B, h, w] maps to ``size`` and smooth them: ``gaussian_blur(upsample(maps))``.

    Both are linear and work on one axis at a time, so they are one matrix per axis: a map of
    518 pixels from 37 patches takes 11 million multiplications, not 280 million.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if tuple(maps.shape[-2:]) == (height, width):
        return gaussian_blur(maps, sigma)  # which leaves out what lies beyond the filter
    kind = maps.dtype if maps.dtype in (torch.float32, torch.float64) else torch.float32
    with torch.autocast(maps.device.type, enabled=False):
        down, across = (
            constant(
                _smooth_upsample_matrix,
                *(old, new, align_corners, float(sigma)),
                device=maps.device,
                dtype=kind,
            )
            for old, new in zip(maps.shape[-2:], (height, width))
        )
        return (down @ maps.to(kind) @ across.T).to(maps.dtype)


@lru_cache(maxsize=64)
def _smooth_upsample_matrix(old: int, new: int, align_corners: bool, sigma: float) -> Tensor:
    """Return the [new, old] matrix of enlarging, then smoothing (float64, CPU)."""
    enlarging = _enlarging_matrix(old, new, align_corners).double()
    return _blur_matrix(new, sigma, 4.0) @ enlarging if sigma > 0 else enlarging


@lru_cache(maxsize=32)
def _blur_matrix(side: int, sigma: float, truncate: float) -> Tensor:
    """Return the [side, side] matrix of the 1-D Gaussian with mirrored borders (float64, CPU)."""
    radius = int(truncate * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel /= kernel.sum()
    source = torch.arange(side)[:, None] + torch.arange(-radius, radius + 1)[None, :]
    source = source.remainder(2 * side)  # the mirrored signal has period 2 * side
    source = torch.where(source < side, source, 2 * side - 1 - source)
    matrix = torch.zeros(side, side, dtype=torch.float64)
    return matrix.scatter_add_(1, source, kernel.expand(side, -1).contiguous())


def kernel3_blur(maps: Tensor, sigma: float) -> Tensor:
    """Smooth [B, H, W] with a 3x3 Gaussian of ``sigma`` pixels, as released FiLo does.

    Equal to torchvision's ``GaussianBlur(3, sigma)``: the border mirrors without repeating the
    edge pixel.  At sigma 4 this is nearly a 3x3 mean (``utils.py`` of the released code).
    """
    side = math.exp(-0.5 / sigma**2)
    outer, centre = side / (1 + 2 * side), 1 / (1 + 2 * side)
    padded = F.pad(maps[:, None], (1, 1, 1, 1), mode="reflect")[:, 0]
    rows = outer * (padded[:, :-2] + padded[:, 2:]) + centre * padded[:, 1:-1]
    return outer * (rows[..., :-2] + rows[..., 2:]) + centre * rows[..., 1:-1]


def grid_blur(planes: Tensor, kernel: int, sigma: float) -> Tensor:
    """Smooth [B, h, w] on the patch grid, before it is enlarged, as released AA-CLIP does.

    ``kernel``: patches of a side, odd; ``sigma`` in patches.  Equal to kornia's and torchvision's
    Gaussian: normalised, separable, the border mirrored without repeating the edge.  A grid too
    small to mirror so far gets the largest kernel that it can.
    """
    reach = min(kernel // 2, min(planes.shape[-2:]) - 1)
    if sigma <= 0 or reach < 1:
        return planes
    at = torch.arange(-reach, reach + 1, device=planes.device, dtype=planes.dtype)
    weights = torch.exp(-0.5 * (at / sigma) ** 2)
    weights = weights / weights.sum()
    padded = F.pad(planes[:, None], (reach, reach, reach, reach), mode="reflect")
    rows = F.conv2d(padded, weights[None, None, :, None])
    return F.conv2d(rows, weights[None, None, None])[:, 0]


def minmax(maps: Tensor) -> Tensor:
    """Stretch every [H, W] map of [B, H, W] to [0, 1]; a constant map becomes 0.

    For ablations only: it makes every image contain a 1, normal ones included.
    """
    low = maps.amin(dim=(-2, -1), keepdim=True)
    span = maps.amax(dim=(-2, -1), keepdim=True) - low
    return (maps - low) / torch.where(span > 0, span, torch.ones_like(span))


# ------------------------------------------------------------------------------------- boxes
def suppress_boxes(
    maps: Tensor,
    boxes: Sequence[Boxes | None] | Tensor,
    factor: float,
    arithmetic: Arithmetic = "exact",
) -> Tensor:
    """Multiply [B, H, W] maps by ``factor`` outside the union of each image's boxes.

    An image whose entry is None, or holds no box, is left alone.  A box of zero extent protects
    nothing.  ``exact`` weighs a pixel by the share of it that the union covers, so a box border
    inside a pixel counts by area.  ``released`` follows FiLo's integer rectangles: corners cut
    towards zero, a negative corner counts from the far end as a Python index does (such a
    rectangle is usually empty), and pixels that are exactly 1 are never suppressed.  In the place
    of ``boxes``: the share [B, H, W] of each pixel that they cover.
    """
    if len(boxes) != maps.shape[0]:
        raise ValueError(f"boxes of {len(boxes)} for maps of {maps.shape[0]} in the batch")
    if isinstance(boxes, Tensor):
        covered = boxes
    else:
        covered = torch.ones_like(maps)
        for image, entry in enumerate(boxes):
            if entry is not None and entry.boxes:
                share = coverage(entry.boxes, maps.shape[-2], maps.shape[-1], arithmetic)
                covered[image] = torch.from_numpy(share).to(maps)
    suppressed = maps * (factor + (1 - factor) * covered)
    return torch.where(maps == 1, maps, suppressed) if arithmetic == "released" else suppressed


# ---------------------------------------------------------------------------------- assembly
def build_maps(
    scores: Scores,
    spec: MapSpec,
    size: int | tuple[int, int],
    boxes: Sequence[Boxes | None] | Tensor | None = None,
) -> BuiltMaps:
    """Build the anomaly maps [B, H, W] (float32) that ``spec`` describes, at ``size`` pixels.

    Order: probability and enlargement per ``spec.order``, fusion over stages, normalisation,
    smoothing, box suppression (with ``box_order="before_blur"`` right after fusion).  Values are
    in [0, 1] for ``fuse="mean"`` and in [0, K] for ``fuse="sum"`` over K stages.  Smoothing follows
    fusion: both are linear, so it equals smoothing every stage.  ``boxes``: the detector's
    answers, or the share [B, H, W] of each pixel that they cover; those that the method kept in
    ``scores.boxes`` win over them.
    """
    if not scores.maps:
        raise ValueError("scores hold no maps")
    stages: list[Tensor] = []
    if _stage_by_stage(spec):
        stages = _enlarged(scores, spec, size)
        fused = _grouped(stages, spec)
    else:
        fused = _fuse(scores, spec, _stage_weights(spec.weights, spec.fuse, len(scores.maps)), size)
    built = _suppressed(fused, spec, boxes if scores.boxes is None else scores.boxes)
    if spec.keep != "final":
        built.fused = fused
    if spec.keep == "stages":
        built.stages = stages
    return built


def _suppressed(
    fused: Tensor, spec: MapSpec, boxes: Sequence[Boxes | None] | Tensor | None
) -> BuiltMaps:
    """Normalise, smooth, and suppress what lies outside of the boxes."""
    if boxes is None or spec.box_factor == 1:
        plain = _smoothed(fused, spec)
        return BuiltMaps(plain, plain)
    if spec.box_order == "before_blur":
        inside = suppress_boxes(fused, boxes, spec.box_factor, spec.box_arithmetic)
        return BuiltMaps(_smoothed(inside, spec), _smoothed(fused, spec))
    plain = _smoothed(fused, spec)
    return BuiltMaps(suppress_boxes(plain, boxes, spec.box_factor, spec.box_arithmetic), plain)


def _smoothed(fused: Tensor, spec: MapSpec) -> Tensor:
    """Normalise and smooth [B, H, W], as far as enlarging has not done it."""
    if spec.norm == "minmax":
        fused = minmax(fused)
    if spec.blur == "gaussian" and not _smooths_early(spec):
        return gaussian_blur(fused, spec.sigma)
    return kernel3_blur(fused, spec.sigma) if spec.blur == "kernel3" else fused


def _smooths_early(spec: MapSpec) -> bool:
    """Whether nothing but enlarging, which is linear, comes before the smoothing."""
    linear = spec.norm == "none" and spec.box_order == "after_blur" and spec.keep == "final"
    return spec.blur == "gaussian" and linear and not _stage_by_stage(spec)


def _stage_by_stage(spec: MapSpec) -> bool:
    """Whether every stage is enlarged by itself."""
    return spec.groups is not None or spec.fuse == "harmonic" or spec.keep == "stages"


def _stage_weights(given: Sequence[float] | None, fuse: Fuse, stages: int) -> list[float]:
    """Return one factor per stage; those of a mean add up to 1."""
    weights = list(given) if given is not None else [1.0] * stages
    if len(weights) != stages:
        raise ValueError(f"{counted(len(weights), 'map weight')} for {counted(stages, 'stage')}")
    total = sum(weights) if fuse == "mean" else 1.0
    return [w / total for w in weights]


def _enlarged(scores: Scores, spec: MapSpec, size: int | tuple[int, int]) -> list[Tensor]:
    """Return the probabilities or values of every stage at ``size``: K tensors [B, H, W]."""
    if scores.added:
        raise ValueError("added values go with a mean or a sum of stages, not with this fusion")
    one = replace(spec, groups=None, weights=None, fuse="mean", keep="final", blur="none")
    return [_fuse(replace(scores, maps=[stage]), one, [1.0], size) for stage in scores.maps]


def _grouped(stages: Sequence[Tensor], spec: MapSpec) -> Tensor:
    """Fuse enlarged stages [B, H, W], group by group."""
    if spec.groups is not None:
        if sum(count for _, count in spec.groups) != len(stages):
            raise ValueError(f"groups {spec.groups} for {counted(len(stages), 'stage')}")
        rest = iter(stages)
        stages = [
            joined([next(rest) for _ in range(count)], fuse, None) for fuse, count in spec.groups
        ]
    return joined(stages, spec.fuse, spec.weights)


def joined(planes: Sequence[Tensor], fuse: Fuse, weights: Sequence[float] | None = None) -> Tensor:
    """Join tensors of one shape, which the result has, too: their (weighted) mean or sum, or their
    harmonic mean n / sum(1 / x), which is 0 where one of them is.

    Raises ``ValueError`` for weights of a harmonic mean, or another number of them."""
    if fuse == "harmonic":
        if weights is not None:
            raise ValueError("a harmonic mean has no weights")
        return len(planes) / torch.stack([1 / plane for plane in planes]).sum(0)
    factors = _stage_weights(weights, fuse, len(planes))
    total = planes[0] * factors[0]
    for factor, plane in zip(factors[1:], planes[1:]):
        total = total.add(plane, alpha=factor)
    return total


def _fuse(
    scores: Scores, spec: MapSpec, weights: list[float], size: int | tuple[int, int]
) -> Tensor:
    """Return the weighted sum over stages, enlarged to ``size``: [B, H, W] float32.

    Smoothed, too, where that may go with enlarging.
    """
    late = scores.kind == "logits" and spec.order == "upsample_then_softmax"
    if late and len(scores.maps[0]) > TOGETHER and _in_pieces(scores.maps[0]):
        return torch.cat([_fuse(few, spec, weights, size) for few in _few_by_few(scores)])
    sums: dict[tuple[int, ...], Tensor] = {}  # by grid: stages of equal grid are enlarged once
    for weight, stage in zip(weights, scores.maps):
        plane = stage.float() if stage.dtype != torch.float64 else stage
        if late:  # the logits' difference is linear too: one channel is enlarged, not two
            enlarged = upsample(pair_difference(plane), size, spec.align_corners)
            plane = torch.sigmoid(enlarged)
        elif scores.kind == "logits":
            plane = pair_probability(plane)
        _add(sums, plane, weight)
    for weight, values in zip(weights, scores.added):
        _add(sums, values.float(), weight)
    fused = [
        smooth_upsample(plane, size, spec.align_corners, spec.sigma)
        if _smooths_early(spec)
        else upsample(plane, size, spec.align_corners)
        for plane in sums.values()
    ]
    return torch.stack(fused).sum(0) if len(fused) > 1 else fused[0]


def _few_by_few(scores: Scores) -> Iterator[Scores]:
    """The scores of a few images each, without what is not a map."""
    split = zip(*(planes.split(TOGETHER) for planes in (*scores.maps, *scores.added)))
    for planes in split:
        maps, added = planes[: len(scores.maps)], planes[len(scores.maps) :]
        yield replace(scores, maps=list(maps), added=list(added))


def _add(sums: dict[tuple[int, ...], Tensor], plane: Tensor, weight: float) -> None:
    """Add ``weight`` * [B, h, w] to the sum of the planes of its size."""
    key = tuple(plane.shape[-2:])
    sums[key] = sums[key].add(plane, alpha=weight) if key in sums else plane * weight

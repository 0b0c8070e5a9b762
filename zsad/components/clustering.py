"""K-means as a fixed sequence of tensor operations, batched, from seeded draws.

The algorithm, its draws and its stopping rule are scikit-learn's (``KMeans(K, n_init=1,
random_state=RandomState(seed))``: greedy k-means++ with 2 + log K candidates, then Lloyd's steps),
whose labels it returns but for ties.  A batch gives what its images give one by one.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zsad.on_device import able

STEPS = 300  # of Lloyd at most; scikit-learn's default
RECORDED = 16  # where the steps cannot depend on the data; a hundred points settle in about eight
TOLERANCE = 1e-4  # of the shift of all centres, in variances of the points


@torch.no_grad()
def kmeans(points: Tensor, clusters: int, seed: int) -> Tensor:
    """Return the cluster of every point: points [B, N, D] -> labels [B, N] in 0..K-1.

    K is ``clusters``, or N where there are fewer points.  Every row of the batch takes the same
    draws.  Distances come from the points' inner products, in float64.
    """
    if points.device.type == "mps":  # has no float64
        return kmeans(able(points), clusters, seed).to(points.device)
    x = points.double()
    x = x - x.mean(1, keepdim=True)
    inner = x @ x.transpose(1, 2)  # [B, N, N]
    squares = inner.diagonal(dim1=1, dim2=2)  # [B, N]
    limit = TOLERANCE * squares.mean(1) / points.shape[-1]
    clusters = min(clusters, points.shape[1])
    # A centre is a mean of points, kept as their weights: [B, K, N].
    centres = F.one_hot(_plus_plus(inner, clusters, seed), points.shape[1]).to(inner)
    fixed = torch.compiler.is_compiling()  # a recording holds one sequence for all data
    labels = torch.full_like(squares, -1, dtype=torch.int64)
    done = torch.zeros_like(limit, dtype=torch.bool)
    for _ in range(RECORDED if fixed else STEPS):
        found, distance = _nearest(inner, centres)
        moved = _means(found, distance, clusters)
        step = moved - centres
        shift = (step @ inner * step).sum((1, 2))
        centres = torch.where(done[:, None, None], centres, moved)
        done = done | (found == labels).all(1) | (shift <= limit)
        labels = found
        if not fixed and bool(done.all()):
            break
    return _nearest(inner, centres)[0]


def _plus_plus(inner: Tensor, clusters: int, seed: int) -> Tensor:
    """Return the points that k-means++ begins with, [B, K]."""
    count = inner.shape[1]
    random = np.random.RandomState(seed)
    first = min(int(random.random_sample() * count), count - 1)
    draws = random.random_sample((clusters - 1, 2 + int(math.log(clusters))))
    squares = inner.diagonal(dim1=1, dim2=2)
    # [B, N, N] squared distances of all pairs
    apart = (squares[:, :, None] + squares[:, None] - 2 * inner).clamp(min=0)
    chosen = [torch.full_like(squares[:, 0], first, dtype=torch.int64)]
    closest = apart[:, first]
    for row in torch.from_numpy(draws).to(inner):
        wanted = row * closest.sum(1, keepdim=True)  # [B, trials]
        passed = closest.cumsum(1)[:, None] < wanted[..., None]
        candidates = passed.sum(-1).clamp(max=count - 1)
        near = apart.gather(1, candidates[..., None].expand(-1, -1, count))
        near = torch.minimum(near, closest[:, None])  # [B, trials, N]
        best = near.sum(-1).argmin(1, keepdim=True)
        chosen.append(candidates.gather(1, best)[:, 0])
        closest = near.gather(1, best[..., None].expand(-1, -1, count))[:, 0]
    return torch.stack(chosen, 1)


def _nearest(inner: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Return the nearest centre of every point and its squared distance, [B, N] both."""
    along = centres @ inner  # [B, K, N]: <centre, point>
    size = (along * centres).sum(-1, keepdim=True)
    distance, label = (size - 2 * along).min(1)
    return label, distance + inner.diagonal(dim1=1, dim2=2)


def _means(labels: Tensor, distance: Tensor, clusters: int) -> Tensor:
    """Return the centres of labelled points as weights [B, K, N].

    Clusters without a point take those that lie farthest from their centres, one each.
    """
    members = F.one_hot(labels, clusters)
    empty = members.sum(1) == 0  # [B, K]
    rank = empty.cumsum(1) - 1  # of an empty cluster among those
    far = distance.argsort(1, descending=True)[:, :clusters]
    taken = far.gather(1, rank.clamp(min=0))  # [B, K]: whom it would take
    order = torch.arange(labels.shape[1], device=labels.device)
    moves = empty[..., None] & (taken[..., None] == order)  # [B, K, N]
    stays = members.transpose(1, 2).bool() & ~moves.any(1, keepdim=True)
    weights = (moves | stays).to(distance)
    return weights / weights.sum(-1, keepdim=True).clamp(min=1)

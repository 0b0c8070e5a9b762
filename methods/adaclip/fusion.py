"""Hybrid semantic fusion: what the most anomalous patches have in common joins the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from zsad.components.clustering import kmeans

PER_CLUSTER = 5  # patches that are chosen for each cluster, on average


@dataclass
class Semantics:
    """``top`` [B, k]: the chosen patches, in the order that is asked for; ``labels`` [B, k]: their
    clusters; ``feature`` [B, E]: the unit mean of the clusters' means."""

    top: Tensor
    labels: Tensor
    feature: Tensor


def semantics(
    patches: Tensor,
    probability: Tensor,
    clusters: int,
    seed: int,
    order: Literal["place", "probability"],
) -> Semantics:
    """Cluster the most anomalous patches and average the clusters.

    ``patches`` [B, K, L, E]: unit features by layer; ``probability`` [B, L] of being anomalous.
    Clusters are of the features of all layers side by side.  A small cluster counts as much as a
    large one.  Gradients pass through the features, not through who belongs to whom.
    """
    count = min(patches.shape[2], PER_CLUSTER * clusters)
    top = probability.topk(count, 1).indices  # [B, k], the most anomalous first
    top = top if order == "probability" else top.sort(1).values
    where = top[:, None, :, None].expand(-1, patches.shape[1], -1, patches.shape[-1])
    chosen = patches.gather(2, where)  # [B, K, k, E]
    labels = kmeans(chosen.transpose(1, 2).flatten(2), clusters, seed)
    members = F.one_hot(labels, min(clusters, count)).to(chosen)  # [B, k, clusters]
    sizes = members.sum(1)  # [B, clusters]
    means = members.transpose(1, 2) @ chosen.mean(1) / sizes.clamp(min=1)[..., None]
    mean = means.sum(1) / (sizes > 0).sum(1, keepdim=True)  # an empty one says nothing
    return Semantics(top, labels, F.normalize(mean, dim=-1))

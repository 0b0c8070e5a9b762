"""K-means against scikit-learn's, and on batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from zsad.components.clustering import kmeans


@pytest.mark.parametrize(
    ("count", "width", "clusters"), [(100, 64, 20), (36, 512, 20), (25, 40, 5), (64, 16, 4)]
)
def test_labels_are_those_of_scikit_learn(count: int, width: int, clusters: int) -> None:
    reference = pytest.importorskip("sklearn.cluster").KMeans
    points = torch.randn(3, count, width, generator=torch.Generator().manual_seed(count))
    for seed in (0, 111):
        ours = kmeans(points, clusters, seed)
        for row, image in zip(ours, points):
            random = np.random.RandomState(seed)
            theirs = reference(clusters, n_init=1, random_state=random).fit(image.numpy())
            assert np.array_equal(row, theirs.labels_)


def test_three_heaps_are_found() -> None:
    heaps = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
    noise = 0.1 * torch.randn(30, 2, generator=torch.Generator().manual_seed(0))
    labels = kmeans((heaps.repeat(10, 1) + noise)[None], 3, 0)[0].unflatten(0, (10, 3))
    assert (labels == labels[0]).all()
    assert sorted(labels[0].tolist()) == [0, 1, 2]


def test_a_batch_gives_what_its_images_give() -> None:
    points = torch.randn(5, 40, 8, generator=torch.Generator().manual_seed(2))
    alone = torch.cat([kmeans(points[i : i + 1], 6, 3) for i in range(5)])
    assert torch.equal(kmeans(points, 6, 3), alone)


def test_fewer_points_than_clusters_and_equal_points() -> None:
    points = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(2))
    assert sorted(kmeans(points, 9, 0)[0].tolist()) == [0, 1, 2, 3]
    same = kmeans(torch.ones(2, 12, 3), 5, 0)
    assert ((same >= 0) & (same < 5)).all()

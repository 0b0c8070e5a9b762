"""The memory bank of normal features."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from tests.fake_cuda import simulated
from zsad.components.memory_bank import MemoryBank, association, bank_of, tokens_of
from zsad.types import ImageFeatures, Tap


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_distances_by_hand() -> None:
    bank = MemoryBank(torch.tensor([[2.0, 0.0], [0.0, 1.0]]))
    query = torch.tensor([[5.0, 0.0], [1.0, 1.0], [-1.0, 0.0], [-1.0, -1.0]])
    half = 0.5 * (1 - 0.5**0.5)  # 45 degrees
    torch.testing.assert_close(
        bank.distance(query), torch.tensor([0.0, half, 0.5, 0.5 * (1 + 0.5**0.5)])
    )


def test_a_query_in_the_memory_has_distance_zero() -> None:
    features = random(3, 20, 8)
    distance = MemoryBank(features).distance(features * 7)  # length does not matter
    assert distance.shape == (3, 20)
    assert distance.max() < 1e-6


def test_neighbours_equal_brute_force_in_any_chunking() -> None:
    features, query = random(50, 6), random(4, 9, 6, seed=1)
    unit = torch.nn.functional.normalize
    brute = 0.5 - 0.5 * unit(query, dim=-1) @ unit(features, dim=-1).T
    expected = brute.sort(dim=-1)
    for limit in (1, 130, 1 << 26):
        found = MemoryBank(features).neighbours(query, 3, max_elements=limit)
        torch.testing.assert_close(found.distance, expected.values[..., :3])
        assert torch.equal(found.row, expected.indices[..., :3])


def test_coreset_picks_one_row_of_every_cluster() -> None:
    centres = torch.eye(6)
    rows = (centres[:, None] + 0.01 * random(6, 30, 6)).reshape(-1, 6)
    for seed in range(3):
        core = MemoryBank(rows).coreset(6, seed=seed, project=0)
        assert sorted(core.features.argmax(-1).tolist()) == list(range(6))


def test_coreset_is_seeded_and_a_subset_and_covers_better_than_chance() -> None:
    bank = MemoryBank(random(300, 32))
    core = bank.coreset(30, seed=4, project=16)
    assert torch.equal(core.features, bank.coreset(30, seed=4, project=16).features)
    assert bank.distance(core.features).max() < 1e-6
    assert len(torch.unique(core.features, dim=0)) == 30
    full = bank.coreset(30, seed=4, project=0)
    assert (
        full.distance(bank.features).max()
        < MemoryBank(bank.features[:30]).distance(bank.features).max()
    )


def test_coreset_of_everything_is_the_bank() -> None:
    bank = MemoryBank(random(5, 3))
    assert bank.coreset(5) is bank


def test_coreset_survives_duplicates() -> None:
    bank = MemoryBank(torch.ones(10, 4))
    assert len(bank.coreset(4)) == 4


@pytest.mark.parametrize("shape", [(0, 4), (2, 0, 4)])
def test_an_empty_bank_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="at least one feature"):
        MemoryBank(torch.zeros(shape))


def test_a_bank_is_made_once_and_dies_with_its_references() -> None:
    tokens, window = Tap("tokens", 3), Tap("window", 2)
    references = ImageFeatures((2, 2), {tokens: random(2, 5, 4), window: random(2, 1, 4)})
    bank = bank_of(references, tokens, patches=True)
    assert len(bank) == 8
    assert bank_of(references.restrict([tokens]), tokens, patches=True) is bank
    assert bank_of(references, tokens) is not bank  # with the class tokens
    assert len(bank_of(references, tokens)) == 10
    assert bank_of(references.select([0, 1]), tokens, patches=True) is not bank
    alive = weakref.ref(bank)
    del bank, references
    gc.collect()
    assert alive() is None


def test_the_memory_holds_tokens_of_the_last_block_or_the_one_before() -> None:
    assert tokens_of("last", 12) == Tap("tokens", 12)
    assert tokens_of("penultimate", 12) == Tap("tokens", 11)


def test_association_by_hand() -> None:
    """One odd patch and one odd window among references that look like everything else."""
    tokens, window = Tap("tokens", 1), Tap("window", 2)
    usual, odd = torch.eye(3)[0], torch.eye(3)[1]
    references = ImageFeatures(
        (3, 3), {tokens: usual.repeat(2, 10, 1), window: usual.repeat(2, 4, 1)}
    )
    query = ImageFeatures((3, 3), {tokens: usual.repeat(1, 10, 1), window: usual.repeat(1, 4, 1)})
    query[tokens][0, 0] = odd  # the class token is not asked
    query[tokens][0, 1 + 8] = odd  # bottom right patch: cosine 0, distance ½
    query[window][0, 0] = odd  # top left window: alone over the top left patch only
    expected = torch.zeros(1, 3, 3)
    expected[0, 2, 2] = expected[0, 0, 0] = 0.25
    found = association(query, references, tokens, {2: window})
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_a_device_is_not_waited_for_row_by_row() -> None:
    features = torch.randn(60, 32, generator=torch.Generator().manual_seed(1))
    wanted = MemoryBank(features[None]).coreset(20, seed=2, project=16)
    with simulated("cuda") as gpu:
        bank = MemoryBank(features[None].to("cuda"))
        gpu.clear()
        found = bank.coreset(20, seed=2, project=16)
        assert gpu.waits.total() <= 2, gpu.waits  # the projection goes up; the rows are picked
        assert torch.equal(found.features.cpu(), wanted.features)

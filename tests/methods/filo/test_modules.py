"""MMCI, adapter and prompt learners."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from zsad.components.prompt_learning import PromptLearner
from zsad.methods.filo.config import Adapter, Mmci
from zsad.methods.filo.modules import ImageAdapter, LinearStage, MmciStage

GRID = (6, 9)
ALL = Mmci().kernels


def stage(fold: str, kernels: tuple[str, ...] = ALL, **more: str) -> MmciStage:
    torch.manual_seed(3)
    return MmciStage(8, 5, Mmci(kernels=kernels, fold=fold, **more))  # type: ignore[arg-type]


def patches() -> torch.Tensor:
    return torch.randn(2, 54, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kernels", [ALL, ("1x5", "5x1"), ("3x3",), (*ALL, "9x9")])
def test_folding_changes_neither_values_nor_gradients_nor_a_step(kernels: tuple[str, ...]) -> None:
    six, one = stage("never", kernels), stage("always", kernels)
    results = []
    for module in (six, one):
        optimizer = torch.optim.AdamW(module.parameters(), lr=1e-2)
        out = module(patches(), GRID)[0]
        target = torch.randn(out.shape, generator=torch.Generator().manual_seed(2))
        (F.normalize(out, dim=-1) * target).sum().backward()
        gradients = [p.grad.clone() for p in module.parameters() if p.grad is not None]
        optimizer.step()
        results.append((out.detach(), gradients, [p.detach() for p in module.parameters()]))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=0, atol=1e-5)
    for ours, theirs in zip(results[0][1], results[1][1]):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    with torch.no_grad():  # the step must reach the kept kernel
        torch.testing.assert_close(
            six(patches(), GRID)[0], one(patches(), GRID)[0], rtol=0, atol=1e-3
        )


def test_the_kept_kernel_follows_the_parameters() -> None:
    module = stage("always")
    with torch.no_grad():
        before = module(patches(), GRID)[0]
        assert module.folded()[0] is module.folded()[0]
        for p in module.parameters():
            p.mul_(2)
        after = module(patches(), GRID)[0]
    torch.testing.assert_close(after, 2 * before)


def test_folds_where_it_saves_multiplications() -> None:
    assert stage("auto").fold
    assert not stage("auto", ("1x5", "5x1")).fold
    assert not stage("auto", ("3x3",)).fold
    assert not stage("always", fusion="softmax_then_sum").fold


def test_an_impulse_gives_the_sum_of_the_kernels() -> None:
    module = stage("auto")
    impulse = torch.zeros(1, 8, 9, 9)
    impulse[0, 2, 4, 4] = 1
    with torch.no_grad():
        out = module(impulse.flatten(2).transpose(1, 2), (9, 9))[0]
        weight, bias = module.folded()
    response = out.transpose(1, 2).unflatten(2, (9, 9))[0] - bias[:, None, None]
    # a convolution layer correlates, so the response is the mirrored kernel
    torch.testing.assert_close(response[:, 1:8, 1:8], weight[:, 2].flip(-1, -2))
    assert float(response[:, 0].abs().max()) < 1e-6


def test_a_flat_kernel_answers_to_flat_scratches() -> None:
    module = MmciStage(1, 1, Mmci(kernels=("1x5",)))
    with torch.no_grad():
        module.kernels["1x5"].weight.fill_(0.2)
        module.kernels["1x5"].bias.zero_()
        across, down = torch.zeros(1, 1, 9, 9), torch.zeros(1, 1, 9, 9)
        across[..., 4, 2:7] = 1
        down[..., 2:7, 4] = 1
        answer = [module(x.flatten(2).transpose(1, 2), (9, 9))[0].max() for x in (across, down)]
    assert float(answer[0]) == pytest.approx(1.0)
    assert float(answer[1]) == pytest.approx(0.2)


def test_parameter_counts_of_the_paper_sizes() -> None:
    with torch.device("meta"):
        mmci = [MmciStage(1024, 768, Mmci()) for _ in range(3)]
        linear = [LinearStage(1024, 768) for _ in range(4)]
        learners = [PromptLearner(12, 768, 768, True) for _ in range(2)]
        adapter = ImageAdapter(768, Adapter())

    def count(modules: list[torch.nn.Module]) -> int:
        return sum(p.numel() for m in modules for p in m.parameters())

    assert count([*mmci]) == 221_787_648
    assert count([*linear]) == 3_148_800
    assert count([*learners]) == 18_432 + 149_088
    assert count([adapter]) == 589_824 + 1_152


@pytest.mark.parametrize("kind", ["bottleneck", "linear", "none"])
def test_adapter_kinds(kind: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 8)
    plain = ImageAdapter(8, Adapter(kind=kind))  # type: ignore[arg-type]
    added = ImageAdapter(8, Adapter(kind=kind, residual=True))  # type: ignore[arg-type]
    added.load_state_dict(plain.state_dict())
    expected = plain(x) if kind == "none" else plain(x) + x
    torch.testing.assert_close(added(x), expected)
    if kind == "bottleneck":
        first, last = plain.fc[0], plain.fc[2]
        torch.testing.assert_close(plain(x), F.silu(last(F.relu(first(x)))))


def test_the_meta_net_shifts_all_context_positions_alike() -> None:
    torch.manual_seed(0)
    learner = PromptLearner(4, 6, 32, True)
    shift = learner(torch.randn(3, 32)) - learner.ctx
    torch.testing.assert_close(shift, shift[:, :1].expand(-1, 4, -1))
    assert PromptLearner(4, 6, 32, False)(torch.randn(3, 32)).shape == (1, 4, 6)

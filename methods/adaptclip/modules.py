"""The adapters of AdaptCLIP.  Names of parameters follow the released files."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

LARGEST = 10  # values per channel that the global head sees beside the mean


class Norm1d(nn.BatchNorm1d):
    """A batch norm that takes a batch of one row with its running statistics [ours]: in training
    the released one cannot."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and len(x) == 1:
            assert self.running_mean is not None
            assert self.running_var is not None
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(x)


def with_float_counts(module: nn.Module) -> None:
    """Let the batch norms of a module count batches in floating point, as checkpoints hold values;
    the count enters no value."""
    for part in module.modules():
        if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
            assert part.num_batches_tracked is not None
            part.num_batches_tracked = part.num_batches_tracked.float()


class ResMLP(nn.Module):
    """x + W2 ReLU(BN(W1 x)) for features [*, E], without biases."""

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        inner = max(1, width // reduction)
        self.fc = nn.Sequential(
            nn.Linear(width, inner, bias=False),
            Norm1d(inner),
            nn.ReLU(),
            nn.Linear(inner, width, bias=False),
        )
        with_float_counts(self)

    def forward(self, x: Tensor) -> Tensor:
        moved: Tensor = self.fc(x.flatten(0, -2))
        return x + moved.view_as(x)


class PromptQuery(nn.Module):
    """Compares a query with its nearest reference patches: a local and a global head.

    All layers share the heads; each has a batch norm of its own before them.
    """

    def __init__(self, layers: int, width: int, mid: int) -> None:
        super().__init__()
        half = mid // 2
        self.sharebn = nn.ModuleList([nn.BatchNorm2d(width) for _ in range(layers)])
        self.local_adapter = nn.Sequential(
            nn.Conv2d(width, mid, 3, padding=1, bias=False),
            nn.BatchNorm2d(mid),
            nn.ReLU(),
            nn.ConvTranspose2d(mid, mid, 2, stride=2),
            nn.Conv2d(mid, half, 3, padding=1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(),
            nn.ConvTranspose2d(half, half, 2, stride=2),
            nn.Conv2d(half, 2, 1),
        )
        self.global_adapter = nn.Sequential(
            nn.Linear(width, mid, bias=False),
            Norm1d(mid),
            nn.ReLU(),
            nn.Linear(mid, half, bias=False),
            Norm1d(half),
            nn.ReLU(),
            nn.Linear(half, 2, bias=False),
        )
        with_float_counts(self)

    def forward(self, layer: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, E, h, w] -> pair logits [B, 2, 4h, 4w] and [B, 2]."""
        x = self.sharebn[layer](x)
        flat = x.flatten(2)
        largest = flat.topk(min(LARGEST, flat.shape[-1]), dim=-1).values.mean(-1)
        return self.local_adapter(x), self.global_adapter((flat.mean(-1) + largest) / 2)

"""Several processes that train together encode the training images together, each a share of them.

What one process encodes is sent to the others bit for bit, so that each keeps all features (an
epoch deals the images anew) on its own device, and none encodes what another did.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, distributed

from zsad.errors import CellError, reason

T = TypeVar("T")
Form = tuple[torch.dtype, tuple[int, ...]]


@dataclass(frozen=True)
class Shares:
    """One process, number ``rank``, of ``world``.  Every process calls the same methods in the
    same order.  With one process nothing is sent."""

    rank: int = 0
    world: int = 1

    @classmethod
    def running(cls) -> Shares:
        """The processes of the group that Lightning made; without one, this process alone."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return cls()
        return cls(distributed.get_rank(), distributed.get_world_size())

    def own(self, items: Sequence[T], first: int = 0) -> list[T]:
        """This process' share of ``items``, which are dealt in turns from process ``first`` on."""
        return list(items[(self.rank - first) % self.world :: self.world])

    def together(self, work: Callable[[], T]) -> list[T]:
        """What every process makes, by rank.  Where one of them fails all do, so that none waits
        for it: it raises its own error, the others :class:`CellError`."""
        if self.world == 1:
            return [work()]
        failed: Exception | None = None
        mine: tuple[T | None, str] = (None, "")
        try:
            mine = (work(), "")
        except Exception as error:  # whatever it is, the others must hear of it
            failed, mine = error, (None, reason(error))
        every: list[tuple[T | None, str]] = [mine] * self.world
        distributed.all_gather_object(every, mine)
        if failed is not None:
            raise failed
        for rank, (_, error_text) in enumerate(every):
            if error_text:
                raise CellError(f"process {rank + 1} of {self.world} failed: {error_text}")
        return [made for made, _ in every]  # type: ignore[misc]

    def any(self, flag: bool) -> bool:
        """Whether it holds for one of them."""
        return any(self.together(lambda: flag))

    def all(self, flag: bool) -> bool:
        """Whether it holds for all of them."""
        return all(self.together(lambda: flag))

    def sent(
        self, sender: int, values: Sequence[Tensor], forms: Sequence[Form], device: torch.device
    ) -> list[Tensor]:
        """The tensors of one process in all of them; ``forms``: their types and shapes, which all
        know, ``values``: theirs, where this is the sender."""
        if self.world == 1:
            return list(values)
        where = device if distributed.get_backend() == "nccl" else torch.device("cpu")
        found = []
        for i, (dtype, shape) in enumerate(forms):
            if sender == self.rank:
                whole = values[i].detach().to(where).contiguous()
            else:
                whole = torch.empty(shape, dtype=dtype, device=where)
            # as bytes: not every backend knows every type
            distributed.broadcast(whole.view(-1).view(torch.uint8), src=sender)
            found.append(whole.to(device))
        return found


def form(values: Sequence[Tensor]) -> list[Form]:
    """Types and shapes of tensors."""
    return [(v.dtype, tuple(v.shape)) for v in values]

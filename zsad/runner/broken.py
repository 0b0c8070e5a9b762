"""``data.skip_broken``: files that cannot be read are left out of a category, and named."""

from __future__ import annotations

from collections.abc import Sequence

from zsad.data.loader import ImageBatch


def leave_out(batch: ImageBatch, lists: Sequence[list[str]], allowed: bool, samples: int) -> None:
    """Note what could not be read in each of ``lists``.

    Raises the first of it, unless ``allowed`` and something is left of the ``samples``."""
    if not batch.failures:
        return
    for lines in lists:
        lines += [str(error) for error in batch.failures]
    if not allowed or len(lists[0]) == samples:
        raise batch.failures[0]

"""A vision model's cached sentences about training images.  No torch, no network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from zsad.data.images import image_digest
from zsad.prompt_bank.answers import AnswerStore, answers_root
from zsad.prompt_bank.parsing import sentences
from zsad.types import Category, Sample


def cached_answers(
    query: Callable[[Category], str], root: Path | str | None = None
) -> Callable[[Sample, Category], list[str] | None]:
    """Return a look-up of an image's sentences by its digest and query; None: not asked yet.

    ``query``: the question of a prompt kind (see :class:`zsad.prompt_bank.kinds.PromptKind`).
    Of several models' answers the one with the smallest model name is taken.
    """
    store = AnswerStore(Path(root) if root is not None else answers_root())
    found = store.images()

    def look_up(sample: Sample, category: Category) -> list[str] | None:
        if not found:
            return None
        record = found.get((image_digest(sample), query(category)))
        return None if record is None else sentences(record["answer"], "abnormal")

    return look_up
